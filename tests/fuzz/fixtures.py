"""The surroundings of the fuzz targets: fixed keys, one time, one good token."""

from __future__ import annotations

import asyncio

from shared.jose import base64url
from tests.support.clock import FakeClock
from tests.support.fixed_key import fixed_key
from tests.support.gatehouse_verifier import TOKEN_POLICY, SimulatedVerifier
from tests.support.issuer_simulator import IssuerSimulator
from tests.support.tokens import good_claims, make_token
from tests.support.trusting import trust_in
from verifier.check.trust import key_set

NOW = FakeClock().now()
POLICY = TOKEN_POLICY
KEY = fixed_key("ours")
TRUST = trust_in(key_set([KEY.jwk]))
GOOD = make_token(good_claims(NOW), key=KEY)
#: Stands for the good token in an input: no mutation would find one.
MARK = b"{T}"


def sign(header: bytes, claims: bytes) -> bytes:
    """Return both as a token with our signature."""
    segments = [base64url.encode(part).encode() for part in (header, claims)]
    signature = KEY.sign(b".".join(segments))
    return b".".join([*segments, base64url.encode(signature).encode()])


def verifier() -> SimulatedVerifier:
    """Return a verifier that has its keys and its feed, and two policies."""
    clock = FakeClock(NOW)
    issuer = IssuerSimulator(clock)
    issuer.keys = [KEY]
    made = SimulatedVerifier(
        clock, issuer, policies='[policies.strict]\nrequired_scopes = ["none"]\n'
    )
    asyncio.run(made.sync())
    return made
