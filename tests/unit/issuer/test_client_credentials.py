"""Client secrets, and how a client shows them (RFC 6749, section 2.3.1)."""

from __future__ import annotations

import base64
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issuer.clients.client_secrets import (
    is_secret,
    make_secret,
    verify_secret,
)
from issuer.clients.credentials import ClientCredentials, read_credentials
from issuer.errors import InvalidClientError, InvalidRequestError
from issuer.tokens.opaque_tokens import digest_token

SECRET = make_secret(bytes(range(32)))
OTHER = make_secret(bytes(32))
ID = "gc_0123456789abcdef"
EXPECTED = ClientCredentials(ID, SECRET)


def basic(text: str | bytes, scheme: str = "Basic") -> str:
    data = text if isinstance(text, bytes) else text.encode()
    return f"{scheme} {base64.b64encode(data).decode()}"


def test_a_secret_is_known_by_prefix_and_checksum() -> None:
    assert SECRET.startswith("ghs_")
    assert len(SECRET) == 4 + 48
    assert is_secret(SECRET)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ghs_",
        SECRET[:-1],
        SECRET + "A",
        SECRET[:-1] + "!",
        SECRET[4:],
        "ghs_\u00e9",
    ],
)
def test_a_malformed_secret_is_refused_before_any_comparison(text: str) -> None:
    assert not is_secret(text)
    with pytest.raises(InvalidClientError):
        verify_secret(text, [digest_token(SECRET)])


@given(st.integers(0, 47), st.sampled_from("Ab9_-"))
def test_a_mistyped_secret_fails_its_checksum(position: int, other: str) -> None:
    position += 4
    mistyped = SECRET[:position] + other + SECRET[position + 1 :]
    assert is_secret(mistyped) == (mistyped == SECRET)


def test_each_of_two_living_secrets_is_accepted() -> None:
    digests = [digest_token(OTHER), digest_token(SECRET)]
    verify_secret(SECRET, digests)
    verify_secret(OTHER, digests)


@pytest.mark.parametrize("digests", [[], [digest_token(OTHER)]])
def test_another_clients_secret_is_refused(digests: list[bytes]) -> None:
    with pytest.raises(InvalidClientError):
        verify_secret(SECRET, digests)


@pytest.mark.parametrize(
    ("authorization", "form"),
    [
        pytest.param([basic(f"{ID}:{SECRET}")], {}, id="basic"),
        pytest.param([basic(f"{ID}:{SECRET}", "bAsIc")], {}, id="scheme in any case"),
        pytest.param(
            [basic(f"{quote_plus(ID, safe='')}:%67hs_{SECRET[4:]}")],
            {},
            id="form-urlencoded inside",
        ),
        pytest.param(
            [basic(f"{ID}:{SECRET}")], {"client_id": ID}, id="basic, id repeated"
        ),
        pytest.param([], {"client_id": ID, "client_secret": SECRET}, id="post"),
    ],
)
def test_a_client_may_show_itself_either_way(
    authorization: list[str], form: dict[str, str]
) -> None:
    assert read_credentials(authorization, form) == EXPECTED


@pytest.mark.parametrize(
    ("authorization", "form"),
    [
        pytest.param([basic("a:b")] * 2, {}, id="two headers"),
        pytest.param(
            [basic(f"{ID}:{SECRET}")],
            {"client_id": ID, "client_secret": SECRET},
            id="both ways",
        ),
        pytest.param([basic(f"{ID}:{SECRET}")], {"client_id": "gc_1"}, id="two ids"),
    ],
)
def test_two_sets_of_credentials_are_a_malformed_request(
    authorization: list[str], form: dict[str, str]
) -> None:
    """R4, RFC 6749 section 2.3."""
    with pytest.raises(InvalidRequestError):
        read_credentials(authorization, form)


@pytest.mark.parametrize(
    ("authorization", "form"),
    [
        pytest.param([], {}, id="none"),
        pytest.param([], {"client_id": ID}, id="id alone"),
        pytest.param([], {"client_secret": SECRET}, id="secret alone"),
        pytest.param([], {"client_id": "a\0b", "client_secret": "x"}, id="NUL"),
        pytest.param([f"Bearer {SECRET}"], {}, id="another scheme"),
        pytest.param(["Basic"], {}, id="scheme alone"),
        pytest.param(["Basic !!!"], {}, id="not base64"),
        pytest.param(["Basic QQ"], {}, id="unpadded"),
        pytest.param([basic(ID)], {}, id="no colon"),
        pytest.param([basic(b"\xff:x")], {}, id="not ASCII"),
        pytest.param([basic(f"{ID}%00:{SECRET}")], {}, id="encoded NUL"),
        pytest.param([basic(f"{ID}:{SECRET}") + ", Basic x"], {}, id="comma list"),
        pytest.param([basic(f"{ID}:")], {}, id="empty secret"),
    ],
)
def test_missing_or_malformed_credentials_are_no_client(
    authorization: list[str], form: dict[str, str]
) -> None:
    with pytest.raises(InvalidClientError):
        read_credentials(authorization, form)
