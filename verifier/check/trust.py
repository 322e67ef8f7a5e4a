"""The keys and revocations that the verifier trusts, and until when.

`Trust` owns them. A request reads one immutable `TrustSnapshot`, once; only `Trust`
makes the next one. `sync/` fetches keys and entries and passes them on; this module
uses no network, no disk and no clock.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPublicKey,
    RSAPublicNumbers,
)

from shared.claims import ALGORITHM, RSA_EXPONENT
from shared.feed import FeedEntry
from shared.jose.algorithms import ALGORITHMS
from shared.jose.jwk import RsaPublicJwk
from shared.jose.rsa_strength import check_own_rsa_key
from shared.jose.verification_keys import JwksError, VerificationKey, read_keys
from verifier.check.denials import Denied, DenyReason
from verifier.check.revocations import RevocationIndex

#: Our own issuer signs with this alone (R18).
_OWN_ALGORITHMS: Final = frozenset({ALGORITHM})
#: The revocations are pruned in this many slices, one per call.
PRUNE_PARTS: Final = 256


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one JWKS by kid.

    Attributes:
        keys: verification keys by kid.
        version: a digest of key ids and keys. The same content has the same version.
            Facts about a token are bound to it (R27).
    """

    keys: Mapping[str, VerificationKey] = field(
        default_factory=lambda: MappingProxyType({})
    )
    version: str = ""

    def find(self, unverified_kid: str) -> VerificationKey:
        """Return the key with that id.

        Raises:
            Denied: `kid_unknown`.
        """
        verification_key = self.keys.get(unverified_kid)
        if verification_key is None:
            raise Denied(DenyReason.KID_UNKNOWN)
        return verification_key


def parse_jwks(body: bytes) -> KeySet:
    """Read the JWKS of our own issuer (RFC 7517, section 5; requirement R20).

    Keys of another type, use or algorithm are ignored, as the RFC asks, and so are weak
    ones (R68). The whole set is refused when a private or symmetric member is in it, or
    when a kid is repeated: its author has lost control of it.

    Raises:
        JwksError: when the set is malformed, dangerous, or has no key we can use.
    """
    found = read_keys(body, _OWN_ALGORITHMS)
    keys = [key for key in found.keys if _has_our_exponent(key)]
    if not keys:
        raise JwksError(f"e: must be {RSA_EXPONENT} in a key of ours")
    return keys_by_id(keys)


def _has_our_exponent(key: VerificationKey) -> bool:
    public_key = key.public_key
    return (
        isinstance(public_key, RSAPublicKey)
        and public_key.public_numbers().e == RSA_EXPONENT
    )


def key_set(jwks: Iterable[RsaPublicJwk]) -> KeySet:
    """Return the set of these keys of ours; their kids must be distinct.

    Raises:
        JwkError: when one of them is weak (R68).
    """
    return keys_by_id(map(_own_key, jwks))


def keys_by_id(keys: Iterable[VerificationKey]) -> KeySet:
    """Return the set of these keys; their kids must be distinct."""
    by_id = {key.kid: key for key in keys}
    digest = hashlib.sha256()
    for kid in sorted(by_id):
        digest.update(bytes.fromhex(by_id[kid].fingerprint))
    return KeySet(MappingProxyType(by_id), digest.hexdigest())


def _own_key(jwk: RsaPublicJwk) -> VerificationKey:
    check_own_rsa_key(jwk.n, jwk.e)
    public_key = RSAPublicNumbers(jwk.e, jwk.n).public_key()
    return VerificationKey(jwk.kid, ALGORITHMS[ALGORITHM], public_key)


@dataclass(frozen=True, slots=True)
class IssuerTrust:
    """What is trusted of one issuer: its keys and its revocations.

    Attributes:
        keys: the verification keys.
        revocations: the revocation index.
        fresh_until: boot-time seconds; from then on the revocations are too old to
            decide by, unless the route's policy says `on_stale = "allow"`.
        keys_until: boot-time seconds; from then on the keys are too old for any policy.
        has_revocations: a whole list has been in force, from the issuer or from disk.
            `on_stale = "allow"` accepts an old list, but not the lack of one.
    """

    keys: KeySet = field(default_factory=KeySet)
    revocations: RevocationIndex = field(default_factory=RevocationIndex)
    fresh_until: float = 0.0
    keys_until: float = 0.0
    has_revocations: bool = False

    def keys_at(self, boottime: float) -> KeySet:
        """Return the keys.

        Raises:
            Denied: `no_keys` when they are too old by then.
        """
        if boottime >= self.keys_until:
            raise Denied(DenyReason.NO_KEYS)
        return self.keys

    def check_age(self, boottime: float, *, allows_stale: bool) -> bool:
        """Check that it is young enough; return whether the revocations are stale.

        Args:
            boottime: the time now.
            allows_stale: the policy accepts an old list.

        Raises:
            Denied: `no_keys`, `stale`.
        """
        # As `keys_at`, without the call, on every request.
        if boottime >= self.keys_until:
            raise Denied(DenyReason.NO_KEYS)
        is_stale = boottime >= self.fresh_until
        if is_stale and not (allows_stale and self.has_revocations):
            raise Denied(DenyReason.STALE)
        return is_stale


#: Of an issuer whose keys are not known yet. No feed names its tokens, so there is no
#: list of revocations that could be too old.
_FOREIGN: Final = IssuerTrust(fresh_until=math.inf, has_revocations=True)


@dataclass(frozen=True, slots=True)
class TrustSnapshot:
    """One immutable view of what is trusted.

    Attributes:
        own: our issuer: the one that the feed is from.
        issuers: all issuers by `iss`, ours among them. A key is looked for among the
            keys of the token's issuer only (R67). Nothing changes the dictionary; a
            proxy, through which it could not be changed, made a warm check 4 % slower.
        keys_revision: a number that is another one when any issuer has other keys.
    """

    own: IssuerTrust
    issuers: dict[str, IssuerTrust]
    keys_revision: int = 0

    def of(self, issuer: str) -> IssuerTrust:
        """Return the trust in an issuer that a policy accepts.

        Raises:
            Denied: `no_keys` when it is not followed any more, or not yet.
        """
        trust = self.issuers.get(issuer)
        if trust is None:
            raise Denied(DenyReason.NO_KEYS)
        return trust


class Trust:
    """Owns the trust of one worker, and makes every next snapshot of it.

    For any order and number of calls: a revocation stays in force until
    every token it could concern has expired, and of two times the later one counts.

    Args:
        issuer: our own: the `iss` of the feed.
    """

    def __init__(self, issuer: str) -> None:
        self._own = issuer
        self._keys_revision = 0
        self._snapshot = self._with({issuer: IssuerTrust()})
        self._is_ended = False
        self._next_part = 0

    @property
    def snapshot(self) -> TrustSnapshot:
        """The present snapshot."""
        return self._snapshot

    def follow(self, issuers: Iterable[str]) -> None:
        """Trust keys of these other issuers, and of no others, from now on.

        What is known of those that are trusted already stays.

        Args:
            issuers: each `iss`; ours is always trusted.
        """
        if self._is_ended:
            return
        known = self._snapshot.issuers
        self._keys_revision += 1
        foreign = {issuer: known.get(issuer, _FOREIGN) for issuer in issuers}
        self._snapshot = self._with(foreign | {self._own: self._snapshot.own})

    def enforce(self, entries: Iterable[FeedEntry]) -> None:
        """Put revocations in force, beside all that are in force already."""
        if self._is_ended:
            return
        own = self._snapshot.own
        self._put(self._own, replace(own, revocations=own.revocations.apply(entries)))

    def renew(self, until: float) -> None:
        """Note that the revocations in force are a whole list.

        Args:
            until: boot-time seconds at which that is too long ago to decide by. The
                past is allowed: a list of any age serves `on_stale = "allow"`.
        """
        if self._is_ended:
            return
        own = self._snapshot.own
        until = max(until, own.fresh_until)
        self._put(self._own, replace(own, fresh_until=until, has_revocations=True))

    def trust_keys(self, issuer: str, keys: KeySet, until: float) -> None:
        """Trust these keys of an issuer in place of its former ones.

        Keys that count for a shorter time than those in force were asked for earlier.
        They are not put in force: a key that was withdrawn in between must not return.

        Args:
            issuer: the keys' issuer.
            keys: all keys of the issuer.
            until: boot-time seconds from which on they are too old.

        Raises:
            ValueError: the issuer is not a trusted one.
        """
        if self._is_ended:
            return
        known = self._snapshot.issuers.get(issuer)
        if known is None:
            raise ValueError(f"{issuer}: is not a trusted issuer")
        if until < known.keys_until:
            return
        # The same content stays the same object: that of facts about tokens.
        if keys.version == known.keys.version:
            keys = known.keys
        else:
            self._keys_revision += 1
        self._put(issuer, replace(known, keys=keys, keys_until=until))

    def prune(self, now: int) -> None:
        """Drop expired revocations from the next slice of the index.

        Args:
            now: Unix seconds. A sweep of a million entries at once would hold up the
                requests; `PRUNE_PARTS` calls look at all of them.
        """
        part, self._next_part = self._next_part, (self._next_part + 1) % PRUNE_PARTS
        own = self._snapshot.own
        revocations = own.revocations.pruned(now, part, PRUNE_PARTS)
        self._put(self._own, replace(own, revocations=revocations))

    def end(self) -> None:
        """Trust nothing any more, for good: every check is refused from now on.

        The revocations go with the keys. Therefore nothing may be trusted again: new
        keys beside an empty list would accept revoked tokens.
        """
        self._is_ended = True
        self._snapshot = self._with({self._own: IssuerTrust()})

    def _put(self, issuer: str, trust: IssuerTrust) -> None:
        self._snapshot = self._with({**self._snapshot.issuers, issuer: trust})

    def _with(self, issuers: dict[str, IssuerTrust]) -> TrustSnapshot:
        return TrustSnapshot(issuers[self._own], issuers, self._keys_revision)
