"""Opaque tokens: only the exact text that was made is read."""

from __future__ import annotations

import pytest

from issuer.tokens.opaque_tokens import ChecksumForm, MacForm, OpaqueTokenError
from shared.jose import base64url

MAC = MacForm("t_", 4, b"purpose")
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
TOKEN = MAC.make(b"body", KEY)
#: The bytes behind the prefix: the body, and a MAC of 32 bytes.
DATA = base64url.decode(TOKEN.removeprefix("t_").encode())
CHECKED = ChecksumForm("c_")
RANDOM = bytes(range(32))


def test_a_token_is_read_with_any_of_the_keys() -> None:
    assert MAC.read(TOKEN, [OTHER_KEY, KEY]) == b"body"
    assert MAC.read_unverified(TOKEN) == b"body"


@pytest.mark.parametrize("at", range(len(DATA)))
def test_one_changed_bit_anywhere_is_refused(at: int) -> None:
    changed = bytearray(DATA)
    changed[at] ^= 1
    with pytest.raises(OpaqueTokenError, match="MAC is wrong"):
        MAC.read("t_" + base64url.encode(bytes(changed)), [KEY])


@pytest.mark.parametrize(
    "form", [MacForm("t_", 4, b"other"), MacForm("t_", 5, b"purpose")]
)
def test_a_token_of_another_purpose_or_length_is_refused(form: MacForm) -> None:
    with pytest.raises(OpaqueTokenError):
        form.read(TOKEN, [KEY])


def test_a_token_without_a_key_of_ours_is_refused() -> None:
    for keys in ([], [OTHER_KEY]):
        with pytest.raises(OpaqueTokenError, match="MAC is wrong"):
            MAC.read(TOKEN, keys)


@pytest.mark.parametrize(
    "text",
    ["", "t_", TOKEN + "A", TOKEN[:-1], TOKEN + "A" * 1_000_000, TOKEN[2:]],
    ids=["empty", "prefix", "one more", "one less", "a megabyte", "no prefix"],
)
def test_another_length_is_refused_before_it_is_decoded(text: str) -> None:
    with pytest.raises(OpaqueTokenError, match="length is wrong"):
        MAC.read_unverified(text)


@pytest.mark.parametrize("text", ["x" + TOKEN[1:], TOKEN[:-1] + "\xe9"])
def test_another_prefix_or_alphabet_is_refused(text: str) -> None:
    with pytest.raises(OpaqueTokenError, match="prefix is wrong"):
        MAC.read_unverified(text)


def test_a_checksum_covers_prefix_and_bytes() -> None:
    token = CHECKED.make(RANDOM)
    CHECKED.require(token)
    for wrong in (token[:-1] + "A", "d_" + token[2:], token[:20], token + "AAAA"):
        with pytest.raises(OpaqueTokenError):
            CHECKED.require(wrong)
    with pytest.raises(OpaqueTokenError, match="checksum"):
        ChecksumForm("d_").require("d_" + token[2:])
