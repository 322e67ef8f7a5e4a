"""Fairness, unread answers and times of the public port (R44, R46, R47)."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.gate_counts import counts_of
from tests.unit.verifier.test_wire_states import (
    CHECK,
    HALF,
    C,
    D,
    E,
    H,
    Talk,
    W,
    Y,
    talk,
)
from verifier.wire import budgets
from verifier.wire.check_times import ONE_IN

__all__ = ["talk"]  # the fixture

K = budgets.CHECKS_PER_TURN


def faults_of(talk: Talk) -> dict[str, int]:
    """Return the faults that were counted (R39)."""
    return {fault: count for fault, count in talk.port.faults.items() if count}


async def test_r39_every_eighth_check_is_timed_until_it_is_sent(talk: Talk) -> None:
    times = talk.port.times
    for _ in range(3 * ONE_IN):
        await talk.say(CHECK)
    assert sum(times.counts) == 3
    # The last answer of a connection is sent at its end.
    for _ in range(ONE_IN - 1):
        await talk.say(CHECK)
    talk.protocol.data_received(CHECK)
    assert times.timed is talk.protocol
    talk.protocol.eof_received()
    assert (times.timed, sum(times.counts)) == (None, 4)


async def test_r39_a_check_whose_answer_is_dropped_has_no_time(talk: Talk) -> None:
    for _ in range(ONE_IN - 1):
        await talk.say(CHECK)
    talk.protocol.data_received(CHECK)
    talk.protocol.abort()
    await asyncio.sleep(0)
    assert (talk.port.times.timed, sum(talk.port.times.counts)) == (None, 0)


async def test_r47_one_turn_answers_k_checks_and_the_next_ones_the_rest(
    talk: Talk,
) -> None:
    talk.protocol.data_received(CHECK * (2 * K + 1))
    assert (talk.state, talk.transport.is_paused) == (Y, True)
    decided = [counts_of(talk.port.gate).total()]
    for _ in range(3):
        await asyncio.sleep(0)
        decided.append(counts_of(talk.port.gate).total())
    assert decided == [K, 2 * K, 2 * K + 1, 2 * K + 1]
    assert talk.statuses == [401] * (2 * K + 1)
    assert (talk.state, talk.transport.is_paused) == (H, False)


async def test_r47_two_connections_take_turns(talk: Talk) -> None:
    other = Talk(talk.port)
    talk.protocol.data_received(CHECK * 20 * K)
    other.protocol.data_received(CHECK)
    await asyncio.sleep(0)
    assert len(other.statuses) == 1
    assert counts_of(talk.port.gate).total() == 2 * K + 1


async def test_r47_a_check_waits_for_k_checks_of_each_pipelining_connection(
    talk: Talk,
) -> None:
    """The bound of docs/revocation.md."""
    others = [Talk(talk.port) for _ in range(8)]
    for other in others:
        other.protocol.data_received(CHECK * 20 * K)
    for _ in range(5):
        before = counts_of(talk.port.gate).total()
        await asyncio.sleep(0)
        assert counts_of(talk.port.gate).total() - before == len(others) * K
        answered = len(talk.statuses)
        talk.protocol.data_received(CHECK)
        await asyncio.sleep(0)
        assert len(talk.statuses) == answered + 1


async def test_more_than_may_be_kept_gets_one_last_answer(talk: Talk) -> None:
    many = CHECK * (budgets.KEPT_BYTES // len(CHECK) + K + 2)
    talk.protocol.data_received(many)
    await asyncio.sleep(0)
    assert talk.statuses == [401] * (K + 1)
    assert talk.transport.sent.endswith(b"Connection: close\r\n\r\n")
    assert (talk.state, talk.transport.has_eof) == (D, True)


async def test_as_much_as_may_be_kept_is_answered(talk: Talk) -> None:
    many = budgets.KEPT_BYTES // len(CHECK) + K
    talk.protocol.data_received(CHECK * many)
    for _ in range(many // K + 2):
        await asyncio.sleep(0)
    assert (talk.statuses, talk.state) == ([401] * many, H)


async def test_half_a_head_of_many_empty_headers_is_refused_at_once(talk: Talk) -> None:
    """4,000 of them held 700 KB of a connection until its time was up."""
    await talk.say(CHECK[:-2] + b"a:\r\n" * (budgets.HEADERS + 1))
    assert (talk.statuses, talk.protocol.headers) == ([431], [])


async def test_idle_connection_holds_nothing_of_its_last_head(talk: Talk) -> None:
    await talk.say(CHECK[:-2] + b"X-Long: " + b"a" * 10_000 + b"\r\n\r\n")
    assert talk.statuses == [401]
    assert (talk.protocol.target, talk.protocol.headers) == (b"", [])


async def test_exactly_k_checks_need_no_second_turn(talk: Talk) -> None:
    talk.protocol.data_received(CHECK * K)
    assert (talk.state, talk.transport.is_paused) == (H, False)


async def test_bytes_that_come_during_a_pause_keep_their_place(talk: Talk) -> None:
    talk.protocol.data_received(CHECK * K + CHECK[:20])
    talk.protocol.data_received(CHECK[20:] + CHECK.replace(b"/verify/nginx", b"/x"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert talk.statuses == [401] * (K + 1) + [404]


async def test_bytes_that_come_during_a_pause_are_bounded(talk: Talk) -> None:
    talk.protocol.data_received(CHECK * (K + 1))
    talk.protocol.data_received(b"a" * budgets.KEPT_BYTES)
    assert talk.transport.end == "abort"
    assert faults_of(talk) == {"excess": 1}


async def test_r46_peer_that_reads_no_answers_is_not_read_and_aborted(
    talk: Talk,
) -> None:
    talk.block()
    assert talk.transport.is_paused
    await talk.pass_time(budgets.UNREAD_TIME)
    assert talk.state is W
    await talk.pass_time(0.5)
    assert (talk.state, talk.transport.end) == (E, "abort")


async def test_peer_that_reads_again_is_read_again(talk: Talk) -> None:
    talk.block()
    talk.transport.take()
    assert (talk.state, talk.transport.is_paused) == (H, False)
    await talk.say(CHECK)
    assert talk.statuses == [401, 401]
    await talk.pass_time(budgets.IDLE_TIME)
    assert talk.state is H


async def test_turns_wait_while_the_peer_reads_no_answers(talk: Talk) -> None:
    talk.transport.reads = False
    talk.transport.high = 10
    talk.protocol.data_received(CHECK * (K + 3))
    for _ in range(4):
        await asyncio.sleep(0)
    assert talk.state is W
    before = len(talk.statuses)
    talk.transport.take()
    for _ in range(4):
        await asyncio.sleep(0)
    assert talk.statuses == [401] * (K + 3)
    assert before < K + 3
    assert (talk.state, talk.transport.is_paused) == (H, False)


async def test_r46_close_that_is_not_read_is_aborted(talk: Talk) -> None:
    talk.transport.reads = False
    await talk.say(CHECK)
    talk.protocol.shutdown()
    assert talk.state is C
    await talk.pass_time(budgets.UNREAD_TIME + 0.5)
    assert talk.transport.end == "abort"


async def test_r46_idle_connection_with_unread_answers_is_aborted(talk: Talk) -> None:
    talk.transport.reads = False
    await talk.say(CHECK)
    await talk.pass_time(budgets.IDLE_TIME + 0.5)
    assert talk.transport.end == "abort"
    assert faults_of(talk) == {"unread": 1}


async def test_silent_connection_is_closed(talk: Talk) -> None:
    await talk.pass_time(budgets.HEAD_TIME)
    assert talk.state is H
    await talk.pass_time(0.5)
    assert (talk.transport.sent, talk.transport.end) == (b"", "close")


async def test_half_a_head_is_408(talk: Talk) -> None:
    await talk.say(HALF)
    await talk.pass_time(budgets.HEAD_TIME + 0.5)
    assert (talk.statuses, talk.state, talk.transport.has_eof) == ([408], D, True)
    assert faults_of(talk) == {"head_time": 1}


@pytest.mark.parametrize("first", [b"", CHECK], ids=["first", "kept"])
async def test_dripping_does_not_extend_the_time(talk: Talk, first: bytes) -> None:
    await talk.say(first + HALF)
    for _ in range(int(budgets.HEAD_TIME)):
        await talk.pass_time(1.0)
        await talk.say(b"a")
    assert talk.state is H
    await talk.pass_time(0.5)
    assert talk.state is D


async def test_idle_connection_is_closed(talk: Talk) -> None:
    await talk.say(CHECK)
    await talk.pass_time(budgets.IDLE_TIME)
    assert talk.state is H
    await talk.pass_time(0.5)
    assert talk.transport.end == "close"


async def test_drain_answers_a_half_received_request(talk: Talk) -> None:
    await talk.say(CHECK + HALF)
    talk.protocol.shutdown()
    await talk.say(CHECK[len(HALF) :])
    assert (talk.statuses, talk.state) == ([401, 401], C)
    assert talk.transport.sent.endswith(b"Connection: close\r\n\r\n")


async def test_drain_in_a_burst_answers_one_more(talk: Talk) -> None:
    talk.protocol.data_received(CHECK * (K + 5))
    talk.protocol.shutdown()
    for _ in range(3):
        await asyncio.sleep(0)
    assert (len(talk.statuses), talk.state) == (K + 1, D)
    assert talk.transport.is_paused is False


async def test_eof_sends_the_pending_answers(talk: Talk) -> None:
    talk.protocol.data_received(CHECK)
    talk.protocol.eof_received()
    assert (talk.statuses, talk.transport.end) == ([401], "close")


@pytest.mark.parametrize("decided", [3, K + 1], ids=["unsent", "yielded"])
async def test_r46_abort_sends_nothing_more(talk: Talk, decided: int) -> None:
    talk.protocol.data_received(CHECK * decided)
    sent = talk.transport.sent
    talk.protocol.abort()
    for _ in range(3):
        await asyncio.sleep(0)
    assert talk.transport.sent == sent
    assert talk.state is E
