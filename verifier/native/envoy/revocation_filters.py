"""The filters that refuse revoked tokens, and all tokens outside the window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from envoy.extensions.common.matching.v3.extension_matcher_pb2 import (
    ExtensionWithMatcher,
)

from shared.feed import GENERATION_KINDS, EntryKind
from verifier.native.entries import Kinds, LiveEntry
from verifier.native.envoy import cel
from verifier.native.envoy.matchers import (
    REFUSE,
    SKIP,
    OnMatch,
    deny,
    first_of,
    guard,
    holds,
    large_tree,
    only_if,
    tree,
)
from verifier.native.envoy.names import (
    GEN_HEADER,
    JTI_HEADER,
    NOW_HEADER,
    REVOKED_NAME,
    STALE_NAME,
)
from verifier.native.window import Window

#: The header that the keys of each kind are compared with. A client's entry concerns
#: its own tokens, whose subject is the client (`RevocationIndex.check`).
_HEADERS: Final = {
    EntryKind.SID: "x-auth-session",
    EntryKind.JTI: JTI_HEADER,
    EntryKind.USER: "x-auth-subject",
    EntryKind.CLIENT: "x-auth-subject",
}
#: Keys in a tree up to which Envoy builds it fast enough in its stable form.
SMALL: Final = 1_000
#: Generations above are compared as this one: Envoy's numbers hold no more exactly.
_MAX_GENERATION: Final = 1 << 53


class Group(NamedTuple):
    """Keys that are refused alike.

    Attributes:
        header: that they are compared with.
        minimum_generation: the least `gen` still accepted; 0: none is.
        keys: distinct, in all groups of a header.
    """

    header: str
    minimum_generation: int
    keys: list[str]


class Grouping:
    """Puts entries in groups; of two for one key the higher generation counts.

    Signing keys are left out: they are taken out of the keys that Envoy has.
    """

    def __init__(self) -> None:
        self._keys: dict[str, dict[str, int]] = {h: {} for h in _HEADERS.values()}

    def add(self, entries: Iterable[LiveEntry]) -> None:
        """Add entries."""
        for kind, key, generation in entries:
            header = _HEADERS.get(kind)
            if header is not None:
                known = self._keys[header]
                least = min(generation, _MAX_GENERATION)
                known[key] = max(known.get(key, 0), least)

    def add_all(self, kinds: Kinds) -> None:
        """Add entries as `LiveEntries.by_kind` returns them, ten times as fast."""
        for kind, known in kinds.items():
            if kind in GENERATION_KINDS:
                self.add(LiveEntry(kind, key, known[key][0]) for key in known)
            elif kind in _HEADERS:
                self._keys[_HEADERS[kind]] |= dict.fromkeys(known, 0)

    def groups(self) -> list[Group]:
        """Return the groups."""
        found: dict[tuple[str, int], list[str]] = {}
        for header, keys in self._keys.items():
            if not any(keys.values()):
                # Most of them: sessions and single tokens have no generation.
                found |= {(header, 0): list(keys)} if keys else {}
                continue
            for key, generation in keys.items():
                found.setdefault((header, generation), []).append(key)
        return [Group(header, least, keys) for (header, least), keys in found.items()]


def revocation_filter(
    groups: Sequence[Group], window: Window | None, revision: str
) -> ExtensionWithMatcher:
    """Return the filter that refuses the tokens that these groups revoke.

    Args:
        groups: what is revoked.
        window: outside of it everything is refused; None: of another filter.
        revision: makes this content another one than any before.
    """
    trees: dict[str, list[tuple[list[str], OnMatch]]] = {}
    for group in groups:
        refusal = _below(group.minimum_generation)
        trees.setdefault(group.header, []).append((group.keys, refusal))
    # Built from its end: where nothing matches, Envoy goes on with the next tree.
    rest = SKIP if window is None else _only_within(window, SKIP)
    for header, keys in trees.items():
        make = tree if sum(len(each) for each, _ in keys) <= SMALL else large_tree
        rest = make(header, keys, rest)
    return guard(rest, _reason(window), revision)


def _only_within(window: Window, inside: OnMatch) -> OnMatch:
    """Return what refuses all requests outside of the window.

    A look-up of the second costs a request 1 us; a comparison of times in CEL 6 us.
    """
    seconds = list(map(str, range(window.opens_at, window.closes_at)))
    return tree(NOW_HEADER, [(seconds, inside)], REFUSE)


def _reason(window: Window | None) -> OnMatch:
    """Return what tells the reason of a refusal."""
    revoked, stale = deny(REVOKED_NAME), deny(STALE_NAME)
    if window is None:
        return revoked
    if not window.is_open:
        return stale
    # Loaded faster than the seconds, compared slower.
    second = cel.call("int", cel.member(cel.name("request.headers"), NOW_HEADER))
    opens = cel.call("_>=_", second, cel.integer(window.opens_at))
    closes = cel.call("_<_", second, cel.integer(window.closes_at))
    return first_of([(holds(cel.call("_&&_", opens, closes)), revoked)], stale)


def _below(minimum_generation: int) -> OnMatch:
    """Return what refuses tokens below a generation, and those without one.

    Where the generation is high enough nothing matches, and Envoy goes on behind the
    tree. A comparison that fails does not hold, so it refuses.
    """
    if not minimum_generation:
        return REFUSE
    header = cel.member(cel.name("request.headers"), GEN_HEADER)
    generation = cel.call("int", header)
    enough = cel.call("_>=_", generation, cel.integer(minimum_generation))
    return only_if(holds(enough), REFUSE)
