"""A next key signs once every verifier that follows the feed has it, or is gone."""

from __future__ import annotations

from issuer.keys.key_changes import MAX_AGE, KeyChange
from tests.support.following import FakeVerifier
from tests.support.issuer_harness import IssuerHarness

JWKS = "/.well-known/jwks.json"


class KeyFollower(FakeVerifier):
    """A verifier that also fetches keys, and reports the ones it has."""

    etag = ""

    async def fetch_keys(self) -> int:
        """Ask for the keys and return the status; 200 brings new ones."""
        headers = {"Gatehouse-Follower": self.id}
        if self.etag:
            headers["If-None-Match"] = self.etag
        answer = await self.issuer.client.get(JWKS, headers=headers)
        self.etag = answer.headers["ETag"]
        await self.issuer.issuer.keys.reports.write()
        return answer.status_code

    async def have_keys(self) -> None:
        """Fetch them, and show that we have them."""
        await self.fetch_keys()
        assert await self.fetch_keys() == 304


async def publish(issuer: IssuerHarness) -> None:
    """Publish a next key, and let everything but the verifiers be due."""
    assert (await issuer.issuer.keys.rotation.rotate(actor="system")).publish
    issuer.clock.advance(issuer.settings.key_publish_ahead)


async def look(issuer: IssuerHarness) -> KeyChange:
    return await issuer.issuer.keys.rotation.keep_schedule()


async def test_a_next_key_waits_for_the_last_verifier(issuer: IssuerHarness) -> None:
    one, other = KeyFollower(issuer), KeyFollower(issuer)
    for verifier in (one, other):
        await verifier.catch_up()
        await verifier.have_keys()
    await publish(issuer)
    issuer.clock.advance(10 * MAX_AGE)
    await one.have_keys()
    assert await look(issuer) == KeyChange()
    await other.have_keys()
    assert (await look(issuer)).activate


async def test_sent_keys_do_not_count_as_received(issuer: IssuerHarness) -> None:
    """The answer may be lost: only the next request shows that it was not."""
    verifier = KeyFollower(issuer)
    await verifier.catch_up()
    await verifier.have_keys()
    await publish(issuer)
    assert await verifier.fetch_keys() == 200
    assert await look(issuer) == KeyChange()
    assert await verifier.fetch_keys() == 304
    assert (await look(issuer)).activate


async def test_having_it_early_does_not_shorten_the_time_of_others(
    issuer: IssuerHarness,
) -> None:
    verifier = KeyFollower(issuer)
    await verifier.catch_up()
    await issuer.issuer.keys.rotation.rotate(actor="system")
    await verifier.have_keys()
    issuer.clock.advance(issuer.settings.key_publish_ahead - 1)
    assert await look(issuer) == KeyChange()
    issuer.clock.advance(1)
    assert (await look(issuer)).activate


async def test_a_verifier_that_reports_no_keys_is_counted_by_time(
    issuer: IssuerHarness,
) -> None:
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    await publish(issuer)
    issuer.clock.advance(MAX_AGE - 1)
    await verifier.follow()
    assert await look(issuer) == KeyChange()
    issuer.clock.advance(1)
    await verifier.follow()
    assert (await look(issuer)).activate


async def test_a_verifier_that_is_gone_is_not_waited_for(issuer: IssuerHarness) -> None:
    verifier = KeyFollower(issuer)
    await verifier.catch_up()
    await verifier.have_keys()
    lease_watch = issuer.issuer.feed.lease_watch
    await lease_watch.look()
    await publish(issuer)
    await lease_watch.look()
    assert (await look(issuer)).activate


async def test_a_stranger_leaves_no_trace(issuer: IssuerHarness) -> None:
    """A process without a row among the feed's followers is not waited for."""
    stranger = KeyFollower(issuer)
    await stranger.fetch_keys()
    for id in ("x", "'; DROP TABLE followers", "A" * 36):
        issuer.issuer.keys.reports.note(id, "")
    await issuer.issuer.keys.reports.write()
    await publish(issuer)
    assert (await look(issuer)).activate


async def test_an_immediate_rotation_does_not_wait_for_verifiers(
    issuer: IssuerHarness,
) -> None:
    verifier = KeyFollower(issuer)
    await verifier.catch_up()
    await verifier.have_keys()
    change = await issuer.issuer.keys.rotation.rotate(actor="x", is_immediate=True)
    assert change.activate


async def test_operators_see_followers_that_are_behind(issuer: IssuerHarness) -> None:
    verifier = KeyFollower(issuer)
    await verifier.catch_up()
    await verifier.have_keys()
    await publish(issuer)
    await verifier.fetch_keys()
    await look(issuer)
    metrics = (await issuer.operators.get("/metrics")).text
    assert 'gatehouse_issuer_key_followers{state="behind"} 1.0' in metrics
    ahead = float(issuer.settings.key_publish_ahead)
    line = f'gatehouse_issuer_signing_key_age_seconds{{state="next"}} {ahead}'
    assert line in metrics
