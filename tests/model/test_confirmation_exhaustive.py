"""Every history of small worlds: no promise of `docs/revocation.md` is broken.

And with each mistake that a builder could make, the checker finds a history that breaks
one: a checker that finds nothing would prove nothing. Every run explores the worlds
that take a second; `make proof` explores all, and with SCALE=100 lets followers ask
once more in every scope: minutes to hours instead of seconds.
"""

from __future__ import annotations

import pytest

from tests.model.confirmation import Explored, calm_down, explore, replay
from tests.model.mistakes import Mistake
from tests.model.scopes import (
    FOUND_IN,
    LARGE_MISTAKES,
    LARGE_SCOPES,
    LIVENESS,
    SCOPES,
)
from tests.model.world import Scope
from tests.support.proofs import DEEP, is_whole

pytestmark = pytest.mark.proof

_NAMES = [n for n in (*SCOPES, *LIVENESS) if is_whole() or n not in LARGE_SCOPES]
_MISTAKES = [m for m in Mistake if is_whole() or m not in LARGE_MISTAKES]


def _scope(name: str, scale: int) -> Scope:
    scope = SCOPES.get(name) or LIVENESS[name]
    return scope._replace(asks=scope.asks + (scale >= DEEP))


def _explore(name: str, scope: Scope) -> Explored:
    if name in LIVENESS:
        return explore(scope, lambda world: calm_down(world, scope))
    return explore(scope)


@pytest.mark.parametrize("name", _NAMES)
def test_no_history_breaks_a_promise(name: str, proof_scale: int) -> None:
    found = _explore(name, _scope(name, proof_scale))
    assert found.broken is None, "\n".join((found.broken, *found.trace))
    assert found.states > 100


@pytest.mark.parametrize("mistake", _MISTAKES, ids=lambda mistake: mistake.name.lower())
def test_each_mistake_breaks_a_promise(mistake: Mistake) -> None:
    name, promise = FOUND_IN[mistake]
    scope = (SCOPES.get(name) or LIVENESS[name])._replace(mistakes=frozenset({mistake}))
    found = _explore(name, scope)
    assert found.broken is not None, f"nothing found in {found.states} worlds"
    assert found.broken.startswith(f"{promise}: ")


def test_entries_lost_by_a_restore_are_unknown_to_followers_that_had_not_applied_them() -> (
    None
):
    """The limit that the page names: a confirmation from before the restore ends
    there.
    """
    found = explore(SCOPES["restore"]._replace(forgives_lost=False))
    assert found.broken is not None
    assert found.broken.startswith("1: ")
    assert "the backup is put back" in found.trace


def test_the_assumption_about_rates_is_needed() -> None:
    """Two clocks that differ by 2 %: the follower outlives the watch of its lease."""
    found = explore(SCOPES["rates"]._replace(host_rates=(99,)))
    assert found.broken is not None


def test_a_received_goodbye_leaves_nothing_to_wait_for() -> None:
    """Without it, the lease of a process that has ended runs out before a
    confirmation.
    """
    stopped = (*SCOPES["stops"].opening, "stops answering", "voids", "says goodbye")
    asked = ("token 0 is revoked", "confirming read")
    scope = SCOPES["stops"]
    with pytest.raises(StopIteration):
        replay(scope, (*stopped, *asked))
    world = replay(scope, (*stopped, "is heard", *asked))
    assert world.true_confirmed == 1
    assert world.now == scope.instants[0]


def test_names_of_cases_left_for_proofs_exist() -> None:
    """A misspelt name would leave nothing out, and a long list nothing in."""
    assert {*SCOPES, *LIVENESS} > LARGE_SCOPES
    assert len(LARGE_SCOPES) < (len(SCOPES) + len(LIVENESS)) / 2
    assert len(LARGE_MISTAKES) < len(Mistake) / 2
    assert {FOUND_IN[mistake][0] for mistake in Mistake} <= {*SCOPES, *LIVENESS}
