"""An accepted path has one reading; a path that climbs is never accepted (R7, R8)."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import quote, unquote, unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.proofs import examples
from verifier.check.denials import Denied
from verifier.check.rules.rule import Rule, RuleTree
from verifier.check.rules.target_uri import canonical_segments

pytestmark = pytest.mark.proof

PATHS = settings(deadline=None, max_examples=examples(300))

ATOMS = st.sampled_from(
    [
        *(
            b"/ a A b . .. ~ - % %2 %2e %2E %2f %2F %5c \\ ; ? # %00 %25 %252e %25%32"
        ).split(),
        *(
            b"%61 %c3%bc %C3 %ff %e2%80%ae %20 + * ** & = @ : , ' %u0061 \xc3\xbc"
        ).split(),
        b" ",
        b"\n",
        b"\x00",
    ]
)
URIS = st.one_of(
    st.binary(max_size=20),
    st.lists(ATOMS, max_size=10).map(lambda atoms: b"/" + b"".join(atoms)),
)


@PATHS
@given(URIS)
def test_an_accepted_path_means_the_same_to_everybody(uri: bytes) -> None:
    try:
        segments = canonical_segments(uri)
    except Denied:
        return
    raw_path = uri.partition(b"?")[0]
    decoded = unquote_to_bytes(raw_path).decode("utf-8")
    # decoding before or after splitting, once or twice, gives the same
    assert tuple(decoded.strip("/").split("/") if segments else ()) == segments
    assert unquote(decoded) == decoded
    # merging slashes and resolving dots changes nothing
    assert posixpath.normpath(decoded) == "/" + "/".join(segments)
    # and written again it is read again
    again = "/" + "/".join(quote(segment, safe="") for segment in segments)
    assert canonical_segments(again.encode()) == segments


PLAIN = st.text("ab", min_size=1, max_size=3)


@PATHS
@given(st.lists(st.text("gü %*+", min_size=1, max_size=4), max_size=4))
def test_segments_that_are_escaped_are_accepted(segments: list[str]) -> None:
    """Nothing plain is refused: `%` only where it would begin an escape."""
    uri = "/" + "/".join(quote(segment, safe="") for segment in segments)
    assert canonical_segments(uri.encode()) == tuple(segments)


DOTS = st.sampled_from([".", "%2e", "%2E", "%252e", "%252E", "%25%32%65", "%25%32%45"])
SLASHES = st.sampled_from(
    ["/", "%2f", "%2F", "%252f", "\\", "%5c", "%255C", "//", "/./"]
)
TAILS = st.sampled_from(["", "?", "?/public", "/", "/public"])


@PATHS
@given(PLAIN, SLASHES, DOTS, DOTS, st.one_of(SLASHES, st.just("")), PLAIN, TAILS)
def test_a_path_that_climbs_in_any_spelling_is_refused(
    before: str, slash: str, dot: str, dot2: str, end: str, after: str, tail: str
) -> None:
    """Decoded once or twice, with either slash."""
    climb = f"/{before}{slash}{dot}{dot2}{end}" + (after if end else "") + tail
    try:
        canonical_segments(climb.encode())
    except Denied:
        return
    raise AssertionError(f"accepted: {climb}")


@PATHS
@given(URIS)
def test_paths_with_decoded_dot_segments_are_refused(uri: bytes) -> None:
    """The same, from the other side: for any bytes at all."""
    path = uri.partition(b"?")[0]
    once = unquote_to_bytes(path)
    readings = (path, once, unquote_to_bytes(once))
    if not any(b".." in re.split(rb"[/\\;]", reading) for reading in readings):
        return
    try:
        canonical_segments(uri)
    except Denied:
        return
    raise AssertionError(f"accepted: {uri!r}")


@PATHS
@given(
    st.lists(st.sampled_from(["a", "b", "*"]), max_size=4),
    st.booleans(),
    st.lists(st.sampled_from(["a", "b", "*", "**", "ab"]), max_size=5),
)
def test_a_rule_matches_as_its_pattern_reads(
    pattern: list[str], is_open: bool, segments: list[str]
) -> None:
    """Held against a regular expression over the whole path."""
    one = {"*": "/[^/]+"}
    expression = "".join(one.get(word, f"/{word}") for word in pattern)
    if is_open:
        expression += "(/[^/]+)*"
    path = "".join(f"/{segment}" for segment in segments)
    rule = Rule((*pattern, "**") if is_open else tuple(pattern))
    expected = re.fullmatch(expression, path) is not None
    assert (RuleTree([rule]).find("GET", "", segments) is rule) is expected
