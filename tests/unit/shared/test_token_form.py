"""The beginnings of tokens hold all of what they stand for, whatever comes behind."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.jose import base64url
from shared.token_form import encode_beginning, leading_claims

TEXT = st.text(max_size=9)


def payload(issuer: str, audience: str, **claims: object) -> str:
    return base64url.encode(orjson.dumps(leading_claims(issuer, audience) | claims))


@given(TEXT, TEXT, st.integers(0, 10**12), TEXT)
def test_every_payload_of_issuer_and_audience_begins_so(
    issuer: str, audience: str, exp: int, sub: str
) -> None:
    found = payload(issuer, audience, exp=exp, sub=sub)
    assert found.startswith(encode_beginning(issuer, audience))


@given(TEXT, TEXT, TEXT, TEXT)
def test_no_other_payload_begins_so(
    issuer: str, audience: str, other_issuer: str, other_audience: str
) -> None:
    beginning = encode_beginning(issuer, audience)
    found = payload(other_issuer, other_audience, exp=1)
    is_same = (issuer, audience) == (other_issuer, other_audience)
    assert found.startswith(beginning) is is_same


@pytest.mark.parametrize("audience", ["api", "apis", "apiso", "apisos"])
@pytest.mark.parametrize("more", ["/", "x", "\0", '"', '","exp":1'])
def test_longer_audience_does_not_begin_so(audience: str, more: str) -> None:
    """In each of the three places that its end has among the bytes of base64."""
    beginning = encode_beginning("https://i", audience)
    assert not payload("https://i", audience + more, exp=1).startswith(beginning)
    listed = base64url.encode(orjson.dumps({"iss": "https://i", "aud": [audience]}))
    assert not listed.startswith(beginning)
