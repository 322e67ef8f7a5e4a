"""A token that two parsers read differently is two tokens (R17)."""

from __future__ import annotations

from typing import Any

import pytest

from shared.jose import strict_json
from shared.jose.strict_json import MAX_NESTING, StrictJsonError, read_object


@pytest.mark.parametrize(
    ("data", "value"),
    [
        pytest.param(b"{}", {}, id="empty"),
        pytest.param(b'{"a":1}', {"a": 1}, id="compact"),
        pytest.param(b' { "a" : 1 } \n', {"a": 1}, id="white space"),
        pytest.param(b'{"a":"\\u00fc"}', {"a": "ü"}, id="escape"),
        pytest.param('{"a":"ü"}'.encode(), {"a": "ü"}, id="UTF-8"),
        pytest.param(b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}, id="surrogate pair"),
        pytest.param(b'{"a":1.50}', {"a": 1.5}, id="float"),
        pytest.param(b'{"a":1e3}', {"a": 1000.0}, id="exponent"),
        pytest.param(b'{"a":18446744073709551616}', {"a": 1 << 64}, id="large number"),
        pytest.param(b'{"a":"[[[{{{"}', {"a": "[[[{{{"}, id="brackets as text"),
        pytest.param(b'{"":[null,true,false]}', {"": [None, True, False]}, id="words"),
    ],
)
def test_strict_json_is_read(data: bytes, value: dict[str, Any]) -> None:
    assert read_object(data) == value


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="list"),
        pytest.param(b" []", id="list behind a space"),
        pytest.param(b'"a"', id="text"),
        pytest.param(b"1", id="number"),
        pytest.param(b"null", id="null"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="byte order mark"),
        pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
        pytest.param('{"a":1}'.encode("utf-16-le"), id="UTF-16-LE"),
        pytest.param('{"a":1}'.encode("utf-32-be"), id="UTF-32-BE"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param(b'{"a":"\xc0\xaf"}', id="overlong UTF-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="surrogate in UTF-8"),
        pytest.param(b'{"a":1,"a":1}', id="duplicate"),
        pytest.param(b'{"a":1,"a":2}', id="duplicate, other value"),
        pytest.param(b'{"a":1,"\\u0061":2}', id="duplicate by escape"),
        pytest.param(b'{"a":{"b":1,"b":2}}', id="duplicate, nested"),
        pytest.param(b'{"a":[{"b":1},{"b":1,"b":2}]}', id="duplicate, in a list"),
        pytest.param(b'{"exp":1, "exp":9999999999}', id="duplicate with space"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":Infinity}', id="Infinity"),
        pytest.param(b'{"a":-Infinity}', id="-Infinity"),
        pytest.param(b'{"a":1e400}', id="a number past every float"),
        pytest.param(b'{"a":"\\ud800"}', id="lone high surrogate"),
        pytest.param(b'{"a":"\\udc00"}', id="lone low surrogate"),
        pytest.param(b'{"\\ud800":1}', id="lone surrogate in a name"),
        pytest.param(b'{"a":"\n"}', id="control character"),
        pytest.param(b'{"a":01}', id="leading zero"),
        pytest.param(b'{"a":+1}', id="plus"),
        pytest.param(b'{"a":1.}', id="dot without digits"),
        pytest.param('{"a":١٢}'.encode(), id="Arabic digits"),
        pytest.param(b'{"a":1}{"a":1}', id="two objects"),
        pytest.param(b'{"a":1}\x00', id="NUL behind"),
        pytest.param(b'{"a":1,}', id="comma behind"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b'{"a":1/**/}', id="comment"),
        pytest.param(b'{"a":1', id="cut off"),
    ],
)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(StrictJsonError):
        read_object(data)


def nested(depth: int, space: bytes = b"") -> bytes:
    """Return an object in which `depth` objects and lists are inside each other."""
    inside = depth - 1
    return b'{"a":' + space + b"[" * inside + b"]" * inside + b"}"


@pytest.mark.parametrize("space", [b"", b" "], ids=["compact", "with space"])
def test_nesting_past_32_is_refused(space: bytes) -> None:
    assert MAX_NESTING == 32
    read_object(nested(32, space))
    for depth in (33, 1_000, 1_020, 100_000):
        with pytest.raises(StrictJsonError):
            read_object(nested(depth, space))


def test_many_brackets_that_are_not_nested_are_read() -> None:
    data = b'{"a":[' + b",".join([b"[]"] * 100) + b"]}"
    assert read_object(data) == {"a": [[]] * 100}


def test_refusals_look_the_same_whichever_parser_found_them() -> None:
    """Nothing of the token's text is in the message."""
    for data in (b'{"secret":1,"secret":2}', b'{"secret":NaN}', b"secret"):
        with pytest.raises(StrictJsonError) as caught:
            read_object(data)
        assert "secret" not in str(caught.value)


def test_the_slow_parser_alone_refuses_the_constants_python_takes() -> None:
    """The slow parser refuses by itself, and does not rely on the fast one."""
    with pytest.raises(StrictJsonError):
        strict_json._read_with_pairs(b'{"a":NaN}')
