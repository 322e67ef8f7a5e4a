"""The cache of facts: the outcome of checks 1 to 6, never a verdict (R26).

A fact depends on the whole token, the version of its issuer's key set and the token
policy. A cache serves one token policy, and uses no fact of another version (R27).
Expiry, revocation and the route's policy are checked again on every request.

A fact is found by the whole value of the Authorization header. The same value is
always read as the same token, so a hit need not read it again (R24). The key is a part
of the signature, and then the values are compared: a hash of the whole value would cost
a tenth of a warm check. Two values with the same part displace each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from verifier.check.decision import Fact, Facts
from verifier.check.denials import Denied, DenyReason
from verifier.check.trust import TrustSnapshot

#: The part of the value that is the key, counted from its end. In every algorithm it is
#: within the signature, and before the padding at the end of those of ML-DSA.
_KEY_BEGIN: Final = -80
_KEY_END: Final = -48
#: Bytes of one entry besides the token and what its fact counts: objects, dictionary.
ENTRY_OVERHEAD: Final = 1_000
#: Bad signatures kept; the oldest is dropped first. A flood of different ones displaces
#: these only, not the facts.
_MAX_BAD_SIGNATURES: Final = 1_024
# Compared for every refusal: an enum's attribute costs twice as much.
_SIGNATURE_INVALID: Final = DenyReason.SIGNATURE_INVALID


@dataclass(slots=True)
class CacheCounts:
    """Counts of one cache since the start."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0

    def add(self, other: CacheCounts) -> None:
        """Add the counts of another cache."""
        self.hits += other.hits
        self.misses += other.misses
        self.evictions += other.evictions


class FactCache(Facts):
    """Facts about tokens under one token policy, bounded in entries and bytes.

    It has two generations. A hit in the old one moves the fact to the new one; when the
    new one is full, the old one is dropped. This keeps recently used facts, as an LRU
    list does, but a hit costs one dictionary look-up and writes nothing.

    Args:
        max_entries: facts kept at most.
        max_bytes: bytes of tokens and facts kept at most, by estimate.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries // 2
        self._max_bytes = max_bytes // 2
        self._young: dict[bytes, Fact] = {}
        self._old: dict[bytes, Fact] = {}
        self._young_bytes = 0
        self._old_bytes = 0
        #: The token, and the revision of the keys that it was refused by.
        self._bad_signatures: dict[bytes, tuple[bytes, int]] = {}
        self.counts = CacheCounts()

    def __len__(self) -> int:
        """Return the number of facts kept."""
        return len(self._young) + len(self._old)

    @property
    def size_bytes(self) -> int:
        """Estimated bytes kept."""
        return self._young_bytes + self._old_bytes

    def find(self, token: bytes, trust: TrustSnapshot) -> Fact | None:
        """Return the fact kept for this token under its issuer's keys, or None.

        Raises:
            Denied: `signature_invalid` when its bad signature is kept instead.
        """
        key = _key_of(token)
        fact = self._young.get(key)
        if fact is None or fact.authorization != token:
            bad = self._bad_signatures.get(key)
            if bad is not None and bad == (token, trust.keys_revision):
                raise Denied(_SIGNATURE_INVALID)
            fact = self._old.get(key)
            if fact is not None and fact.authorization == token:
                del self._old[key]
                self._old_bytes -= _size(fact)
                if _is_current(fact, trust):
                    self.keep(token, fact)
                else:
                    fact = None
            else:
                fact = None
        elif not _is_current(fact, trust):
            del self._young[key]
            self._young_bytes -= _size(fact)
            fact = None
        if fact is None:
            self.counts.misses += 1
        else:
            self.counts.hits += 1
        return fact

    def keep(self, token: bytes, fact: Fact) -> None:
        """Keep a fact; there is none about the token in the young generation."""
        fact.authorization = token
        size = _size(fact)
        if (
            len(self._young) >= self._max_entries
            or self._young_bytes + size > self._max_bytes
        ):
            self.counts.evictions += len(self._old)
            self._old, self._old_bytes = self._young, self._young_bytes
            self._young, self._young_bytes = {}, 0
        key = _key_of(token)
        displaced = self._young.get(key)
        if displaced is not None:
            self._young_bytes -= _size(displaced)
            self.counts.evictions += 1
        self._young[key] = fact
        self._young_bytes += size

    def keep_bad_signature(self, token: bytes, keys_revision: int) -> None:
        """Keep that this token's signature is wrong under these keys."""
        key = _key_of(token)
        # One with the same key is displaced, and no other; this one is the newest then.
        self._bad_signatures.pop(key, None)
        if len(self._bad_signatures) >= _MAX_BAD_SIGNATURES:
            del self._bad_signatures[next(iter(self._bad_signatures))]
        self._bad_signatures[key] = (token, keys_revision)


def _key_of(token: bytes) -> bytes:
    """Return the part of a value by which it is found; all of one that is short."""
    return token[_KEY_BEGIN:_KEY_END] or token


def _size(fact: Fact) -> int:
    """Return the estimated bytes of a fact and its token."""
    return len(fact.authorization) + ENTRY_OVERHEAD + fact.kept_bytes


def _is_current(fact: Fact, trust: TrustSnapshot) -> bool:
    """Return whether the fact was established by the keys that are in force."""
    held = trust.issuers.get(fact.issuer)
    return held is not None and held.keys.version == fact.keys_version
