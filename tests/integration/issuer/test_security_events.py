"""CAEP session-revoked events, from the revocation to a receiver that checks them."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError
from sqlalchemy import delete, select

from issuer.acts import Caller
from issuer.composition import Issuer, compose
from issuer.errors import UnavailableError
from issuer.exports.event_delivery import EventDelivery
from issuer.storage.tables.keys import SigningKey
from issuer.storage.tables.security_events import SecurityEvent
from tests.support.certificates import Authority
from tests.support.event_receiver import (
    TOKEN,
    EventReceiver,
    endpoint_setting,
    running_receiver,
)
from tests.support.issuer_harness import (
    FakeClock,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import PASSWORD, log_in, read_feed
from tests.support.personal_keys import make_key
from tests.support.processes import eventually
from tests.support.raw_server import Answer, http, raw_server, saying, then_closing

SID = {"session": {"format": "opaque", "id": "a-sid"}, "format": "complex"}


@pytest.fixture
def receiver() -> Iterator[EventReceiver]:
    with running_receiver() as running:
        yield running


@asynccontextmanager
async def composed(
    url: str, receiver: EventReceiver, **changes: object
) -> AsyncIterator[Issuer]:
    """An issuer without tasks that run by themselves."""
    settings = make_settings(url, caep_endpoints=endpoint_setting(receiver), **changes)
    issuer = compose(settings, clock=FakeClock())
    receiver.jwks = await read_jwks(issuer)
    try:
        yield issuer
    finally:
        await issuer.close()
    assert receiver.faults == []


@pytest.fixture
async def issuer(database_url: str, receiver: EventReceiver) -> AsyncIterator[Issuer]:
    async with composed(database_url, receiver) as running:
        yield running


async def read_jwks(issuer: Issuer) -> object:
    return orjson.loads((await issuer.keys.store.published_keys()).body)


def delivery_of(issuer: Issuer) -> EventDelivery:
    assert issuer.exports.event_delivery is not None
    return issuer.exports.event_delivery


def clock_of(issuer: Issuer) -> FakeClock:
    assert isinstance(issuer.base.clock, FakeClock)
    return issuer.base.clock


async def end(issuer: Issuer, sid: str = "a-sid") -> None:
    await issuer.sessions.logout.end_any(sid, Caller(), actor="system")


async def waiting(issuer: Issuer) -> list[SecurityEvent]:
    async with issuer.base.database.read() as db:
        return list(await db.scalars(select(SecurityEvent)))


async def test_a_logout_reaches_a_running_issuers_receiver(
    database_url: str, receiver: EventReceiver
) -> None:
    settings = make_settings(database_url, caep_endpoints=endpoint_setting(receiver))
    async with running_issuer(settings) as harness:
        receiver.jwks = await read_jwks(harness.issuer)
        await harness.create_user("alice", PASSWORD)
        tokens = await log_in(harness)
        await harness.client.post("/auth/logout", headers=tokens.bearer)
        again = await log_in(harness)
        await harness.client.post("/auth/logout-all", headers=again.bearer)

        async def has_both() -> bool:
            return await counted(harness, "delivered") == 2

        await eventually(has_both)
        assert receiver.faults == []
        user = {"format": "iss_sub", "iss": "https://issuer.test"}
        user["sub"] = tokens.claims["sub"]
        session = {"format": "opaque", "id": tokens.sid}
        shown = [claims["sub_id"] for claims in receiver.accepted.values()]
        assert {"format": "complex", "session": session, "user": user} in shown
        assert user in shown
        assert all(c["iat"] == harness.clock.now for c in receiver.accepted.values())


async def test_every_outcome_of_an_endpoint_is_counted_from_0(issuer: Issuer) -> None:
    """Else the alert about lost events would miss the first one."""
    endpoints = issuer.base.settings.caep_endpoints
    renamed = [each.model_copy(update={"name": "late"}) for each in endpoints]
    delivery_of(issuer).replace_endpoints(renamed)
    text = issuer.base.metrics.render().decode()
    for name in (endpoints[0].name, "late"):
        for outcome in ("delivered", "retried", "refused", "given_up"):
            series = f'endpoint="{name}",outcome="{outcome}"'
            assert f"gatehouse_issuer_security_events_total{{{series}}} 0.0\n" in text


async def test_nothing_waits_for_an_endpoint_that_is_gone(
    issuer: Issuer, receiver: EventReceiver
) -> None:
    """The alert about it clears when a reload takes a dead receiver away."""
    receiver.answers = [(503, b"")]
    await end(issuer)
    clock_of(issuer).advance(1_000)
    await delivery_of(issuer).deliver_due()
    name = issuer.base.settings.caep_endpoints[0].name
    gauge = "gatehouse_issuer_security_event_waiting_seconds"
    series = f'{gauge}{{endpoint="{name}"}}'
    assert f"{series} 1000.0\n" in issuer.base.metrics.render().decode()
    delivery_of(issuer).replace_endpoints([])
    assert f"{series} 0.0\n" in issuer.base.metrics.render().decode()


async def test_the_end_of_a_personal_key_names_its_owner(
    sqlite_url: str, receiver: EventReceiver
) -> None:
    """In every way: its `sid` is no session's, and its owner is still
    known.
    """
    settings = make_settings(sqlite_url, caep_endpoints=endpoint_setting(receiver))
    async with running_issuer(settings) as harness:
        receiver.jwks = await read_jwks(harness.issuer)
        await harness.create_user("alice", PASSWORD)
        tokens = await log_in(harness)
        keys = [await make_key(harness, tokens, scopes=[]) for _ in range(3)]
        user = {"format": "iss_sub", "iss": "https://issuer.test"}
        user["sub"] = tokens.claims["sub"]
        path = f"/users/me/keys/{keys[0]['id']}"
        await harness.client.delete(path, headers=tokens.bearer)
        await harness.client.post("/oauth2/revoke", data={"token": keys[1]["key"]})
        await harness.issuer.sessions.logout.end_any(
            keys[2]["id"], Caller(), actor="system"
        )

        async def has_all() -> bool:
            return await counted(harness, "delivered") == 3

        await eventually(has_all)
        assert receiver.faults == []
        shown = [claims["sub_id"] for claims in receiver.accepted.values()]
        for key in keys:
            session = {"format": "opaque", "id": key["id"]}
            assert {"format": "complex", "session": session, "user": user} in shown


async def counted(harness: IssuerHarness, outcome: str) -> float:
    rendered = harness.issuer.base.metrics.render().decode()
    line = (
        "gatehouse_issuer_security_events_total"
        f'{{endpoint="r1",outcome="{outcome}"}} '
    )
    return sum(
        float(text.removeprefix(line))
        for text in rendered.splitlines()
        if text.startswith(line)
    )


async def test_delivered_events_leave_the_outbox(
    issuer: Issuer, receiver: EventReceiver
) -> None:
    await end(issuer)
    (event,) = await waiting(issuer)
    await delivery_of(issuer).deliver_due()
    assert await waiting(issuer) == []
    assert receiver.accepted[event.id]["sub_id"] == SID
    await delivery_of(issuer).deliver_due()
    assert receiver.attempts == [event.id]


async def test_only_ends_of_sessions_are_sent(
    issuer: Issuer, receiver: EventReceiver
) -> None:
    """A single token, a client's tokens and a canary are no session of anybody."""
    caller = Caller()
    made = await issuer.clients.clients.create(
        "robot", [], actor="system", caller=caller
    )
    await issuer.clients.clients.revoke_all(made.client_id, caller, actor="system")
    await issuer.revoking.revocations.revoke_token("a-jti", caller, actor="system")
    await issuer.feed.canary.send()
    assert await waiting(issuer) == []


async def test_an_event_and_its_feed_entry_are_committed_together(
    issuer: Issuer,
) -> None:
    class CutOffError(Exception):
        pass

    async def end_and_fail() -> None:
        async with issuer.base.database.write() as db:
            await issuer.sessions.ending.publish_sids(db, ["a-sid"], 0)
            raise CutOffError

    with pytest.raises(CutOffError):
        await end_and_fail()
    assert await waiting(issuer) == []


async def test_an_event_of_a_clock_that_was_ahead_does_not_wait_until_then(
    issuer: Issuer, receiver: EventReceiver
) -> None:
    """R53: it was due in ten years, and tried for three days more."""
    clock, delivery = clock_of(issuer), delivery_of(issuer)
    clock.set_by(3_650 * 86_400)
    await end(issuer)
    clock.set_by(-3_650 * 86_400)
    await delivery.deliver_due()
    assert receiver.attempts == []
    await delivery.prune()
    (event,) = await waiting(issuer)
    assert (event.event_at, event.next_attempt_at) == (clock.now, clock.now)
    await delivery.deliver_due()
    assert receiver.attempts == [event.id]


@pytest.mark.parametrize(
    "answer",
    [
        (500, b""),
        (503, b'{"err":"invalid_request"}'),
        (200, b""),
        (401, b'{"err":"authentication_failed"}'),
        (400, b""),
        (400, b"<html>"),
        (400, b'{"error":"x"}'),
        (400, b'{"err":7}'),
        (400, b'{"err":"a"' + b" " * 100_000 + b"}"),
    ],
    ids=lambda answer: f"{answer[0]}-{answer[1][:12]!r}",
)
async def test_an_event_that_was_not_accepted_is_sent_again_unchanged(
    issuer: Issuer, receiver: EventReceiver, answer: tuple[int, bytes]
) -> None:
    await end(issuer)
    receiver.answers = [answer]
    delivery = delivery_of(issuer)
    await delivery.deliver_due()
    (event,) = await waiting(issuer)
    assert event.next_attempt_at > clock_of(issuer).now
    await delivery.deliver_due()
    assert len(receiver.attempts) == 1, "it is not yet due"
    clock_of(issuer).advance(5)
    await delivery.deliver_due()
    assert receiver.attempts == [event.id] * 2
    assert list(receiver.accepted) == [event.id]
    assert await waiting(issuer) == []


async def test_a_refusal_is_recorded_and_not_repeated(
    issuer: Issuer, receiver: EventReceiver
) -> None:
    """RFC 8935, section 2.3."""
    await end(issuer)
    receiver.answers = [(400, b'{"err":"invalid_key","description":"no such key"}')]
    delivery = delivery_of(issuer)
    await delivery.deliver_due()
    clock_of(issuer).advance(100_000)
    await delivery.deliver_due()
    assert len(receiver.attempts) == 1
    (event,) = await waiting(issuer)
    assert event.failure == "invalid_key: no such key"
    await delivery.prune()
    assert len(await waiting(issuer)) == 1
    clock_of(issuer).advance(40 * 86_400)
    await delivery.prune()
    assert await waiting(issuer) == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(
    issuer: Issuer, receiver: EventReceiver, status: int
) -> None:
    """R21: event and credential go to the operator's address, nowhere else."""
    await end(issuer)
    receiver.answers = [(status, b"")]
    await delivery_of(issuer).deliver_due()
    assert receiver.redirected == 0
    assert len(await waiting(issuer)) == 1


async def test_an_endpoint_that_is_away_is_tried_until_the_time_is_over(
    database_url: str,
) -> None:
    with running_receiver() as gone:
        pass
    async with composed(database_url, gone, caep_retry_for=14_400) as issuer:
        await end(issuer)
        began = clock_of(issuer).now
        delivery = delivery_of(issuer)
        attempts, delays = 0, []
        while (event := (await waiting(issuer))[0]).failed_at is None:
            clock_of(issuer).now_ms = event.next_attempt_at * 1_000
            await delivery.deliver_due()
            (later,) = await waiting(issuer)
            delays.append(later.next_attempt_at - clock_of(issuer).now)
            attempts += 1
        assert event.failure.startswith("nothing listens at that address and port")
        tried_for = clock_of(issuer).now - began
    assert 14_400 <= tried_for <= 15_300
    # Seldom enough for the receiver, often enough for a waiting caller.
    assert 20 < attempts < 50
    assert delays[0] <= 2 < delays[5]
    assert max(delays) <= 900


async def test_two_issuers_never_deliver_one_event_twice(
    database_url: str, receiver: EventReceiver
) -> None:
    async with (
        composed(database_url, receiver) as first,
        composed(database_url, receiver) as second,
    ):
        for number in range(60):
            await end(first, f"sid-{number}")
        for _ in range(3):
            # A round ends early when the others hold the rest.
            await asyncio.gather(
                *(delivery_of(one).deliver_due() for one in (first, second) * 2)
            )
        assert await waiting(first) == []
    assert len(receiver.attempts) == len(set(receiver.attempts)) == 60


async def test_an_event_claimed_by_a_process_that_died_is_sent_by_another(
    issuer: Issuer, receiver: EventReceiver
) -> None:
    await end(issuer)
    (endpoint,) = issuer.base.settings.caep_endpoints
    delivery = delivery_of(issuer)
    assert len(await delivery._claim(endpoint)) == 1
    await delivery.deliver_due()
    assert receiver.attempts == []
    clock_of(issuer).advance(60)
    await delivery.deliver_due()
    assert len(receiver.accepted) == 1


async def test_one_endpoint_that_is_away_does_not_hold_up_another(
    database_url: str, receiver: EventReceiver
) -> None:
    with running_receiver() as gone:
        pass
    setting = endpoint_setting(gone, receiver)
    settings = make_settings(database_url, caep_endpoints=setting)
    issuer = compose(settings, clock=FakeClock())
    receiver.jwks = await read_jwks(issuer)
    await end(issuer)
    await delivery_of(issuer).deliver_due()
    assert len(receiver.accepted) == 1
    (event,) = await waiting(issuer)
    assert event.endpoint == "r1"
    await issuer.close()


async def test_nothing_is_claimed_without_a_signing_key(issuer: Issuer) -> None:
    await end(issuer)
    async with issuer.base.database.write() as db:
        await db.execute(delete(SigningKey))
    issuer.keys.store.forget()
    with pytest.raises(UnavailableError):
        await delivery_of(issuer).deliver_due()
    (event,) = await waiting(issuer)
    assert event.attempts == 0


async def test_nothing_is_written_without_endpoints(database_url: str) -> None:
    async with running_issuer(make_settings(database_url)) as plain:
        await plain.issuer.sessions.logout.end_any("a-sid", Caller(), actor="system")
        assert len(await read_feed(plain)) == 1
        assert await waiting(plain.issuer) == []


# --- failures on the way -------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@contextmanager
def receiving(answer: Answer, tls: ssl.SSLContext | None) -> Iterator[EventReceiver]:
    """An endpoint of which nothing is asked but its answer."""

    def take(connection: socket.socket) -> None:
        # The event behind the head.
        connection.recv(65_536)
        answer(connection)

    with raw_server(take, tls) as server:
        yield EventReceiver(url=f"{server.url}/events")


async def attempt(
    url: str, receiver: EventReceiver, **changes: object
) -> tuple[SecurityEvent | None, dict[str, object]]:
    """Attempt one event; return the row that is left and the fields of the log line."""
    lines: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record)

    logger = logging.getLogger("issuer.exports.event_delivery")
    handler = Keep()
    logger.addHandler(handler)
    try:
        async with composed(url, receiver, **changes) as issuer:
            # A new one each time: a repeated revocation writes nothing.
            await end(issuer, sid=str(uuid.uuid4()))
            await delivery_of(issuer).deliver_due()
            left = await waiting(issuer)
    finally:
        logger.removeHandler(handler)
    fields = [record.__dict__["fields"] for record in lines]
    return (left[0] if left else None), (fields[0] if fields else {})


async def test_r59_an_endpoint_may_have_an_authority_of_its_own(
    database_url: str, authority: Authority, tmp_path: Path
) -> None:
    """A partner within the same company: no public authority signed its certificate."""
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.certificate)
    tls = authority.serve("127.0.0.1")
    taken = http(b"", status="202 Accepted")
    with receiving(saying(taken), tls) as receiver:
        left, _ = await attempt(database_url, receiver, ca_file=str(path))
        assert left is None
        left, line = await attempt(database_url, receiver)
    assert left is not None
    assert line["kind"] == "unknown_authority"
    assert line["setting"] == "ISSUER_CA_FILE"
    assert line["url"] == receiver.url


TOKEN_PAGE = f"<p>no: Authorization: Bearer {TOKEN}</p>\r\n".encode()


@pytest.mark.parametrize(
    ("answer", "kind", "setting", "message"),
    [
        (then_closing(), "closed_early", "", "the connection was closed"),
        (
            then_closing(b"SMTP here\r\n\r\n"),
            "not_http",
            "ISSUER_CAEP_ENDPOINTS",
            "the answer is not HTTP",
        ),
        (
            saying(http(TOKEN_PAGE, status="401 Unauthorized")),
            "status",
            "ISSUER_CAEP_ENDPOINTS",
            "status 401: <p>no: Authorization: Bearer [...]</p>\\r\\n",
        ),
        (saying(http(b"", status="503 Later")), "status", "", "status 503"),
        (
            saying(http(b"", "Location: https://x.test/?a=b", status="302 Found")),
            "redirect",
            "ISSUER_CAEP_ENDPOINTS",
            "status 302: to https://x.test/",
        ),
        (
            saying(http(b"no JSON", status="400 Bad")),
            "status",
            "",
            "status 400: no JSON",
        ),
    ],
    ids=["closed", "not HTTP", "401", "503", "redirect", "400 without an error"],
)
async def test_r59_a_failed_attempt_is_logged_with_its_kind_and_the_setting(
    database_url: str, answer: Answer, kind: str, setting: str, message: str
) -> None:
    with receiving(answer, None) as receiver:
        left, line = await attempt(database_url, receiver)
    assert left is not None
    assert (line["kind"], line["setting"]) == (kind, setting)
    assert str(line["told"]).startswith(message)
    assert TOKEN not in str(line)


async def test_an_authority_that_went_bad_after_the_start_fails_no_more_than_events(
    database_url: str, authority: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.certificate)
    with receiving(saying(http(b"", status="202 Accepted")), None) as receiver:
        async with composed(database_url, receiver, ca_file=str(path)) as issuer:
            path.write_text("half a fi")
            await end(issuer)
            await delivery_of(issuer).deliver_due()
            assert len(await waiting(issuer)) == 1
            path.write_bytes(authority.certificate)
            clock_of(issuer).advance(10)
            await delivery_of(issuer).deliver_due()
            assert await waiting(issuer) == []


def test_a_ca_file_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="cannot be read: No such file"):
        make_settings("sqlite://", ca_file=str(tmp_path / "away"))
