"""What a verifier trusts, for tests that make it without a feed."""

from __future__ import annotations

from tests.support.tokens import ISSUER
from verifier.check.revocations import RevocationIndex
from verifier.check.trust import IssuerTrust, KeySet, TrustSnapshot


def trust_in(
    keys: KeySet | None = None,
    revocations: RevocationIndex | None = None,
    *,
    issuer: str = ISSUER,
    until: float = 0.0,
) -> TrustSnapshot:
    """Return the trust in one issuer.

    Args:
        keys: its keys; None for none.
        revocations: the ones in force; None for none.
        issuer: its `iss`.
        until: boot-time seconds from which on keys and revocations are too old.
    """
    own = IssuerTrust(keys or KeySet(), revocations or RevocationIndex(), until, until)
    return TrustSnapshot(own, {issuer: own})
