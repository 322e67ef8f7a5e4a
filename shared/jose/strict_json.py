"""Strict JSON (RFC 8259, R17).

Python's `json` accepts UTF-16, NaN and duplicate members; orjson accepts duplicates. A
token that two parsers read differently is two tokens, so all of these are refused.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

import orjson

#: RFC 8259, section 9, allows limits. Our own documents nest no deeper than 3.
MAX_NESTING: Final = 32
#: The first byte of an object, or of white space before it (RFC 8259, section 2).
_BEGINNINGS: Final = b"{ \t\n\r"
#: Bytes of the shortest document that is nested too deep: it is all brackets.
_SHORTEST_DEEP: Final = 2 * (MAX_NESTING + 1)


class StrictJsonError(ValueError):
    """The bytes are not strict JSON, or not an object."""


def read_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`.

    Raises:
        StrictJsonError: for anything but one object in strict UTF-8 JSON: a byte order
            mark, NaN, a lone surrogate, a duplicate member, nesting past 32.
    """
    # Refuse garbage early: the parser's error message is expensive to build.
    if not data or data[0] not in _BEGINNINGS:
        raise StrictJsonError("not a JSON object")
    try:
        # Strict UTF-8, no BOM, no NaN, no lone surrogates.
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise StrictJsonError("not JSON") from None
    if type(value) is not dict:
        raise StrictJsonError("not a JSON object")
    # Few brackets cannot be nested deep. An attacker may send thousands, so the depth
    # is looked at before anything that costs more.
    if (
        len(data) >= _SHORTEST_DEEP
        and data.count(b"{") + data.count(b"[") > MAX_NESTING
        and _is_deep(value)
    ):
        raise StrictJsonError("nested too deep")
    # If encoding the value again gives the same bytes, no member was dropped. Nearly
    # all tokens are compact JSON, and need no second parser for that reason.
    if orjson.dumps(value) == data:
        return value
    return _read_with_pairs(data)


def _read_with_pairs(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError):
        raise StrictJsonError("not strict JSON") from None
    result: dict[str, Any] = value
    return result


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise StrictJsonError("a member is repeated")
    return value


def _refuse_constant(_text: str) -> NoReturn:
    raise StrictJsonError("NaN and Infinity are not JSON")


def _is_deep(value: dict[str, Any]) -> bool:
    """Return whether it is nested past the limit, without recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_NESTING):
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True
