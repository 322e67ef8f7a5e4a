"""Every refusal has an id, by which operators find the decision (R66)."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from shared.feed import EntryKind
from tests.support.gatehouse_verifier import SimulatedVerifier, started
from verifier.check.decision import Refused, Times
from verifier.check.denials import DenyReason
from verifier.check.forward_auth import DIALECTS
from verifier.operators.decision_log import (
    RECORDS,
    DecisionBoard,
    DecisionLog,
    DecisionRecord,
)

POLICIES = """
[policies.orders]
[[policies.orders.rules]]
path = "/a"
[[policies.orders.rules]]
path = "/b"
required_scopes = ["x"]
[policies.known]
decision_ids = true
on_stale = "allow"
[policies.shadow]
mode = "shadow"
decision_ids = true
required_roles = ["x"]
[policies.open]
decision_ids = true
public = true
"""


@pytest.fixture
async def verifier() -> SimulatedVerifier:
    return await started(policies=POLICIES)


def record(verifier: SimulatedVerifier, log: DecisionLog, reason: DenyReason) -> str:
    outcome, trust = Refused(reason), verifier.trust.snapshot
    times = Times(5.0, 1.0)
    return log.record(outcome, times, trust, verifier.gate.policies).decode()


def id_of(
    verifier: SimulatedVerifier, token: bytes | None, target: bytes, *headers: Any
) -> str:
    """Return the only decision id of an answer; empty when it has none."""
    answer = verifier.check(token, target=target, headers=list(headers))
    found = [value for name, value in answer.headers if name == b"X-Auth-Decision-Id"]
    assert len(found) <= 1
    return b"".join(found).decode()


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
async def test_every_refusal_has_an_id_of_its_own(
    verifier: SimulatedVerifier, dialect: bytes
) -> None:
    ids = set()
    for policy in (b"", b"/p/orders", b"/p/missing"):
        for token in (None, b"x", verifier.issuer.mint(exp=5)):
            found = id_of(verifier, token, b"/verify/" + dialect + policy)
            assert re.fullmatch("[0-9a-f]{16}", found)
            ids.add(found)
    assert len(ids) == 9
    assert re.fullmatch("[0-9a-f]{16}", id_of(verifier, None, b"/verify/x"))


async def test_allow_has_one_where_the_policy_says_so(
    verifier: SimulatedVerifier,
) -> None:
    token = verifier.issuer.mint()
    assert id_of(verifier, token, b"/verify/nginx") == ""
    for policy, decision in (
        (b"known", "allow"),
        (b"shadow", "allow-shadow"),
        (b"open", "allow-anonymous"),
    ):
        found = id_of(verifier, token, b"/verify/nginx/p/" + policy)
        record = verifier.decisions.find(found)
        assert record is not None
        assert (record.decision, record.policy) == (decision, policy.decode())


async def test_allow_of_shadow_mode_has_one_if_it_would_be_refused() -> None:
    policies = '[policies.trial]\nmode = "shadow"\nrequired_scopes = ["x"]'
    verifier = await started(policies=policies)
    target = b"/verify/nginx/p/trial"
    assert id_of(verifier, verifier.issuer.mint(scope="x"), target) == ""
    assert id_of(verifier, verifier.issuer.mint(scope="y"), target) != ""


async def test_record_says_what_was_decided_and_by_what(
    verifier: SimulatedVerifier,
) -> None:
    verifier.clock.advance(7)
    token = verifier.issuer.mint(scope="y")
    headers = (b"x-original-method", b"GET"), (b"x-original-uri", b"/b?secret=1")
    found = id_of(verifier, token, b"/verify/nginx/p/orders", *headers)
    record = verifier.decisions.find(found)
    assert record == DecisionRecord(
        decided_at=verifier.clock.now(),
        decision="deny",
        reason="scope_insufficient",
        dialect="nginx",
        policy="orders",
        rule=2,
        issuer="own",
        kid=verifier.issuer.keys[0].kid,
        epoch=verifier.feed.epoch or "",
        position=verifier.feed.position,
        fresh_for=23.0,
        policies=record.policies if record else "",
        checks=record.checks if record else "",
    )


async def test_record_knows_the_key_of_a_token_that_was_revoked(
    verifier: SimulatedVerifier,
) -> None:
    token = verifier.issuer.mint(sid="s")
    verifier.issuer.revoke(EntryKind.SID, "s")
    await verifier.sync()
    record = verifier.decisions.find(id_of(verifier, token, b"/verify/nginx"))
    assert record is not None
    assert record.reason == "revoked_sid"
    assert record.kid == verifier.issuer.keys[0].kid
    assert record.position == verifier.feed.position == 1


async def test_record_says_that_the_list_was_stale(verifier: SimulatedVerifier) -> None:
    verifier.clock.advance(31)
    token = verifier.issuer.mint()
    refused = verifier.decisions.find(id_of(verifier, token, b"/verify/nginx"))
    assert refused is not None
    assert (refused.reason, refused.fresh_for) == ("stale", -1.0)
    allowed = verifier.decisions.find(id_of(verifier, token, b"/verify/nginx/p/known"))
    assert allowed is not None
    assert allowed.decision == "allow-stale"


@pytest.mark.parametrize(
    "decision_id", ["", "x", "0" * 15, "0" * 16, "0" * 17, "é" * 16, "0" * 1_000]
)
async def test_unknown_id_finds_nothing(
    verifier: SimulatedVerifier, decision_id: str
) -> None:
    id_of(verifier, None, b"/verify/nginx")
    assert verifier.decisions.find(decision_id) is None


async def test_records_are_bounded_and_the_oldest_are_replaced(
    verifier: SimulatedVerifier,
) -> None:
    """R47: a flood of refusals takes no more memory."""
    first = id_of(verifier, None, b"/verify/nginx")
    assert verifier.decisions.find(first)
    ids = [id_of(verifier, None, b"/verify/nginx") for _ in range(RECORDS)]
    assert verifier.decisions.find(first) is None
    assert verifier.decisions.find(ids[0])
    assert verifier.decisions.find(ids[-1])
    # As many that were never published.
    ids += [id_of(verifier, None, b"/verify/nginx") for _ in range(RECORDS + 5)]
    assert verifier.decisions.find(ids[-1])
    assert verifier.decisions.find(ids[-RECORDS])
    assert verifier.decisions.find(ids[-RECORDS - 1]) is None


async def test_worker_finds_what_another_has_published(
    verifier: SimulatedVerifier,
) -> None:
    board = DecisionBoard(2)
    logs = [DecisionLog(board, slot, verifier.feed) for slot in range(2)]
    found = record(verifier, logs[0], DenyReason.STALE)
    assert logs[1].find(found) is None
    logs[0].publish(0)
    assert logs[1].find(found) is None
    logs[0].publish()
    published = logs[1].find(found)
    assert published is not None
    assert published.reason == "stale"
    # The records of one worker replace none of another.
    for _ in range(RECORDS + 1):
        record(verifier, logs[1], DenyReason.NO_KEYS)
    logs[1].publish()
    assert logs[1].find(found) == published


async def test_torn_record_is_not_found(verifier: SimulatedVerifier) -> None:
    """Another worker may be writing it at this moment."""
    board = DecisionBoard(1)
    log = DecisionLog(board, 0, verifier.feed)
    found = record(verifier, log, DenyReason.STALE)
    assert log.find(found)
    log.publish()
    at = bytes(board._memory).rindex(b"stale")
    board._memory[at : at + 1] = b"S"
    assert log.find(found) is None


def test_record_that_is_too_long_is_dropped_and_no_other() -> None:
    """R47: the key ids of a foreign issuer may be of any length."""
    board = DecisionBoard(1)
    short = DecisionRecord(
        1.0, "deny", "stale", "nginx", "a", 1, "own", "kid", "e", 1, 1.0, "", ""
    )
    ids = [bytes([number]) * 8 for number in range(3)]
    board.write(0, ids[0], short)
    board.write(2, ids[2], short)
    board.write(1, ids[1], short._replace(kid="k" * 2_000))
    assert [board.find(id) for id in ids] == [short, None, short]


async def test_long_name_of_a_policy_is_cut() -> None:
    name = "a" * 2_000
    verifier = await started(policies=f"[policies.{name}]\nrequired_scopes = ['x']")
    target = b"/verify/nginx/p/" + name.encode()
    record = verifier.decisions.find(id_of(verifier, verifier.issuer.mint(), target))
    assert record is not None
    assert record.policy == "a" * 200


async def test_fault_of_the_log_changes_no_answer(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    """R25: the decision is made; only its record is missing."""

    class BrokenFeed:
        @property
        def epoch(self) -> str:
            raise RuntimeError("t.o.k")

    verifier.decisions._feed = cast(Any, BrokenFeed())
    found = id_of(verifier, None, b"/verify/nginx")
    assert re.fullmatch("[0-9a-f]{16}", found)
    assert verifier.decisions.find(found) is None
    assert caplog.records[-1].getMessage() == "decision.not_recorded"
