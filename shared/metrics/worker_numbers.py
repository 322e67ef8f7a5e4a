"""The numbers of one worker's metrics: read, written into a record, and merged.

A series is known by its text, `["NAME",{LABELS}]` in JSON. A record holds the texts of
all series and then their values. The texts seldom change, so a reader parses them once.
Measured with 1,700 series in each of four workers: 81 ms of CPU to merge and to render
when every record was parsed anew, 32 ms with this, of which 30 are prometheus_client's.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import orjson

from shared.metrics.prometheus import Metric, Mode

#: Bytes of the texts; they follow, and then the values as doubles.
_LENGTH: Final = struct.Struct("<Q")
#: Bytes of JSON around the texts of a family at most, beside its name.
_FAMILY_FRAME: Final = 6
#: Bytes of JSON and of the length around all families at most.
_FRAME: Final = 40
_MERGES: Final[dict[Mode, Callable[[float, float], float]]] = {
    "sum": lambda one, other: one + other,
    "max": max,
    "min": min,
}

#: The value of each series, by its text, of every family, by its name.
Families = dict[str, dict[str, float]]


class Numbers(NamedTuple):
    """The numbers of one worker.

    Attributes:
        totals: counters and histograms; they outlive the worker.
        gauges: current values; they end with the worker.
    """

    totals: Families
    gauges: Families


def collect(families: Iterable[Metric]) -> Numbers:
    """Return the numbers of a registry's families.

    A value that is not finite is left out: it would spoil every sum.
    """
    numbers = Numbers({}, {})
    for family in families:
        target = numbers.gauges if family.type == "gauge" else numbers.totals
        target[family.name] = {
            orjson.dumps([sample.name, sample.labels]).decode(): sample.value
            for sample in family.samples
            if math.isfinite(sample.value)
        }
    return numbers


def add(total: Families, more: Families) -> None:
    """Add every value of `more` to its series in `total`."""
    for name, values in more.items():
        family = total.setdefault(name, {})
        for series, value in values.items():
            family[series] = family.get(series, 0.0) + value


def merge_gauges(merged: Families, more: Families, modes: Mapping[str, Mode]) -> None:
    """Merge the gauges of one more worker.

    Args:
        merged: those of the other workers, changed in place.
        more: those of this one.
        modes: how gauges are merged, by name; by the largest when it is not there.
    """
    for name, values in more.items():
        family = merged.setdefault(name, {})
        merge = _MERGES[modes.get(name, "max")]
        for series, value in values.items():
            family[series] = merge(family[series], value) if series in family else value


def encode(numbers: Numbers) -> bytes:
    """Return a record's payload."""
    texts = orjson.dumps(
        [{name: list(values) for name, values in each.items()} for each in numbers]
    )
    values = array("d")
    for families in numbers:
        for family in families.values():
            values.extend(family.values())
    return _LENGTH.pack(len(texts)) + texts + values.tobytes()


def fit(numbers: Numbers, published: Families, room: int) -> tuple[Numbers, list[str]]:
    """Return the numbers that fit into a size, and the names of the others.

    The largest families are replaced first: totals by the values published before, and
    gauges by nothing. The values published before did fit, so this always succeeds.

    Args:
        numbers: the numbers to publish.
        published: the totals that were published before.
        room: bytes of a payload.
    """
    totals, gauges = dict(numbers.totals), dict(numbers.gauges)
    sizes = {name: _size(name, values) for name, values in (totals | gauges).items()}
    excess = sum(sizes.values()) + _FRAME - room
    missing: list[str] = []
    for name in sorted(sizes, key=lambda each: -sizes[each]):
        if excess <= 0:
            break
        missing.append(name)
        excess -= sizes[name]
        if gauges.pop(name, None) is None and totals.pop(name) and name in published:
            totals[name] = published[name]
            excess += _size(name, published[name])
    return Numbers(totals, gauges), missing


def _size(name: str, values: Mapping[str, float]) -> int:
    return len(name) + _FAMILY_FRAME + sum(_size_of_series(text) for text in values)


def _size_of_series(text: str) -> int:
    """Return the bytes of a series: its text in JSON, a comma and its value."""
    return len(orjson.dumps(text)) + 1 + 8


class Reader:
    """Reads the payloads of one slot, and parses equal texts only once."""

    def __init__(self) -> None:
        self._texts = b""
        self._names: tuple[dict[str, list[str]], ...] = ({}, {})

    def decode(self, payload: bytes) -> Numbers:
        """Return the numbers in a payload."""
        (length,) = _LENGTH.unpack_from(payload)
        texts, rest = payload[_LENGTH.size :][:length], payload[_LENGTH.size + length :]
        if texts != self._texts:
            self._names, self._texts = tuple(orjson.loads(texts)), texts
        values = iter(array("d", rest))
        totals, gauges = (
            {
                name: dict(zip(family, values, strict=False))
                for name, family in each.items()
            }
            for each in self._names
        )
        return Numbers(totals, gauges)


def parse_series(text: str) -> tuple[str, dict[str, str]]:
    """Return the name and the labels of a series."""
    name, labels = orjson.loads(text)
    return name, labels
