"""The cache of facts: the outcome of checks 1 to 6, never a verdict (R26).

A fact depends on the whole token, the version of its issuer's key set and the token
policy. A cache serves one token policy, and uses no fact of another version (R27).
Expiry, revocation and the route's policy are checked again on every request.

The key of an entry is the whole value of the Authorization header. The same value is
always read as the same token, so a hit need not read it again (R24).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from verifier.check.decision import Fact, Facts
from verifier.check.denials import Denied, DenyReason
from verifier.check.trust import TrustSnapshot

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
        #: By token, the revision of the keys that it was refused by.
        self._bad_signatures: dict[bytes, int] = {}
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
        fact = self._young.get(token)
        if fact is None:
            if self._bad_signatures.get(token) == trust.keys_revision:
                raise Denied(_SIGNATURE_INVALID)
            fact = self._old.pop(token, None)
            if fact is not None:
                self._old_bytes -= _size(token, fact)
                if _is_current(fact, trust):
                    self.keep(token, fact)
                else:
                    fact = None
        elif not _is_current(fact, trust):
            self._young_bytes -= _size(token, self._young.pop(token))
            fact = None
        if fact is None:
            self.counts.misses += 1
        else:
            self.counts.hits += 1
        return fact

    def keep(self, token: bytes, fact: Fact) -> None:
        """Keep a fact; there is none about the token in the young generation."""
        size = _size(token, fact)
        if (
            len(self._young) >= self._max_entries
            or self._young_bytes + size > self._max_bytes
        ):
            self.counts.evictions += len(self._old)
            self._old, self._old_bytes = self._young, self._young_bytes
            self._young, self._young_bytes = {}, 0
        self._young[token] = fact
        self._young_bytes += size

    def keep_bad_signature(self, token: bytes, keys_revision: int) -> None:
        """Keep that this token's signature is wrong under these keys."""
        if len(self._bad_signatures) >= _MAX_BAD_SIGNATURES:
            del self._bad_signatures[next(iter(self._bad_signatures))]
        self._bad_signatures[token] = keys_revision


def _size(token: bytes, fact: Fact) -> int:
    """Return the estimated bytes of a fact and its token."""
    return len(token) + ENTRY_OVERHEAD + fact.kept_bytes


def _is_current(fact: Fact, trust: TrustSnapshot) -> bool:
    """Return whether the fact was established by the keys that are in force."""
    held = trust.issuers.get(fact.issuer)
    return held is not None and held.keys.version == fact.keys_version
