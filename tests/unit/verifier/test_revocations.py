"""The index of revocations only grows stricter.

The entries are in docs/design.md, "The revocation feed".
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from shared.claims import MAX_LEEWAY, REQUIRED_CLAIMS
from shared.feed import EntryKind, FeedEntry
from tests.support.tokens import good_claims
from verifier.check.claims import Claims, claims_of
from verifier.check.denials import Denied
from verifier.check.revocations import PRUNE_MARGIN, RevocationIndex

NOW = 1_795_000_000
KID = "kid-1"


def revoked(
    kind: EntryKind, key: str, generation: int = 0, *, prune_at: int = NOW + 600
) -> FeedEntry:
    return FeedEntry(1, kind, key, generation, prune_at)


def claims(**changes: Any) -> Claims:
    return claims_of(good_claims(NOW, **changes), REQUIRED_CLAIMS)


def reason_of(index: RevocationIndex, kid: str = KID, **changes: Any) -> str:
    """Return why the index refuses these claims; empty when it does not."""
    try:
        index.check(claims(**changes), kid)
    except Denied as denied:
        return denied.reason.value
    return ""


def index_of(*entries: FeedEntry) -> RevocationIndex:
    return RevocationIndex().apply(entries)


def test_nothing_is_revoked_at_first() -> None:
    assert reason_of(RevocationIndex()) == ""
    assert len(RevocationIndex()) == 0


@pytest.mark.parametrize(
    ("kind", "key", "reason"),
    [
        (EntryKind.JTI, "jti-1", "revoked_jti"),
        (EntryKind.SID, "sid-1", "revoked_sid"),
        (EntryKind.KID, KID, "revoked_kid"),
    ],
)
def test_an_entry_revokes_only_the_named_tokens(
    kind: EntryKind, key: str, reason: str
) -> None:
    index = index_of(revoked(kind, key))
    assert reason_of(index) == reason
    assert len(index) == 1
    # the same word in every other place, and the neighbours
    elsewhere = {EntryKind.JTI: "jti", EntryKind.SID: "sid", EntryKind.KID: ""}
    others = {"jti": key, "sid": key, "sub": key, "client_id": key, "username": key}
    if elsewhere[kind]:
        others[elsewhere[kind]] = "other"
        assert reason_of(index, kid=key, **others) == ""
    else:
        assert reason_of(index, kid="other", **others) == ""


@pytest.mark.parametrize(
    ("generation", "reason"),
    [(0, "revoked_user"), (3, "revoked_user"), (4, ""), (5, "")],
)
def test_a_users_tokens_below_the_generation_are_revoked(
    generation: int, reason: str
) -> None:
    index = index_of(revoked(EntryKind.USER, "alice-id", 4))
    assert reason_of(index, sub="alice-id", gen=generation) == reason
    assert reason_of(index, sub="bob-id", gen=generation) == ""


@pytest.mark.parametrize(
    ("sub", "generation", "reason"),
    [
        ("app", 3, "revoked_client"),
        ("app", 4, ""),
        ("alice-id", 3, ""),
        ("alice-id", 0, ""),
    ],
)
def test_a_clients_entry_concerns_its_own_tokens_only(
    sub: str, generation: int, reason: str
) -> None:
    """`gen` counts the subject's generation: people's tokens are not the client's."""
    index = index_of(revoked(EntryKind.CLIENT, "app", 4))
    assert reason_of(index, sub=sub, client_id="app", gen=generation) == reason


def test_a_user_entry_of_a_clients_name_is_not_a_client_entry() -> None:
    index = index_of(revoked(EntryKind.CLIENT, "app", 4))
    assert reason_of(index, sub="app", client_id="other", gen=0) == ""


def test_greatest_generation_counts_in_any_order() -> None:
    entries = [revoked(EntryKind.USER, "u", generation) for generation in (2, 7, 5)]
    for order in (entries, entries[::-1]):
        index = index_of(*order)
        assert reason_of(index, sub="u", gen=6) == "revoked_user"
        assert reason_of(index, sub="u", gen=7) == ""
        assert len(index) == 1


def test_a_huge_generation_and_a_far_future_do_not_overflow() -> None:
    index = index_of(revoked(EntryKind.USER, "u", 1 << 80, prune_at=1 << 60))
    assert reason_of(index, sub="u", gen=(1 << 64) - 2) == "revoked_user"
    assert reason_of(index.pruned(1 << 31), sub="u", gen=0) == "revoked_user"


def test_an_index_never_changes_it_is_replaced() -> None:
    before = index_of(revoked(EntryKind.SID, "sid-1"))
    after = before.apply([revoked(EntryKind.JTI, "jti-2")])
    after.pruned(NOW + 10_000)
    assert (len(before), len(after)) == (1, 2)
    assert reason_of(before, sid="x", jti="jti-2") == ""


def verdicts(index: RevocationIndex, keys: Iterable[str]) -> list[str]:
    return [reason_of(index, sub=k, jti=k, sid=k, client_id=k, gen=2) for k in keys]


@pytest.mark.parametrize("seed", range(5))
def test_repeats_and_disorder_change_nothing(seed: int) -> None:
    """Merging is set-union and maximum."""
    chance = random.Random(seed)
    keys = [f"key-{n}" for n in range(60)]
    entries = [
        revoked(
            chance.choice(list(EntryKind)), chance.choice(keys), chance.randrange(5)
        )
        for _ in range(120)
    ]
    once = index_of(*entries)
    shuffled = [*entries, *chance.sample(entries, 60)]
    chance.shuffle(shuffled)
    in_pieces = RevocationIndex()
    for start in range(0, len(shuffled), 7):
        in_pieces = in_pieces.apply(shuffled[start : start + 7])
    assert len(once) == len(in_pieces) == len({(e.kind, e.key) for e in entries})
    assert verdicts(once, keys) == verdicts(in_pieces, keys)


# --- pruning -------------------------------------------------------------------------


def test_an_entry_outlives_every_token_it_concerns() -> None:
    """The margin is more than any leeway, and room for a clock that is set back."""
    assert PRUNE_MARGIN > MAX_LEEWAY
    index = index_of(revoked(EntryKind.SID, "sid-1", prune_at=NOW))
    assert len(index.pruned(NOW + PRUNE_MARGIN)) == 1
    assert len(index.pruned(NOW + PRUNE_MARGIN + 1)) == 0


def test_a_repeat_with_a_later_end_keeps_the_entry_longer() -> None:
    early = revoked(EntryKind.SID, "sid-1", prune_at=NOW)
    late = revoked(EntryKind.SID, "sid-1", prune_at=NOW + 500)
    for entries in ([early, late], [late, early]):
        index = index_of(*entries).pruned(NOW + PRUNE_MARGIN + 500)
        assert reason_of(index) == "revoked_sid"


def test_a_sweep_in_parts_drops_the_same_as_a_whole_sweep() -> None:
    dying = [revoked(EntryKind.JTI, f"old-{n}", prune_at=NOW) for n in range(500)]
    living = [revoked(EntryKind.JTI, f"new-{n}") for n in range(500)]
    index = index_of(*dying, *living)
    now = NOW + PRUNE_MARGIN + 1
    in_parts = index
    for part in range(64):
        in_parts = in_parts.pruned(now, part, 64)
        assert len(in_parts) >= 500
    assert len(in_parts) == len(index.pruned(now)) == 500
    for n in range(500):
        assert reason_of(in_parts, jti=f"old-{n}") == ""
        assert reason_of(in_parts, jti=f"new-{n}") == "revoked_jti"


def test_one_part_looks_at_its_own_slice_only() -> None:
    index = index_of(
        *(revoked(EntryKind.JTI, f"old-{n}", prune_at=NOW) for n in range(1_000))
    )
    left = len(index.pruned(NOW + 10_000, 3, 64))
    assert 900 < left < 1_000


def test_a_sweep_without_anything_old_gives_the_same_tables() -> None:
    index = index_of(revoked(EntryKind.JTI, "jti-1"))
    assert index.pruned(NOW).jtis is index.jtis


# --- inside a bucket -----------------------------------------------------------------


def neighbours() -> tuple[str, str]:
    """Return two keys of one bucket: their hashes end in the same 16 bits."""
    seen: dict[int, str] = {}
    for key in (f"n-{n}" for n in range(1_000_000)):
        other = seen.setdefault(hash(key) & 0xFFFF, key)
        if other != key:
            return other, key
    raise AssertionError("no two keys share a bucket")


def test_a_hash_is_looked_for_at_the_beginning_of_a_record_only() -> None:
    """A generation with the bytes of another key's hash does not revoke that key."""
    revoked_key, innocent_key = neighbours()
    generation = hash(innocent_key) & ((1 << 64) - 1)
    index = index_of(revoked(EntryKind.USER, revoked_key, generation))
    assert reason_of(index, sub=innocent_key, gen=0) == ""
    assert reason_of(index, sub=revoked_key, gen=0) == "revoked_user"
    # and behind such a record the right one is still found
    both = index.apply([revoked(EntryKind.USER, innocent_key, 3)])
    assert len(both) == 2
    assert reason_of(both, sub=innocent_key, gen=2) == "revoked_user"
    assert reason_of(both, sub=innocent_key, gen=3) == ""


def test_neighbours_in_a_bucket_are_pruned_one_by_one() -> None:
    old, young = neighbours()
    index = index_of(
        revoked(EntryKind.JTI, old, prune_at=NOW), revoked(EntryKind.JTI, young)
    ).pruned(NOW + PRUNE_MARGIN + 1)
    assert reason_of(index, jti=old) == ""
    assert reason_of(index, jti=young) == "revoked_jti"
