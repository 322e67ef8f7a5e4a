"""The last decisions of all workers, found by their ids (R66)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from tests.support.gatehouse_verifier import SimulatedVerifier, started
from verifier.check.decision import Refused, Times
from verifier.check.denials import DenyReason
from verifier.check.forward_auth import Route
from verifier.check.policy import PolicyBook
from verifier.check.trust import Trust
from verifier.operators.decision_log import RECORDS, DecisionBoard, DecisionLog
from verifier.operators.explain import Explainer

EXPIRED = Refused(DenyReason.EXPIRED)
TIMES = Times(1_700_000_000.5, 25.0)
NO_TRUST = Trust("https://issuer.test").snapshot
NO_POLICIES = PolicyBook({})


class Workers:
    """Two workers of one verifier; each has a log of its own.

    Attributes:
        waited: seconds that an explanation waited, by its own sleeps.
    """

    def __init__(self, verifier: SimulatedVerifier) -> None:
        board = DecisionBoard(2)
        self.verifier = verifier
        self.logs = [DecisionLog(board, slot, verifier.feed) for slot in range(2)]
        self.waited = 0.0
        self.published_after = 0.5

    def explainer(self) -> Explainer:
        """Return the one of the first worker; meanwhile the second publishes."""

        async def sleep(seconds: float) -> None:
            self.waited += seconds
            if self.waited >= self.published_after:
                self.logs[1].publish()

        clock, parts = self.verifier.clock, self.verifier.parts
        parts = parts._replace(decisions=self.logs[0])
        return Explainer(parts, clock.now, clock.monotonic, sleep)


@pytest.fixture
async def workers() -> Workers:
    return Workers(await started())


def record(log: DecisionLog, outcome: Any = EXPIRED) -> str:
    return log.record(outcome, TIMES, NO_TRUST, NO_POLICIES).decode()


def test_own_decision_is_found_at_once_and_another_workers_when_published(
    workers: Workers,
) -> None:
    one, other = workers.logs
    decision_id = record(one)
    assert one.find(decision_id) is not None
    assert other.find(decision_id) is None
    one.publish()
    found = other.find(decision_id)
    assert found == one.find(decision_id)
    assert found is not None
    assert (found.decision, found.reason) == ("deny", "expired")
    assert (found.decided_at, found.fresh_for) == (1_700_000_000.5, -25.0)


async def test_explanation_waits_until_another_worker_publishes(
    workers: Workers,
) -> None:
    decision_id = record(workers.logs[1])
    found = await workers.explainer()._find(decision_id)
    assert found is not None
    assert found.reason == "expired"
    assert 0.5 <= workers.waited < 0.7


async def test_unknown_id_is_waited_for_seven_tenths_of_a_second(
    workers: Workers,
) -> None:
    assert await workers.explainer()._find("0" * 16) is None
    assert 0.65 < workers.waited < 0.75


def test_each_worker_keeps_its_last_thousand_decisions(workers: Workers) -> None:
    one, other = workers.logs
    kept = record(other)
    other.publish()
    ids = [record(one) for _ in range(RECORDS + 1)]
    one.publish()
    assert one.find(ids[0]) is None
    assert all(other.find(decision_id) for decision_id in ids[1:])
    # A flood in one worker displaces nothing of another.
    assert one.find(kept) is not None
    late = record(one)
    one.publish()
    assert one.find(late) is not None
    assert one.find(ids[1]) is None


def test_longest_names_have_room_in_a_record(workers: Workers) -> None:
    policy = workers.verifier.gate.policies.policies["default"]
    policy = replace(policy, name="p" * 1_000)
    outcome = Refused(DenyReason.AUTHENTICATION_TOO_OLD, kid="k" * 256, policy=policy)
    log = workers.logs[0]
    decision_id = record(log, outcome)
    log.publish()
    found = workers.logs[1].find(decision_id)
    assert found is not None
    assert (found.policy, found.kid) == ("p" * 200, "k" * 256)


def test_a_record_that_cannot_be_described_stops_nothing(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    log = workers.logs[0]
    nameless = Refused(DenyReason.EXPIRED, Route(cast(Any, object()), "", None))
    bad, good = record(log, nameless), record(log)
    log.publish()
    assert "decision.not_published" in caplog.text
    assert log.find(bad) is None
    assert log.find(good) is not None


@pytest.mark.parametrize("text", ["", "x", "0" * 15, "0" * 18, "zz" * 8])
def test_what_is_no_id_finds_nothing(workers: Workers, text: str) -> None:
    assert workers.logs[0].find(text) is None


def test_an_id_across_two_others_is_not_taken_for_one(workers: Workers) -> None:
    log, board = workers.logs[0], DecisionBoard(1)
    found = log.find(record(log))
    assert found is not None
    one, other = (found._replace(reason=word) for word in ("stale", "no_keys"))
    board.write(0, b"0000abcd", one)
    board.write(1, b"efgh0000", one)
    assert board.find(b"abcdefgh") is None
    board.write(2, b"abcdefgh", other)
    assert board.find(b"abcdefgh") == other
