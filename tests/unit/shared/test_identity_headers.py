"""The bounds of the identity headers hold for every token a verifier takes (R63)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from shared.claims import MAX_TOKEN_BYTES, REQUIRED_CLAIMS
from shared.identity_headers import (
    MAX_ALLOW_HEAD_BYTES,
    encode_word,
    encode_words,
    measure_words,
)
from shared.jose import base64url
from tests.support.large_tokens import LARGEST_CLAIMS, largest
from tests.support.tokens import good_claims
from verifier.check.answers import allow_answer
from verifier.check.claims import claims_of
from verifier.check.verify import SignedClaims


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ((), b""),
        (("orders:read", "a~b"), b"orders:read a~b"),
        (("a,b", "100%"), b"a%2Cb 100%25"),
        (("Köln", "漢 字"), b"K%C3%B6ln %E6%BC%A2%20%E5%AD%97"),
    ],
)
def test_words_are_written_percent_encoded(
    words: tuple[str, ...], value: bytes
) -> None:
    """R12."""
    assert encode_words(words) == value
    assert measure_words(words) == len(value) + bool(words)
    assert b" ".join(map(encode_word, words)) == value


@pytest.mark.parametrize("shape", LARGEST_CLAIMS)
def test_no_allow_is_longer_than_the_bound(shape: str) -> None:
    """R63: claims that fill a token of their own, without header and signature."""
    assert len(head_of(filled(shape))) <= MAX_ALLOW_HEAD_BYTES


def test_the_bound_is_not_far_from_the_worst_token() -> None:
    """R63: else any large number would do for it."""
    assert len(head_of(filled("non-ASCII scopes"))) > 0.9 * MAX_ALLOW_HEAD_BYTES


def filled(shape: str) -> dict[str, Any]:
    """Return claims of this shape that are as long as a whole token may be."""
    fill = LARGEST_CLAIMS[shape]

    def fits(size: int) -> bool:
        claims = orjson.dumps(good_claims(0) | fill(size))
        return len(base64url.encode(claims)) <= MAX_TOKEN_BYTES

    return good_claims(0) | fill(largest(fits))


def head_of(claims: dict[str, Any]) -> bytes:
    read = claims_of(claims, REQUIRED_CLAIMS)
    return allow_answer(SignedClaims(read), b"allow-stale").head
