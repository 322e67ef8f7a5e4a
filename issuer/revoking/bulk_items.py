"""What a bulk revocation is told: rows of a kind and a key, each read by itself.

A row that cannot be used becomes a `RefusedItem` with its number, the field and the
rule; the others are not held up by it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

import orjson

from shared.claims import MAX_IDENTIFIER_CHARS, MAX_NUMERIC_DATE, is_identifier
from shared.json_members import DuplicateMemberError, require_distinct_members

_MAX_LINE_BYTES: Final = 4_096
_FIELDS: Final = ("kind", "key", "exp")
_BOM: Final = b"\xef\xbb\xbf"


class BulkKind(StrEnum):
    """What the key of a row names."""

    JTI = "jti"  #: one access token
    SID = "sid"  #: a session, a personal key by its id, or one grant of a client
    USER = "user"  #: a user by id: all sessions and personal keys
    USERNAME = "username"  #: a user by name: the same
    CLIENT = "client"  #: the tokens a client has for itself
    KID = "kid"  #: every token of a signing key, which leaves the JWKS


class BulkItem(NamedTuple):
    """One thing to revoke.

    Attributes:
        line: number of its row, from 1.
        kind: what the key names.
        key: the name.
        exp: the token's `exp`, Unix seconds, where it is known; for `jti` alone.
    """

    line: int
    kind: BulkKind
    key: str
    exp: int | None = None


class RefusedItem(NamedTuple):
    """A row that was not used: its number, the field that is wrong, and the rule."""

    line: int
    field: str
    rule: str


class _BadRowError(ValueError):
    """Carries field and rule of a row that cannot be used."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(field, rule)
        self.field = field
        self.rule = rule


def read_item(line: int, row: object) -> BulkItem | RefusedItem:
    """Read one row, a JSON object `{"kind", "key", "exp"?}`."""
    try:
        if not isinstance(row, Mapping):
            raise _BadRowError("row", "must be a JSON object")
        return _read_row(line, row)
    except _BadRowError as error:
        return RefusedItem(line, error.field, error.rule)


def read_lines(lines: Iterable[bytes]) -> Iterator[BulkItem | RefusedItem]:
    """Read a file's lines as they come: JSON lines, or CSV with a header.

    The first line decides: one that begins with `{` is JSON. CSV begins with a header
    that names `kind`, `key` and perhaps `exp`, in any order. Empty lines are skipped.

    Args:
        lines: each with its line end.
    """
    names: tuple[str, ...] | None = None
    is_json: bool | None = None
    for number, raw in enumerate(lines, 1):
        line = raw.removeprefix(_BOM) if number == 1 else raw
        if not line.strip():
            continue
        if is_json is None:
            is_json = line.lstrip().startswith(b"{")
        try:
            if is_json:
                yield _read_row(number, _parse_json(line))
            elif names is None:
                names = _read_header(line)
            else:
                yield _read_row(number, _parse_csv(line, names))
        except _BadRowError as error:
            yield RefusedItem(number, error.field, error.rule)
            if not is_json and names is None:
                return  # without a header no row means anything


def _read_row(line: int, row: Mapping[Any, Any]) -> BulkItem:
    if not row.keys() <= set(_FIELDS):
        raise _BadRowError("row", f"only {', '.join(_FIELDS)} are known here")
    try:
        kind = BulkKind(row.get("kind", ""))
    except ValueError:
        rule = f"must be one of {', '.join(BulkKind)}"
        raise _BadRowError("kind", rule) from None
    key = row.get("key")
    if not isinstance(key, str) or not is_identifier(key):
        rule = f"must have 1 to {MAX_IDENTIFIER_CHARS} characters, none of them unseen"
        raise _BadRowError("key", rule)
    exp = row.get("exp")
    if exp is not None and kind is not BulkKind.JTI:
        raise _BadRowError("exp", "belongs to a jti only")
    if exp is not None and (type(exp) is not int or not 0 < exp <= MAX_NUMERIC_DATE):
        raise _BadRowError("exp", "must be Unix seconds")
    return BulkItem(line, kind, key, exp)


def _parse_json(line: bytes) -> Mapping[str, Any]:
    if len(line) > _MAX_LINE_BYTES:
        raise _BadRowError("row", f"must not be over {_MAX_LINE_BYTES} bytes")
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise _BadRowError("row", "must be JSON in UTF-8 (RFC 8259)") from None
    if not isinstance(row, dict):
        raise _BadRowError("row", "must be a JSON object")
    try:
        require_distinct_members(line, row)
    except DuplicateMemberError as error:
        raise _BadRowError(error.name or "row", error.rule) from None
    return row


def _split_csv(line: bytes) -> list[str]:
    if len(line) > _MAX_LINE_BYTES:
        raise _BadRowError("row", f"must not be over {_MAX_LINE_BYTES} bytes")
    try:
        # One line is one row: no key holds a line end.
        (cells,) = csv.reader([line.decode().rstrip("\r\n")], strict=True)
    except (UnicodeDecodeError, ValueError, csv.Error):
        raise _BadRowError("row", "must be CSV in UTF-8 (RFC 4180)") from None
    return cells


def _read_header(line: bytes) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in _split_csv(line))
    if not {"kind", "key"} <= set(names) <= set(_FIELDS) or len(set(names)) < len(
        names
    ):
        raise _BadRowError("header", "must name kind and key, and at most exp beside")
    return names


def _parse_csv(line: bytes, names: tuple[str, ...]) -> Mapping[str, Any]:
    cells = _split_csv(line)
    if len(cells) != len(names):
        raise _BadRowError("row", f"must have {len(names)} cells")
    row: dict[str, Any] = dict(zip(names, cells, strict=True))
    exp = row.pop("exp", "")
    if exp:
        if not (exp.isascii() and exp.isdecimal() and len(exp) <= 12):
            raise _BadRowError("exp", "must be Unix seconds")
        row["exp"] = int(exp)
    return row
