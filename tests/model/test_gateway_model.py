"""No gateway lets a request pass whose revocation is confirmed (docs/revocation.md)."""

from __future__ import annotations

import pytest

from tests.model.gateway_mistakes import Mistake
from tests.model.gateways import walk

STEPS = 240


@pytest.mark.parametrize("part", range(4))
def test_nothing_confirmed_passes_any_gateway(part: int, proof_scale: int) -> None:
    for seed in range(part, 10_000 * proof_scale, 4):
        assert walk(seed, STEPS) == ""


@pytest.mark.parametrize("mistake", Mistake, ids=lambda mistake: mistake.name)
def test_every_mistake_is_found(mistake: Mistake) -> None:
    assert any(walk(seed, STEPS, frozenset({mistake})) for seed in range(3_000))
