"""One canonical form of a path, or a refusal; nothing is guessed (R7, R8)."""

from __future__ import annotations

import pytest

from verifier.check.denials import Denied, DenyReason
from verifier.check.rules.target_uri import canonical_segments


@pytest.mark.parametrize(
    ("uri", "segments"),
    [
        (b"/", ()),
        (b"/a", ("a",)),
        (b"/a/", ("a",)),
        (b"/a/b.c/d-e_f~g", ("a", "b.c", "d-e_f~g")),
        (b"/%61pi", ("api",)),
        (b"/a%20b", ("a b",)),
        (b"/Z%C3%BCrich", ("Zürich",)),
        (b"/z%c3%bcrich", ("zürich",)),
        (b"/100%25", ("100%",)),
        (b"/...", ("...",)),
        (b"/..a", ("..a",)),
        (b"/.well-known", (".well-known",)),
        (b"/a@b:c=d+e,f!g$h&i'j(k)l*m", ("a@b:c=d+e,f!g$h&i'j(k)l*m",)),
        (b"/API", ("API",)),
    ],
)
def test_a_plain_path_has_one_reading(uri: bytes, segments: tuple[str, ...]) -> None:
    assert canonical_segments(uri) == segments


@pytest.mark.parametrize(
    "query", [b"?", b"?x=1", b"?/../admin", b"?a?b", b"?%2f", b"?\xff", b"?#"]
)
def test_ghsa_7rh7_c77v_6434_the_query_is_not_part_of_the_path(query: bytes) -> None:
    """R8 (also CVE-2026-41059): rules see the path only."""
    assert canonical_segments(b"/a/b" + query) == ("a", "b")


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param(b"/public/../api", id="dot segments"),
        pytest.param(b"/..", id="dot segments alone"),
        pytest.param(b"/../", id="dot segments and slash"),
        pytest.param(b"/a/./b", id="one dot"),
        pytest.param(b"/.", id="one dot alone"),
        pytest.param(b"/public/%2e%2e/api", id="escaped dots"),
        pytest.param(b"/public/%2E./api", id="half-escaped dots"),
        pytest.param(b"/public/%252e%252e/api", id="dots escaped twice"),
        pytest.param(b"/public/%25252e/api", id="dots escaped three times"),
        pytest.param(b"/public/%25%32%65/api", id="escape of an escape"),
        pytest.param(b"//api", id="two slashes"),
        pytest.param(b"/api//x", id="two slashes inside"),
        pytest.param(b"/api//", id="two slashes behind"),
        pytest.param(b"//", id="two slashes alone"),
        pytest.param(b"/api%2fx", id="escaped slash"),
        pytest.param(b"/api%2Fx", id="escaped slash, upper case"),
        pytest.param(b"/api%252fx", id="slash escaped twice"),
        pytest.param(b"/api\\x", id="backslash"),
        pytest.param(b"/api%5cx", id="escaped backslash"),
        pytest.param(b"/api%5Cx", id="escaped backslash, upper case"),
        pytest.param(b"/api;x=1", id="path parameter"),
        pytest.param(b"/api%3bx", id="escaped semicolon"),
        pytest.param(b"/..;/api", id="dots behind a semicolon"),
        pytest.param(b"/api%00", id="escaped NUL"),
        pytest.param(b"/api\x00", id="NUL"),
        pytest.param(b"/api%0d%0a", id="escaped CRLF"),
        pytest.param(b"/api\r\n", id="CRLF"),
        pytest.param(b"/api\n", id="LF behind"),
        pytest.param(b"/api%7f", id="DEL"),
        pytest.param(b"/api%e2%80%ae", id="bidi override"),
        pytest.param(b"/api%", id="bare percent sign"),
        pytest.param(b"/api%2", id="half an escape"),
        pytest.param(b"/api%zz", id="bad escape"),
        pytest.param(b"/api%u0061", id="IIS escape"),
        pytest.param(b"/%ff", id="invalid UTF-8"),
        pytest.param(b"/%c0%ae%c0%ae/api", id="overlong dots"),
        pytest.param(b"/%c3", id="half a character"),
        pytest.param(b"/%ed%a0%80", id="surrogate"),
        pytest.param(b"/\xc3\xbc", id="raw UTF-8"),
        pytest.param(b"/a%3fb", id="escaped question mark"),
        pytest.param(b"/a%23b", id="escaped hash"),
        pytest.param(b"/a#b", id="fragment"),
        pytest.param(b"/a b", id="space"),
        pytest.param(b'/a"b', id="quote"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"?x=1", id="query alone"),
        pytest.param(b"a", id="relative"),
        pytest.param(b"*", id="asterisk form"),
        pytest.param(b"http://app/api", id="absolute form"),
        pytest.param(b"app:443", id="authority form"),
    ],
)
def test_ghsa_p224_6x5r_fjpm_a_path_with_two_readings_is_refused(uri: bytes) -> None:
    """R7: not normalised and guessed."""
    with pytest.raises(Denied) as caught:
        canonical_segments(uri)
    assert caught.value.reason is DenyReason.PATH_AMBIGUOUS


def test_text_after_the_query_cannot_hide_the_path() -> None:
    with pytest.raises(Denied):
        canonical_segments(b"/public/../api?/public")
