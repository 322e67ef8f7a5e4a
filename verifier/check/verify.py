"""The seven checks of an access token: bytes in, claims out, or `Denied`.

Checks 1 to 6 make `SignedClaims` of bytes; they depend on token, keys and policy alone,
so their outcome may be kept. Check 7 makes `VerifiedClaims` of those, and depends on
the time and on what is revoked, so it is done on every request.

This module is pure: it fetches no keys, reads no clock and does not see the request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NewType

from shared.jose.jws import (
    JwsError,
    JwsFault,
    check_header,
    check_signature,
    check_typ,
    parse_compact,
    read_kid,
)
from verifier.check.claims import Claims, read_claims, read_unverified_iss
from verifier.check.denials import Denied, DenyReason
from verifier.check.policy import TokenPolicy
from verifier.check.revocations import RevocationIndex
from verifier.check.trust import TrustSnapshot

#: Claims of a token that passed checks 1 to 6: they are the issuer's. Only
#: `read_signed` makes them.
SignedClaims = NewType("SignedClaims", Claims)
#: Claims of a token that passed all seven checks. Only `verify_signed` makes them.
VerifiedClaims = NewType("VerifiedClaims", SignedClaims)


#: The reason of a refusal for each fault of the signature layer: the same words.
REASON_OF: Final[Mapping[JwsFault, DenyReason]] = MappingProxyType(
    {fault: DenyReason(fault.value) for fault in JwsFault}
)
#: A time at which no keys are too old.
_AT_ANY_AGE: Final = -math.inf


class SignedToken:
    """A token that passed checks 1 to 6, which do not depend on the time.

    Attributes:
        claims: the issuer's claims.
        keys_version: of the issuer's keys by which it was checked (R27).
        kid: the key that signed it.
        begins_at: Unix seconds of the later of `nbf` and `iat`.
        ends_at: Unix seconds, `exp`.
        unrevoked_in: the revision of the last index that was searched for this token
            and does not revoke it; 0 before the first (decision 0008).
    """

    __slots__ = (
        "begins_at",
        "claims",
        "ends_at",
        "keys_version",
        "kid",
        "unrevoked_in",
    )

    def __init__(self, claims: SignedClaims, kid: str, keys_version: str) -> None:
        self.claims = claims
        self.keys_version = keys_version
        self.kid = kid
        self.begins_at: float = max(claims.nbf, claims.iat)
        self.ends_at: float = claims.exp
        self.unrevoked_in = 0


def verify(
    unverified_token: bytes, trust: TrustSnapshot, policy: TokenPolicy, now: int
) -> VerifiedClaims:
    """Verify an access token (RFC 9068, section 4) and that it is not revoked.

    Args:
        unverified_token: the text behind `Bearer`.
        trust: keys and revocations of this moment, of any age.
        policy: issuer, audience, leeway, types.
        now: Unix seconds.

    Raises:
        Denied: with the reason, and nothing of the token.
    """
    try:
        token = read_signed(unverified_token, trust, policy, _AT_ANY_AGE)
    except JwsError as error:
        raise Denied(REASON_OF[error.fault]) from None
    revocations = trust.of(token.claims.iss).revocations
    return verify_signed(token, revocations, policy.leeway, now)


def read_signed(
    unverified_token: bytes,
    trust: TrustSnapshot,
    policy: TokenPolicy,
    boottime: float,
) -> SignedToken:
    """Do checks 1 to 6, whose outcome depends on token, keys and policy alone.

    Args:
        unverified_token: the text behind `Bearer`.
        trust: the keys, by issuer.
        policy: which issuers are accepted, and what their tokens must be.
        boottime: the time now; older keys than that allows are not used.

    Raises:
        Denied: with the reason.
        JwsError: with the fault; `REASON_OF` has the reason. It is not raised again as
            `Denied`, which would make a refusal of garbage 12 % dearer.
    """
    # 1. The form: three segments, a strict JSON header (RFC 7515, 7.1).
    jws = parse_compact(unverified_token)
    terms = policy.sole
    if terms is None:
        # Of several issuers the token's own `iss` chooses, before a key is looked
        # for: a signature of one never counts for another (R67).
        terms = policy.terms_of(read_unverified_iss(jws.unverified_payload))
    # 2. The header: an algorithm of that issuer, an access token, no key of its own
    # (RFC 8725, 3.1, 3.11).
    check_header(jws.unverified_header, terms.algorithms)
    check_typ(jws.unverified_header, terms.accepted_typs)
    # 3. The key: one of the issuer's, by name only (RFC 8725, 3.10).
    keys = trust.of(terms.issuer).keys_at(boottime)
    verification_key = keys.find(read_kid(jws.unverified_header))
    # 4. The signature, by the key's one algorithm, spelt canonically (RFC 7515,
    # 5.2). From here on the claims are the issuer's.
    check_signature(jws, verification_key)
    # 5. The claims: all there, each of its type (RFC 9068, 2.2).
    claims = read_claims(
        jws.unverified_payload,
        terms.required_claims,
        policy.kept_claims,
        terms.claims,
    )
    # 6. From that issuer, for its audience (RFC 8725, 3.8 and 3.9), for a bounded
    # time.
    if claims.iss != terms.issuer:
        raise Denied(DenyReason.ISSUER_MISMATCH)
    if terms.audience not in claims.audiences:
        raise Denied(DenyReason.AUDIENCE_MISMATCH)
    check_lifetime(claims, terms.max_lifetime)
    return SignedToken(SignedClaims(claims), verification_key.kid, keys.version)


def verify_signed(
    token: SignedToken, revocations: RevocationIndex, leeway: int, now: int
) -> VerifiedClaims:
    """Do check 7, on every request: within its time, and not revoked (R26).

    Raises:
        Denied: `expired`, `not_yet_valid`, a `revoked_...`.
    """
    # 7. Alive now.
    check_time(token, leeway, now)
    # An index does not change, so a search of the same one has the same outcome. The
    # revision is compared instead. The next entry makes another revision (decision
    # 0008).
    if token.unrevoked_in != revocations.revision:
        revocations.check(token.claims, token.kid)
        token.unrevoked_in = revocations.revision
    return VerifiedClaims(token.claims)


def check_lifetime(claims: Claims, max_lifetime: int) -> None:
    """Check that revocations are kept for as long as the token can live (R53).

    Raises:
        Denied: `lifetime_too_long`.
    """
    if claims.exp - claims.iat > max_lifetime:
        raise Denied(DenyReason.LIFETIME_TOO_LONG)


def check_time(token: SignedToken, leeway: int, now: int) -> None:
    """Check that the token is within its time (R26).

    Raises:
        Denied: `expired`, `not_yet_valid`.
    """
    # RFC 7519, 4.1.4: now must be before exp. The leeway moves the bound, not the rule.
    if now >= token.ends_at + leeway:
        raise Denied(DenyReason.EXPIRED)
    if token.begins_at > now + leeway:
        raise Denied(DenyReason.NOT_YET_VALID)
