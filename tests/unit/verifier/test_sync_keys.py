"""The verification keys are kept true: refreshed, never lost, never asked for too
often.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from shared.feed import EntryKind
from shared.jose.verification_keys import JwksError
from tests.support.gatehouse_verifier import is_requested, started, unstarted
from tests.support.issuer_simulator import (
    IssuerSimulator,
    Recorder,
    answering,
    truncated,
)
from tests.support.tokens import signing_key
from verifier.sync.fetch import Fetched, FetchError
from verifier.sync.keys import MAX_JWKS_BYTES, PERIOD, REPEAT_AFTER


async def test_keys_are_fetched_and_last_until_their_age_limit() -> None:
    verifier = unstarted(keys_max_age=500)
    await verifier.keys.step()
    snapshot = verifier.trust.snapshot
    assert set(snapshot.own.keys.keys) == {signing_key().kid}
    assert snapshot.own.keys_until == verifier.clock.monotonic() + 500
    assert verifier.keys.status.last_success == verifier.clock.monotonic()


async def test_keys_that_did_not_change_cost_a_304() -> None:
    verifier = unstarted(keys_max_age=500)
    recorder = Recorder(verifier.issuer)
    verifier.keys._fetch = recorder.fetch
    await verifier.keys.step()
    keys = verifier.trust.snapshot.own.keys
    verifier.clock.advance(100)
    await verifier.keys.step()
    assert "If-None-Match" in recorder.headers[1]
    assert verifier.trust.snapshot.own.keys is keys
    assert verifier.trust.snapshot.own.keys_until == verifier.clock.monotonic() + 500


async def test_follower_sends_its_id_and_soon_the_etag_of_its_keys() -> None:
    """By these two headers the issuer learns that a next key may sign."""
    verifier = unstarted()
    recorder = Recorder(verifier.issuer)
    verifier.keys._fetch = recorder.fetch
    verifier.keys.source = verifier.keys.source._replace(
        follower_id="b6a4c2a5-0a51-4a39-9d5c-1d8d3a4b5c6d"
    )
    await verifier.keys.step()
    assert verifier.keys.period == PERIOD[0], "news is confirmed soon"
    await verifier.keys.step()
    assert verifier.keys.period > PERIOD[0]
    ids = {headers["Gatehouse-Follower"] for headers in recorder.headers}
    assert ids == {"b6a4c2a5-0a51-4a39-9d5c-1d8d3a4b5c6d"}
    assert "If-None-Match" in recorder.headers[1]


@pytest.mark.parametrize("etag", ['"\xe9"', '"\u20ac"', '"' + "a" * 5_000 + '"', "\t"])
async def test_etag_that_cannot_be_sent_back_is_none(etag: str) -> None:
    """An HTTP client raises for it, so no request would be sent any more."""
    verifier = unstarted()
    verifier.issuer.lie = lambda answer: answer._replace(headers={"etag": etag})
    await verifier.keys.step()
    recorder = Recorder(verifier.issuer)
    verifier.keys._fetch = recorder.fetch
    await verifier.keys.step()
    assert "If-None-Match" not in recorder.headers[0]


async def test_unrequested_304_is_an_error() -> None:
    verifier = unstarted()
    verifier.issuer.lie = answering(304)
    with pytest.raises(FetchError, match="304") as caught:
        await verifier.keys.step()
    assert caught.value.kind == "status", "no redirect, which would have an address"
    assert verifier.trust.snapshot.own.keys_until == 0.0


async def test_the_same_keys_written_otherwise_are_the_same_set() -> None:
    """So the facts in the cache stay."""
    verifier = await started()
    keys = verifier.trust.snapshot.own.keys
    document = {
        "note": "x",
        "keys": [key.jwk.to_wire() for key in verifier.issuer.keys],
    }
    verifier.issuer.jwks_answer = orjson.dumps(document)
    await verifier.keys.step()
    assert verifier.trust.snapshot.own.keys is keys


async def test_rotation_and_withdrawal_are_followed() -> None:
    verifier = await started()
    old = verifier.issuer.keys[0]
    new = verifier.issuer.rotate("second")
    await verifier.keys.step()
    assert set(verifier.trust.snapshot.own.keys.keys) == {old.kid, new.kid}
    verifier.issuer.withdraw(old)
    await verifier.keys.step()
    assert set(verifier.trust.snapshot.own.keys.keys) == {new.kid}


PRIVATE = {**signing_key().jwk.to_wire(), "d": "AQAB"}


def be_down(issuer: IssuerSimulator) -> None:
    issuer.is_down = True


def answer_with(body: bytes) -> Callable[[IssuerSimulator], None]:
    def change(issuer: IssuerSimulator) -> None:
        issuer.jwks_answer = body

    return change


def lie_with(lie: Callable[[Fetched], Fetched]) -> Callable[[IssuerSimulator], None]:
    def change(issuer: IssuerSimulator) -> None:
        issuer.jwks_answer = b'{"keys":[]}'  # so that no 304 comes first
        issuer.lie = lie

    return change


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(be_down, id="down"),
        pytest.param(answer_with(b'{"keys":[]}'), id="empty set"),
        pytest.param(answer_with(b"{}"), id="no set"),
        pytest.param(answer_with(b"<html>ok</html>"), id="HTML"),
        pytest.param(answer_with(b'{"keys":[{"kty":"EC"}]}'), id="no usable key"),
        pytest.param(
            answer_with(orjson.dumps({"keys": [PRIVATE]})), id="a private member"
        ),
        pytest.param(answer_with(b"{" * (MAX_JWKS_BYTES + 1)), id="too large"),
        *(
            pytest.param(lie_with(answering(s)), id=f"{s}")
            for s in (201, 204, 301, 302, 401, 404, 429, 500, 503)
        ),
        pytest.param(lie_with(truncated), id="truncated"),
    ],
)
async def test_cve_2024_45809_keys_stay_when_their_refresh_fails(
    trouble: Callable[[IssuerSimulator], None],
) -> None:
    """R20: PyJWT emptied its cache; ours ends by age alone."""
    verifier = await started()
    token = verifier.issuer.mint()
    before = verifier.trust.snapshot
    verifier.clock.advance(5)
    trouble(verifier.issuer)
    for _ in range(3):
        with pytest.raises((FetchError, JwksError)):
            await verifier.keys.step()
    assert verifier.trust.snapshot is before
    assert verifier.check(token).status == 200


@pytest.mark.parametrize(
    ("cache_control", "period"),
    [
        ("public, max-age=60", 60.0),
        ("max-age=60", 60.0),
        ("max-age=60, public", 60.0),
        ("public,max-age=60", 60.0),
        ("max-age=0", 5.0),
        ("max-age=1", 5.0),
        ("max-age=86400", 300.0),
        ("max-age=999999999", 300.0),
        ("max-age=9999999999", 300.0),
        ("s-maxage=60", 300.0),
        ("x-max-age=60", 300.0),
        ("max-age=-1", 300.0),
        ("max-age=1e3", 300.0),
        ("max-age=٦٠", 300.0),
        ("no-store", 300.0),
        ("", 300.0),
    ],
)
async def test_the_period_follows_max_age_within_bounds(
    cache_control: str, period: float
) -> None:
    verifier = unstarted()
    headers = {"cache-control": cache_control} if cache_control else {}
    verifier.issuer.lie = lambda answer: answer._replace(headers=headers)
    assert verifier.keys.period == PERIOD[0]
    await verifier.keys.step()
    assert verifier.keys.period == period


async def test_cve_2026_48524_the_cool_down_is_claimed_before_the_fetch() -> None:
    """R19: and kept when the fetch fails, so a failing issuer is not asked per
    token.
    """
    verifier = await started()
    verifier.issuer.is_down = True
    now = verifier.clock.monotonic()
    verifier.keys.request(now)
    verifier.keys.request(now)
    assert await is_requested(verifier.keys)
    with pytest.raises(FetchError):
        await verifier.keys.step()
    for later in (0.0, 5.0, 9.999):
        verifier.keys.request(now + later)
        assert not await is_requested(verifier.keys)
    verifier.keys.request(now + 10)
    assert await is_requested(verifier.keys)


async def test_revoked_key_brings_the_next_one_without_a_wait() -> None:
    """The first token under the next key would be refused, perhaps for 5 minutes."""
    verifier = await started()
    verifier.issuer.revoke(EntryKind.SID, "a")
    await verifier.feed.step()
    assert not await is_requested(verifier.keys)
    verifier.issuer.revoke(EntryKind.KID, signing_key().kid)
    await verifier.feed.step()
    assert await is_requested(verifier.keys)
    verifier.keys.request(verifier.clock.monotonic())
    assert await is_requested(verifier.keys), "the cool-down is for requests alone"


async def test_requested_refresh_without_news_is_repeated_once() -> None:
    """Another worker of the issuer may answer with keys that are a second old."""
    verifier = await started()
    await verifier.keys.step()
    usual = verifier.keys.period
    verifier.keys.request(verifier.clock.monotonic())
    await verifier.keys.step()
    assert verifier.keys.period == REPEAT_AFTER
    await verifier.keys.step()
    assert verifier.keys.period == usual
    verifier.keys.request(verifier.clock.monotonic() + 10)
    verifier.issuer.rotate("next")
    await verifier.keys.step()
    assert verifier.keys.period == usual, "news is not repeated"


async def test_keys_are_asked_for_well_before_they_are_too_old() -> None:
    """An issuer that sends no max-age was asked every 300 s, and its keys were too old
    after 60.
    """
    verifier = unstarted(keys_max_age=60)
    verifier.issuer.lie = lambda answer: answer._replace(headers={})
    await verifier.keys.step()
    assert verifier.keys.period == 20


async def test_a_wait_without_a_wish_ends_with_its_period() -> None:
    verifier = unstarted()
    await verifier.keys.wait(0.0)
    assert not await is_requested(verifier.keys)
