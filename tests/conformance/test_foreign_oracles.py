"""Others accept the tokens we mint; we accept those they mint with our key.

PyJWT and joserfc are independent implementations of the same RFCs.
"""

from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import RSAKey

from tests.support.clock import FakeClock
from tests.support.gatehouse_verifier import TOKEN_POLICY
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, make_token, signing_key
from tests.support.trusting import trust_in
from verifier.check.trust import TrustSnapshot, key_set
from verifier.check.verify import verify

NOW = FakeClock().now()
HEADER = {"alg": "RS256", "typ": "at+jwt", "kid": signing_key().kid}


@pytest.fixture
def trust() -> TrustSnapshot:
    return trust_in(key_set([signing_key().jwk]))


def test_pyjwt_accepts_our_form_of_token() -> None:
    token = make_token(good_claims(NOW)).decode()
    claims = jwt.decode(
        token,
        signing_key().private_key.public_key(),
        algorithms=["RS256"],
        audience=AUDIENCE,
        issuer=ISSUER,
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )
    assert claims["sub"] == good_claims(NOW)["sub"]


def test_joserfc_accepts_our_form_of_token() -> None:
    pem = (
        signing_key()
        .private_key.public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    token = make_token(good_claims(NOW)).decode()
    decoded = joserfc_jwt.decode(token, RSAKey.import_key(pem), algorithms=["RS256"])
    assert decoded.claims["sub"] == good_claims(NOW)["sub"]


def test_tokens_minted_by_pyjwt_are_accepted(trust: TrustSnapshot) -> None:
    token = jwt.encode(
        good_claims(NOW),
        signing_key().private_key,
        algorithm="RS256",
        headers={"typ": "at+jwt", "kid": signing_key().kid},
    )
    claims = verify(token.encode(), trust, TOKEN_POLICY, NOW)
    assert claims.username == "alice"


def test_tokens_minted_by_joserfc_are_accepted(trust: TrustSnapshot) -> None:
    pem = signing_key().private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    token = joserfc_jwt.encode(HEADER, good_claims(NOW), RSAKey.import_key(pem))
    claims = verify(token.encode(), trust, TOKEN_POLICY, NOW)
    assert claims.username == "alice"
