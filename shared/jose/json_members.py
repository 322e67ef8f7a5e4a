"""Duplicate members of JSON objects, which RFC 8259, section 4, leaves to the reader.

orjson takes the last of two members with one name, other readers take the first. Such a
disagreement lets one program check a value that another does not use.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

#: Names that may be shown in an answer or a log; any other text may be a secret.
_TELLABLE: Final = re.compile(r"[a-z][a-z_]{0,31}")


class DuplicateMemberError(ValueError):
    """A member occurs twice in an object, or the JSON is nested too deep to check.

    Attributes:
        name: of the member; empty when it must not be shown.
        rule: the rule that is broken.
    """

    def __init__(self, name: str, rule: str = "must not stand twice") -> None:
        self.name = name if _TELLABLE.fullmatch(name) else ""
        self.rule = rule
        super().__init__(rule)


def require_distinct_members(data: bytes, value: Any) -> None:
    """Return when no object in the JSON has two members of one name.

    Args:
        data: the JSON, which orjson has read: UTF-8, RFC 8259.
        value: the value that orjson returned.

    Raises:
        DuplicateMemberError: naming the first such member, or because the JSON is
            nested deeper than Python's parser allows.
    """
    # Each string has two quotes. A dropped member takes at least the quotes of its name
    # with it, so if none are missing, none was dropped. This avoids the slow parser.
    if data.count(b'"') == 2 * _count_strings(value):
        return
    try:
        json.loads(data, object_pairs_hook=_require_distinct)
    except RecursionError:
        raise DuplicateMemberError("", "must not be nested so deep") from None


def _count_strings(value: Any) -> int:
    count, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if type(item) is str:
            count += 1
        elif type(item) is dict:
            count += len(item)
            waiting.extend(item.values())
        elif type(item) is list:
            waiting.extend(item)
    return count


def _require_distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise DuplicateMemberError(name)
            seen.add(name)
    return value
