"""Every history of small worlds: no promise of `docs/revocation.md` is broken.

And with each mistake that a builder could make, the checker finds a history that breaks
one: what finds nothing would be no proof of anything. `MODEL_MORE_ASKS=1` lets followers
ask once more often in every scope: minutes to hours instead of seconds.
"""

from __future__ import annotations

import os

import pytest

from tests.model.confirmation import Explored, calm_down, explore
from tests.model.mistakes import Mistake
from tests.model.scopes import FOUND_IN, LIVENESS, SCOPES
from tests.model.world import Scope

_MORE_ASKS = int(os.environ.get("MODEL_MORE_ASKS", "0"))

pytestmark = pytest.mark.timeout(120 if not _MORE_ASKS else 0)


def _scope(name: str) -> Scope:
    scope = SCOPES.get(name) or LIVENESS[name]
    return scope._replace(asks=scope.asks + _MORE_ASKS)


def _explore(name: str, scope: Scope) -> Explored:
    if name in LIVENESS:
        return explore(scope, lambda world: calm_down(world, scope))
    return explore(scope)


@pytest.mark.parametrize("name", [*SCOPES, *LIVENESS])
def test_no_history_breaks_a_promise(name: str) -> None:
    found = _explore(name, _scope(name))
    assert found.broken is None, "\n".join((found.broken, *found.trace))
    assert found.states > 100


@pytest.mark.parametrize("mistake", Mistake, ids=lambda mistake: mistake.name.lower())
def test_each_mistake_breaks_a_promise(mistake: Mistake) -> None:
    name, promise = FOUND_IN[mistake]
    scope = (SCOPES.get(name) or LIVENESS[name])._replace(mistakes=frozenset({mistake}))
    found = _explore(name, scope)
    assert found.broken is not None, f"nothing found in {found.states} worlds"
    assert found.broken.startswith(f"{promise}: ")


def test_what_a_restore_lost_is_unknown_to_whoever_had_not_applied_it() -> None:
    """The limit that the page names: a confirmation from before the restore ends there."""
    found = explore(SCOPES["restore"]._replace(forgives_lost=False))
    assert found.broken is not None
    assert found.broken.startswith("1: ")
    assert "the backup is put back" in found.trace


def test_the_assumption_about_rates_is_needed() -> None:
    """Two clocks that differ by 2 %: the follower outlives the watch of its lease."""
    found = explore(SCOPES["rates"]._replace(host_rates=(99,)))
    assert found.broken is not None
