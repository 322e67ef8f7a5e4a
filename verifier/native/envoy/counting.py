"""What Envoy's counters must show when all workers have what it was sent.

Each content of a filter has a number: what the counters `taken` and `completed` of the
filter show when every worker has it. The number is in the version, so the next stream,
or the next `native` process, goes on with it. It is known to be right where it begins:

- a new Envoy process has no version and counters of 0;
- where the version of a filter is ours and `taken` is its number, the counter was not
  reset since: after a reset it stays behind the numbers by what was lost.

Equal counters alone prove nothing. `POST /reset_counters` while a content is on its way
makes both 0, and in a hot restart Envoy adds parts of the old process's counters. After
a content that Envoy refuses, `completed` may be one too high: it counts there, and is
not taken. So the number of a filter with a refusal is not known until Envoy restarts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from verifier.native.envoy.admin import FilterState
from verifier.native.writer import WriteError

_UNKNOWN: Final = (
    "Envoy's counters do not show any more what its workers have: it refused a filter, "
    "they were reset (/reset_counters), or it was hot restarted without "
    "--skip-hot-restart-parent-stats; nothing is confirmed until Envoy is restarted"
)


#: In place of the number that is not known.
_NO_NUMBER: Final = "x"
#: The versions of `version_of`, with a number.
_NUMBERED: Final = re.compile(r"[0-9a-f]+-[0-9]+-([0-9]{1,18})", re.ASCII)


class CountersResetError(WriteError):
    """The counters were reset while nothing was on its way; the numbers start anew."""


@dataclass(slots=True)
class _Count:
    """The numbers of one filter.

    Attributes:
        number: of the content that Envoy has taken last; None: it is not known.
        settled: the number at which nothing was on its way to a worker, the last time
            that this was seen; None: it was not.
    """

    number: int | None
    settled: int | None

    @property
    def since_settled(self) -> int | None:
        """The contents that were taken since nothing was on its way."""
        if self.number is None or self.settled is None:
            return None
        return self.number - self.settled


class Counting:
    """The numbers of the filters of one Envoy process."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}

    def knows(self, names: Iterable[str]) -> bool:
        """Return whether the count of each filter has begun."""
        return self._counts.keys() >= set(names)

    def begin(self, names: Iterable[str], states: Mapping[str, FilterState]) -> None:
        """Begin to count filters, of which nothing was sent over this stream yet.

        Args:
            names: of filters; those that are counted are left alone.
            states: as Envoy shows them now; without a filter, its count stays unknown.
        """
        for name in set(names) - self._counts.keys():
            state = states.get(name)
            number = None if state is None or state.refused else _number_of(state)
            is_settled = state is not None and state.completed == number
            self._counts[name] = _Count(number, number if is_settled else None)

    def keep(self, names: Iterable[str]) -> None:
        """Forget all other filters: Envoy does not ask for them any more."""
        kept = set(names)
        self._counts = {n: c for n, c in self._counts.items() if n in kept}

    def next(self, name: str) -> int | None:
        """Return the number of the next content; None when it is not known."""
        count = self._counts.get(name)
        return None if count is None or count.number is None else count.number + 1

    def took(self, name: str) -> None:
        """Note that Envoy has taken a content."""
        count = self._counts.get(name)
        if count is not None and count.number is not None:
            count.number += 1

    def refused(self, name: str) -> None:
        """Note that Envoy has refused a content: its number is not known any more."""
        count = self._counts.get(name)
        if count is not None:
            count.number = count.settled = None

    def is_proven(
        self, versions: Mapping[str, str], states: Mapping[str, FilterState]
    ) -> bool:
        """Return whether all workers have these versions; False: not yet.

        Args:
            versions: by name, that Envoy's main thread has taken last.
            states: as Envoy shows them now.

        Raises:
            CountersResetError: they were reset; send everything again.
            WriteError: the counters prove nothing.
        """
        if any(n not in states or states[n].version != v for n, v in versions.items()):
            return False
        if not self.knows(versions):
            return False  # dropped meanwhile
        counts = {name: self._counts[name] for name in versions}
        if all(states[name].taken == each.number for name, each in counts.items()):
            if any(
                states[name].completed != each.number for name, each in counts.items()
            ):
                return False
            for each in counts.values():
                each.settled = each.number
            return True
        # After a reset while nothing was on its way, the counters have what was taken
        # since then. A counter that lost one of those never gets there.
        if any(states[name].taken != c.since_settled for name, c in counts.items()):
            raise WriteError(_UNKNOWN)
        if any(states[name].completed != c.since_settled for name, c in counts.items()):
            return False
        for each in counts.values():
            each.number = each.settled = each.since_settled
        raise CountersResetError(
            "Envoy's counters were reset; everything is sent again"
        )


def version_of(stream: str, count: int, number: int | None) -> str:
    """Return the version of a content, which no other has.

    Args:
        stream: names the stream, in hexadecimal digits.
        count: of all that was sent over it.
        number: of the content, in the counters of its filter.
    """
    return f"{stream}-{count}-{_NO_NUMBER if number is None else number}"


def _number_of(state: FilterState) -> int | None:
    """Return the number of the content that Envoy has; None where it is in doubt."""
    if not state.version:
        # A new process. The counters are another's where they are not 0.
        return 0 if state.taken == state.completed == 0 else None
    numbered = _NUMBERED.fullmatch(state.version)
    if numbered is None or int(numbered[1]) != state.taken:
        return None
    return state.taken
