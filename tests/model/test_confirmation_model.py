"""Long random histories of a larger world, with every fault (see `confirmation.py`).

Three followers, two of which share a machine, two replicas or SQLite's one, clocks
whose rates differ by 1 %. The same examples in every test run; `make proof` tries many
new ones, deeper.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.model import faults, issuer_side, revoking, verifier_side
from tests.model.confirmation import STOPPING, broken_promise, calm_down, moves
from tests.model.issuer_side import STAGES
from tests.model.mistakes import Mistake
from tests.model.world import Left, Scope, World, start_world
from tests.support.proofs import examples, is_whole

pytestmark = pytest.mark.proof
_OFTEN = dict.fromkeys(Left._fields, 60)
_RATES = st.sampled_from([100, 101])
_NODES = st.integers(0, 2)
_PLACES = st.integers(0, 1)
#: Seconds around what decides: RENEW_EVERY 5, S 20 to 60, the terms of these.
_SECONDS = st.sampled_from([1, 4, 5, 6, 15, 20, 26, 30, 36, 60, 67])


class ConfirmationMachine(RuleBasedStateMachine):
    """Takes steps of the model; after each, promises 1 to 3 hold, at the end the
    4th.
    """

    mistakes: frozenset[Mistake] = frozenset()

    @initialize(
        host_rates=st.tuples(_RATES, _RATES),
        replica_rates=st.tuples(_RATES, _RATES),
        allows=st.booleans(),
        is_sqlite=st.booleans(),
        keeps_copy=st.booleans(),
    )
    def begin(
        self,
        host_rates: tuple[int, int],
        replica_rates: tuple[int, int],
        allows: bool,
        is_sqlite: bool,
        keeps_copy: bool,
    ) -> None:
        self.scope = Scope(
            hosts=(0, 1, 0),
            staleness=((30, 20, 60), (30,), (30, 60, 20)),
            allows=(False, allows, False),
            keeps_copy=keeps_copy,
            renew_every=5,
            margin=1,
            max_staleness=60,
            host_rates=host_rates,
            replica_rates=replica_rates,
            is_sqlite=is_sqlite,
            looks_at_once=False,
            mistakes=self.mistakes,
            instants=(0,),
            **_OFTEN,
        )
        self.world = start_world(self.scope)

    @rule(place=st.integers(0, 1_000))
    def anything(self, place: int) -> None:
        """Any step that can be taken."""
        possible = list(moves(self.world, self.scope))
        self.world = possible[place % len(possible)][1]

    @rule(
        node=_NODES,
        replica=_PLACES,
        steps=st.sampled_from([5, 5, 5, 1, 2, 3, 4]),
        paused_before=st.integers(0, 9),
        seconds=_SECONDS,
    )
    def converse(
        self, node: int, replica: int, steps: int, paused_before: int, seconds: int
    ) -> None:
        """A follower asks; some or all of the next steps happen, perhaps slowly."""
        replica %= len(self.world.replicas)
        self._take(verifier_side.start(self.world, self.scope, node))
        self._take(verifier_side.ask(self.world, self.scope, node))
        for step in range(steps):
            if step == paused_before:
                self.pass_time(seconds)
            self._go_on(node, replica)

    def _go_on(self, node: int, replica: int) -> None:
        """Take the next step of a follower's newest request."""
        me, world, scope = self.world.followers[node], self.world, self.scope
        newest = (me.id, me.number)
        for request in world.requests:
            if (request.follower, request.number) == newest:
                return self._take(
                    issuer_side.receive(world, scope, replica, request, is_twice=False)
                )
        for index, process in enumerate(world.replicas):
            for place, job in enumerate(process.jobs):
                if (job.request.follower, job.request.number) == newest:
                    return self._take(STAGES[job.stage](world, scope, index, place))
        for answer in world.answers:
            if (answer.request.follower, answer.request.number) == newest:
                return self._take(verifier_side.apply(world, scope, answer))
        return self._take(verifier_side.save(world, scope, node))

    @rule(does_confirm=st.booleans())
    def revoke(self, does_confirm: bool) -> None:
        token = self.scope.revocations - self.world.left.revocations
        self._take(revoking.revoke(self.world, self.scope, token))
        if does_confirm:
            self.confirm()

    @rule()
    def confirm(self) -> None:
        for call in self.world.calls:
            self._take(revoking.confirm(self.world, self.scope, call))

    @rule(replica=_PLACES, seconds=_SECONDS, does_reap=st.booleans())
    def watch(self, replica: int, seconds: int, does_reap: bool) -> None:
        """A replica looks, time passes, it looks again and takes allowed steps."""
        replica %= len(self.world.replicas)
        self.world = issuer_side.look(self.world, self.scope, replica)
        self.pass_time(seconds)
        if does_reap:
            for row in self.world.database.rows:
                self._take(
                    issuer_side.reap(self.world, self.scope, replica, row.follower)
                )
            self._take(issuer_side.settle(self.world, self.scope, replica))

    @rule(seconds=_SECONDS)
    def pass_time(self, seconds: int) -> None:
        self.world = self.world._replace(now=self.world.now + seconds)

    @rule(replica=_PLACES)
    def crash_replica(self, replica: int) -> None:
        replica %= len(self.world.replicas)
        self._take(faults.crash(self.world, self.scope, replica))

    @rule(node=_NODES, does_start=st.booleans())
    def kill_follower(self, node: int, does_start: bool) -> None:
        self._take(faults.kill(self.world, self.scope, node))
        if does_start:
            self._take(verifier_side.start(self.world, self.scope, node))

    @rule(node=_NODES, steps=st.integers(1, 4), seconds=_SECONDS)
    def stop_follower(self, node: int, steps: int, seconds: int) -> None:
        """A clean stop, or as much of one as comes before a kill."""
        for _, step in STOPPING[:steps]:
            self._take(step(self.world, self.scope, node))
        self.pass_time(seconds)
        if steps > len(STOPPING):
            self._take(verifier_side.start(self.world, self.scope, node))

    @rule(is_twice=st.booleans())
    def hear_goodbyes(self, is_twice: bool) -> None:
        for goodbye in self.world.goodbyes:
            self._take(
                issuer_side.hear(self.world, self.scope, goodbye, is_twice=is_twice)
            )

    @rule(host=_PLACES)
    def reboot(self, host: int) -> None:
        self._take(faults.reboot(self.world, self.scope, host))

    @rule(is_back=st.booleans())
    def copy_directory(self, is_back: bool) -> None:
        source, to = (2, 0) if is_back else (0, 2)
        self._take(faults.copy_directory(self.world, self.scope, source, to))
        self._take(verifier_side.start(self.world, self.scope, to))

    @rule()
    def back_up(self) -> None:
        self._take(faults.back_up(self.world, self.scope))

    @rule()
    def restore(self) -> None:
        self._take(faults.restore(self.world, self.scope))

    @rule()
    def restart_server(self) -> None:
        if not self.scope.is_sqlite:
            self._take(faults.restart_server(self.world, self.scope))

    @invariant()
    def no_promise_is_broken(self) -> None:
        broken = broken_promise(self.world, self.scope)
        assert broken is None, broken

    def teardown(self) -> None:
        if hasattr(self, "world") and not broken_promise(self.world, self.scope):
            missing = calm_down(self.world, self.scope, stride=9)
            assert missing is None, missing

    def _take(self, after: World | None) -> None:
        self.world = after or self.world


ConfirmationMachine.TestCase.settings = settings(
    max_examples=examples(80),
    stateful_step_count=120 if is_whole() else 60,
    derandomize=not is_whole(),
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class TestConfirmation(ConfirmationMachine.TestCase):
    """Run by pytest."""


@pytest.mark.parametrize(
    "mistake",
    [
        Mistake.AGE_FROM_ARRIVAL,
        Mistake.AGE_ACROSS_REBOOT,
        Mistake.GOODBYE_BEFORE_COPY_IS_VOID,
        Mistake.NOBODY_REAPS,
    ],
    ids=lambda mistake: mistake.name.lower(),
)
def test_random_histories_find_a_mistake(mistake: Mistake) -> None:
    """The machine above can fail: it does when the model has a mistake."""

    class Mistaken(ConfirmationMachine):
        mistakes = frozenset({mistake})

    with pytest.raises(AssertionError, match=r"^\d: "):
        run_state_machine_as_test(
            Mistaken,
            settings=settings(
                ConfirmationMachine.TestCase.settings,
                max_examples=200,
                derandomize=True,
                phases=[Phase.generate],
            ),
        )
