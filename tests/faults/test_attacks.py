"""Hostile connections to a real verifier: the memory they take, and what remains.

`python -m loadtests.bench_attack` also measures their cost for good checks.
"""

from __future__ import annotations

import os

import pytest

from loadtests.bench_attack.__main__ import Attack, AttackPlan, run

#: Bytes any attack may add, in MB.
MOST = 10.0

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("is_unix", [False, True], ids=["tcp", "unix"])
def test_no_attack_fails_a_good_check_or_takes_memory(*, is_unix: bool) -> None:
    """R43 to R47: endless trailers took 1.4 GB, and attackers held every slot."""
    core = min(os.sched_getaffinity(0))
    plan = AttackPlan(1, 0.5, (core, core), is_unix=is_unix, settle=0.5)
    attacks = [
        Attack("trailers", 20, is_trusted=True),
        Attack("many-headers", 200, is_trusted=True),
        Attack("pipeline-unread", 200, is_trusted=True),
    ]
    if not is_unix:
        attacks.append(Attack("pipeline", 200, is_trusted=False))
    for result in run(plan, attacks):
        assert result.memory_mb <= MOST, result
        if "untrusted" in result.name:
            assert result.failed == 0, result
