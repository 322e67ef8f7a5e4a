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
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPublicKey,
    RSAPublicNumbers,
)

from shared.feed import FeedEntry
from shared.jose.jwk import PRIVATE_MEMBERS, JwkError, RsaPublicJwk
from verifier.check.denials import Denied, DenyReason
from verifier.check.revocations import RevocationIndex
from verifier.check.strict_json import StrictJsonError, read_object

#: Keys in a JWKS at most. A set of signing keys has few, and each costs memory and
#: time.
MAX_KEYS: Final = 100
#: The revocations are pruned in this many slices, one per call.
PRUNE_PARTS: Final = 256


class JwksError(ValueError):
    """A JWKS cannot be used; the message has the reason."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key that is used for RS256 only (R14).

    Attributes:
        kid: its id in token headers.
        public_key: the RSA key, 2048 to 4096 bits.
    """

    kid: str
    public_key: RSAPublicKey

    @classmethod
    def from_jwk(cls, jwk: RsaPublicJwk) -> VerificationKey:
        """Return the key for a JWK that passed `RsaPublicJwk.from_wire`."""
        return cls(jwk.kid, RSAPublicNumbers(jwk.e, jwk.n).public_key())


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
    """Read a JWKS (RFC 7517, section 5; requirement R20).

    Keys of another type, use or algorithm are ignored, as the RFC asks. The whole set
    is refused when a private or symmetric member is in it, or when a kid is repeated:
    its author has lost control of it.

    Raises:
        JwksError: when the set is malformed, dangerous, or has no key we can use.
    """
    try:
        document = read_object(body)
    except StrictJsonError as error:
        raise JwksError(str(error)) from None
    jwks = document.get("keys")
    if not isinstance(jwks, list) or not all(isinstance(jwk, dict) for jwk in jwks):
        raise JwksError("keys: must be a list of objects")
    if len(jwks) > MAX_KEYS:
        raise JwksError(f"keys: more than {MAX_KEYS}")
    if any(not PRIVATE_MEMBERS.isdisjoint(jwk) for jwk in jwks):
        raise JwksError("a private or symmetric key is in the set")
    kids = [jwk["kid"] for jwk in jwks if isinstance(jwk.get("kid"), str)]
    if len(set(kids)) != len(kids):
        raise JwksError("a kid is repeated")
    usable = _read_usable(jwks)
    if not usable:
        raise JwksError("no RSA key for RS256 with a kid, 2048..4096 bits, e 65537")
    return key_set(usable)


def key_set(jwks: list[RsaPublicJwk]) -> KeySet:
    """Return the set of these keys; their kids must be distinct."""
    digest = hashlib.sha256()
    for jwk in sorted(jwks, key=lambda jwk: jwk.kid):
        digest.update(f"{jwk.kid!r} {jwk.n:x} {jwk.e:x}\n".encode())
    keys = {jwk.kid: VerificationKey.from_jwk(jwk) for jwk in jwks}
    return KeySet(MappingProxyType(keys), digest.hexdigest())


def _read_usable(jwks: list[dict[str, Any]]) -> list[RsaPublicJwk]:
    usable = []
    for jwk in jwks:
        try:
            usable.append(RsaPublicJwk.from_wire(jwk))
        except JwkError:
            continue
    return usable


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
