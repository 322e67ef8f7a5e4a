"""Bytes in, claims out: the one function that turns a token into `VerifiedClaims`.

It touches nothing: the token, the snapshot of what is trusted, the policy and the time
come in; claims or `Denied` come out. Fetching keys, reading clocks and looking at the
rest of the request are somebody else's job.
"""

from __future__ import annotations

from typing import NamedTuple, NewType

from verifier.check.claims import Claims, read_claims
from verifier.check.denials import Denied, DenyReason
from verifier.check.jws import (
    check_header,
    check_signature,
    check_typ,
    parse_compact,
    read_kid,
)
from verifier.check.policy import TokenPolicy
from verifier.check.trust import KeySet, TrustSnapshot

#: Claims of a token that passed all seven checks. Only `verify` makes one.
VerifiedClaims = NewType("VerifiedClaims", Claims)


class Fact(NamedTuple):
    """What was established about one token, once: it does not change with time.

    Whether the token still counts does change: that is check 7.

    Attributes:
        claims: what the issuer said.
        kid: the key it said it with.
        begins_at: Unix seconds of the later of `nbf` and `iat`.
        ends_at: Unix seconds, `exp`.
    """

    claims: VerifiedClaims
    kid: str
    begins_at: float
    ends_at: float

    @classmethod
    def of(cls, claims: VerifiedClaims, kid: str) -> Fact:
        """Return the fact that the issuer said this with that key."""
        return cls(claims, kid, max(claims.nbf, claims.iat), claims.exp)


def verify(
    unverified_token: bytes, trust: TrustSnapshot, policy: TokenPolicy, now: int
) -> VerifiedClaims:
    """Verify an access token (RFC 9068, section 4) and that it is not revoked.

    Args:
        unverified_token: what stood behind `Bearer`.
        trust: keys and revocations of this moment.
        policy: issuer, audience, leeway, types.
        now: Unix seconds.

    Raises:
        Denied: with the reason; nothing of the token goes along.
    """
    fact = establish(unverified_token, trust.keys, policy)
    # 7. Alive now: within its time, and not revoked.
    check_time(fact, policy.leeway, now)
    trust.revocations.check(fact.claims, fact.kid)
    return fact.claims


def establish(unverified_token: bytes, keys: KeySet, policy: TokenPolicy) -> Fact:
    """Do checks 1 to 6, whose outcome depends on token, keys and policy alone.

    Raises:
        Denied: with the reason.
    """
    # 1. The form: three segments, a strict JSON header (RFC 7515, 7.1).
    jws = parse_compact(unverified_token)
    # 2. The header: RS256, an access token, nothing brought along (RFC 8725, 3.1, 3.11).
    check_header(jws.unverified_header)
    check_typ(jws.unverified_header, policy.accepted_typs)
    # 3. The key: one of ours, by name only (RFC 8725, 3.10).
    verification_key = keys.find(read_kid(jws.unverified_header))
    # 4. The signature, spelt canonically (RFC 7515, 5.2). From here on the issuer said it.
    check_signature(jws, verification_key)
    # 5. The claims: all there, each of its type (RFC 9068, 2.2).
    claims = read_claims(jws.unverified_payload, policy.required_claims)
    # 6. From our issuer, for our audience (RFC 8725, 3.8 and 3.9), for a bounded time.
    if claims.iss != policy.issuer:
        raise Denied(DenyReason.ISSUER_MISMATCH)
    if policy.audience not in claims.audiences:
        raise Denied(DenyReason.AUDIENCE_MISMATCH)
    check_lifetime(claims, policy.max_lifetime)
    return Fact.of(VerifiedClaims(claims), verification_key.kid)


def check_lifetime(claims: Claims, max_lifetime: int) -> None:
    """Check that revocations are kept for as long as the token can live (R53).

    Raises:
        Denied: `lifetime_too_long`.
    """
    if claims.exp - claims.iat > max_lifetime:
        raise Denied(DenyReason.LIFETIME_TOO_LONG)


def check_time(fact: Fact, leeway: int, now: int) -> None:
    """Check that the token counts at this time, on every request again (R26).

    Raises:
        Denied: `expired`, `not_yet_valid`.
    """
    # RFC 7519, 4.1.4: now must be before exp; leeway moves the edge, not the sense.
    if now >= fact.ends_at + leeway:
        raise Denied(DenyReason.EXPIRED)
    if fact.begins_at > now + leeway:
        raise Denied(DenyReason.NOT_YET_VALID)
