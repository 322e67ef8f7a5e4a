"""The texts that a token may hold (R12)."""

from __future__ import annotations

import pytest

from shared.claims import is_identifier, is_plain_text


@pytest.mark.parametrize(
    "text", ["", "alice", "a b", "Zoë", "名前", "a\u00a0b", "%0d%0a", "😀"]
)
def test_text_that_hides_nothing_is_plain(text: str) -> None:
    assert is_plain_text(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a\r", id="CR"),
        pytest.param("a\nb", id="LF"),
        pytest.param("\x00", id="NUL"),
        pytest.param("a\tb", id="tab"),
        pytest.param("a\x7f", id="DEL"),
        pytest.param("é\x85", id="next line, C1"),
        pytest.param("a\u2028b", id="line separator"),
        pytest.param("a\u2029b", id="paragraph separator"),
        pytest.param("a\u202eb", id="bidi override"),
        pytest.param("a\u200bb", id="zero width"),
        pytest.param("a\ud800", id="lone surrogate"),
    ],
)
def test_text_that_hides_something_is_not_plain(text: str) -> None:
    assert not is_plain_text(text)
    assert not is_identifier(text)


def test_an_identifier_has_1_to_256_characters() -> None:
    assert not is_identifier("")
    assert is_identifier("a")
    assert is_identifier("ü" * 256)
    assert not is_identifier("a" * 257)
