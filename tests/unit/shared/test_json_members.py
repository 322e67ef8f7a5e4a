"""Duplicate members are found in any surroundings (decision 0003)."""

from __future__ import annotations

import json
from contextlib import suppress

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.jose.json_members import DuplicateMemberError, require_distinct_members


def require(data: bytes) -> None:
    require_distinct_members(data, orjson.loads(data))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'{"a":1,"a":1}', "a"),
        (b'{"a": 1, "b": 2, "a": 1}', "a"),
        (b'{"a":"x","a":"y"}', "a"),
        (b'{"a":"x","a":1}', "a"),
        (b'{"a":[{"b":1,"b":{"c":"d"}}]}', "b"),
        (b'[{"b":1},{"b":1,"b":2}]', "b"),
        (b'{"a":1,"\\u0061":2}', "a"),
        (b'{"a":"\\"","a":1}', "a"),
        (b'{"user_name":"x","user_name":"y"}', "user_name"),
        (b'{"hunter2":1,"hunter2":2}', ""),
        (b'{"":1,"":2}', ""),
        ('{"\u00e4":1,"\u00e4":2}'.encode(), ""),
    ],
)
def test_a_duplicate_is_found_and_named_if_it_may_be_shown(
    data: bytes, name: str
) -> None:
    """R35: a name that is none of ours may be a secret."""
    with pytest.raises(DuplicateMemberError) as refused:
        require(data)
    assert refused.value.name == name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, st.booleans(), st.booleans())
def test_json_without_duplicates_passes_however_it_is_written(
    value: object, ensure_ascii: bool, is_compact: bool
) -> None:
    separators = (",", ":") if is_compact else (", ", ": ")
    text = json.dumps(value, ensure_ascii=ensure_ascii, separators=separators)
    require(text.encode())


@given(st.lists(st.tuples(st.text(max_size=2), JSON), max_size=5), st.booleans())
def test_an_object_passes_exactly_if_its_names_differ(
    members: list[tuple[str, object]], ensure_ascii: bool
) -> None:
    parts = [
        f"{json.dumps(name, ensure_ascii=ensure_ascii)}: {json.dumps(value)}"
        for name, value in members
    ]
    data = ("{" + ", ".join(parts) + "}").encode()
    names = [name for name, _ in members]
    if len(set(names)) == len(names):
        require(data)
    else:
        with pytest.raises(DuplicateMemberError):
            require(data)


def test_deep_nesting_is_refused_and_nothing_breaks() -> None:
    data = b'{"a":"\\n","b":' + b"[" * 900 + b"]" * 900 + b"}"
    with suppress(DuplicateMemberError):
        require(data)
