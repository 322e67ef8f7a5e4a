"""Access tokens: those we mint, and those we accept as our own."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuer.errors import InvalidScopeError, UnauthenticatedError
from issuer.http.authorization.login_methods import BY_CODE
from issuer.http.authorization.principals import Principal
from issuer.keys.store import ActiveSigningKey
from issuer.roles.role_limits import MAX_GRANTED_CHARS
from issuer.tokens.minting import (
    AccessGrant,
    MintedToken,
    mint_access,
)
from issuer.tokens.reading import read_access
from shared.claims import MAX_TOKEN_BYTES
from shared.identity_headers import MAX_IDENTITY_BYTES
from shared.jose import base64url
from shared.token_form import encode_beginning, encode_header
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, make_token, signing_key

NOW = 1_795_000_000
KEY = signing_key()
GRANT = AccessGrant(
    subject="5f9c1e1e-0000-4000-8000-000000000001",
    client_id="gatehouse",
    sid="sid-1",
    generation=3,
    scope="orders:read orders:write",
    roles=("clerk",),
    auth_time=NOW - 50,
    username="alice",
)


def mint(grant: AccessGrant = GRANT) -> MintedToken:
    return mint_access(
        grant,
        ActiveSigningKey(KEY.kid, KEY.private_key),
        issuer_url=ISSUER,
        audience=AUDIENCE,
        now=NOW,
        access_ttl=600,
        jti="jti-1",
    )


def read(token: str, now: int = NOW) -> Principal:
    principal, kid = read_access(
        token,
        {KEY.kid: KEY.private_key.public_key()},
        issuer_url=ISSUER,
        audience=AUDIENCE,
        now=now,
    )
    assert kid == KEY.kid
    return principal


def test_a_minted_token_has_the_grants() -> None:
    principal = read(mint().access_token)
    assert principal == Principal(
        subject=GRANT.subject,
        username="alice",
        client_id="gatehouse",
        scopes=frozenset({"orders:read", "orders:write"}),
        roles=("clerk",),
        sid="sid-1",
        jti="jti-1",
        generation=3,
        auth_time=NOW - 50,
        issued_at=NOW,
        expires_at=NOW + 600,
        audience=AUDIENCE,
    )
    assert not principal.is_client


def test_a_token_begins_as_gateways_know_it() -> None:
    """One that begins in another way would be refused by those that check natively."""
    beginning = f"{encode_header(KEY.kid)}.{encode_beginning(ISSUER, AUDIENCE)}"
    assert mint().access_token.startswith(beginning)


def test_a_token_ends_with_its_session_at_the_latest() -> None:
    grant = AccessGrant("u", "gatehouse", "s", 0, "", (), NOW, not_after=NOW + 7)
    minted = mint(grant)
    assert minted.expires_in == 7
    assert read(minted.access_token).expires_at == NOW + 7


def test_a_token_that_no_verifier_would_read_is_not_minted() -> None:
    """R17."""
    roles = tuple(f"role-{number:03}" for number in range(700))
    with pytest.raises(InvalidScopeError, match="access token would be longer"):
        mint(AccessGrant("u", "gatehouse", "s", 0, "", roles, NOW))


def test_the_largest_grant_fits_with_all_claims_of_a_login() -> None:
    """R17: the longest names, `amr` and `acr`, and the signature of the longest key."""
    roles = tuple(f"{number:02}".ljust(30, "r") for number in range(32))
    words = [f"{number:02}".ljust(60, "s") for number in range(30)]
    used = sum(len(word) + 3 for word in (*roles, *words))
    assert MAX_GRANTED_CHARS - 100 < used <= MAX_GRANTED_CHARS
    grant = replace(
        GRANT,
        sid=str(uuid.uuid4()),
        scope=" ".join(words),
        roles=roles,
        username="\U0001f511" * 64,
        amr=BY_CODE,
    )
    token = mint(grant).access_token
    signature_of_4096_bits = len(base64url.encode(bytes(512)))
    rest = token.rpartition(".")[0] + "."
    spare = MAX_TOKEN_BYTES - len(rest) - signature_of_4096_bits
    # For long names of issuer and audience, and for a status list's claim.
    assert spare > 1_000, spare


def test_a_known_way_of_logging_in_is_in_the_token() -> None:
    """RFC 8176."""
    assert read(mint(replace(GRANT, amr=BY_CODE)).access_token).amr == BY_CODE
    claims = jwt.decode(mint().access_token, options={"verify_signature": False})
    assert not {"amr", "acr"} & claims.keys()


def test_a_token_with_too_long_identity_headers_is_not_minted() -> None:
    """R63: given before there was a bound; the error names it."""
    scope = "," * 2_700
    with pytest.raises(InvalidScopeError, match=r"identity headers .* 8000 bytes"):
        mint(AccessGrant("u", "gatehouse", "s", 0, scope, (), NOW))
    mint(AccessGrant("u", "gatehouse", "s", 0, scope[:2_600], (), NOW))


def test_every_identity_header_counts() -> None:
    """R63: a grant at the bound has no room for one more byte in any header."""
    grant = AccessGrant("u", "c", "s", 0, "," * 2_650, ("r",), NOW, username="n")
    room = MAX_IDENTITY_BYTES - 3 * 2_650 - 1 - 5 * 2
    mint(replace(grant, subject="u" * (1 + room)))
    too_long = [
        {name: "x" * (2 + room)} for name in ("subject", "client_id", "sid", "username")
    ]
    for change in [*too_long, {"roles": ("r" * (2 + room),)}]:
        with pytest.raises(InvalidScopeError):
            mint(replace(grant, **change))


def test_a_token_counts_until_the_second_it_names() -> None:
    token = mint().access_token
    assert read(token, NOW + 599).jti == "jti-1"
    with pytest.raises(UnauthenticatedError):
        read(token, NOW + 600)


def header(**changes: Any) -> dict[str, Any]:
    return {"alg": "RS256", "typ": "at+jwt", "kid": KEY.kid} | changes


CLAIMS = good_claims(NOW)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(make_token(good_claims(NOW, iss="https://other")), id="issuer"),
        pytest.param(make_token(good_claims(NOW, aud="other")), id="audience"),
        pytest.param(make_token(CLAIMS, header=header(typ="JWT")), id="type"),
        pytest.param(make_token(CLAIMS, header=header(typ=None)), id="no type"),
        pytest.param(make_token(CLAIMS, header=header(kid="other")), id="unknown key"),
        pytest.param(make_token(CLAIMS, header=header(kid=7)), id="kid a number"),
        pytest.param(make_token(CLAIMS, header={"alg": "RS256"}), id="no kid"),
        pytest.param(make_token(CLAIMS, header=header(alg="none")), id="alg none"),
        pytest.param(make_token(CLAIMS, header=header(alg="PS256")), id="alg PS256"),
        pytest.param(
            make_token(CLAIMS, key=signing_key("second"), header=header()),
            id="another key's signature",
        ),
        pytest.param(make_token(CLAIMS)[:-4], id="cut signature"),
        pytest.param(make_token(b"[1]"), id="claims no object"),
        pytest.param(make_token(CLAIMS, header=b"[" * 3_000), id="nested header"),
        pytest.param(b"x" * 8_001, id="over-long"),
        pytest.param(b"", id="empty"),
        *(
            pytest.param(
                make_token(good_claims(NOW, **{claim: None})), id=f"no {claim}"
            )
            for claim in ("sub", "exp", "iat", "jti", "sid", "gen", "client_id")
        ),
    ],
)
def test_tokens_we_did_not_mint_are_refused(token: bytes) -> None:
    """R14 to R18, as far as our own endpoints go."""
    with pytest.raises(UnauthenticatedError):
        read(token.decode())


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused() -> None:
    """R14: CVE-2026-48526 and its kind."""
    pem = KEY.private_key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signing_input = ".".join(
        base64url.encode(json.dumps(part).encode())
        for part in (header(alg="HS256"), CLAIMS)
    )
    signature = base64url.encode(algorithm.sign(signing_input.encode(), pem))
    with pytest.raises(UnauthenticatedError):
        read(f"{signing_input}.{signature}")
