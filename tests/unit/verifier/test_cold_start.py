"""Killed and started again: the entries that a verifier has, and their age."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shared.feed import EntryKind, FeedError
from tests.support.cold_starts import VerifierHost, kill, offsets
from tests.support.gatehouse_verifier import SimulatedVerifier
from verifier.disk.copy_format import MARK_SIZE
from verifier.sync.fetch import FetchError

ALLOW_STALE = '[policies.lax]\non_stale = "allow"\n'


@pytest.fixture
def host(tmp_path: Path) -> VerifierHost:
    return VerifierHost(tmp_path / "state")


async def killed(host: VerifierHost, **options: object) -> SimulatedVerifier:
    """A verifier that had synced with one session revoked, and is no more."""
    verifier = await host.start(**options)
    host.issuer.revoke(EntryKind.SID, "dead")
    await verifier.sync()
    kill(verifier)
    return verifier


def statuses(verifier: SimulatedVerifier) -> tuple[int, int]:
    """Return the answers to a good token and to a revoked one."""
    mint = verifier.issuer.mint
    good, dead = mint(), mint(sid="dead")
    return verifier.check(good).status, verifier.check(dead).status


async def test_a_restart_without_the_issuer_answers_until_the_old_age_is_over(
    host: VerifierHost,
) -> None:
    await killed(host)
    host.issuer.is_down = True
    host.clock.advance(29)
    verifier = await host.start()
    assert statuses(verifier) == (200, 401)
    host.clock.advance(1)
    assert statuses(verifier) == (503, 503)


async def test_restart_continues_from_its_position_and_names_the_replaced_process(
    host: VerifierHost,
) -> None:
    old = await killed(host)
    verifier = await host.start()
    assert (verifier.feed.epoch, verifier.feed.position) == (host.issuer.epoch, 1)
    assert verifier.feed.replaces == (old.copy.identity.follower,)
    host.issuer.fetches.clear()
    await verifier.feed.step()
    assert "after=1" in host.issuer.fetches[0]
    assert verifier.feed.replaces == ()


async def test_second_restart_names_both_replaced_processes(
    host: VerifierHost,
) -> None:
    first = await killed(host)
    second = await host.start()
    kill(second)
    third = await host.start()
    assert third.feed.replaces == (
        second.copy.identity.follower,
        first.copy.identity.follower,
    )
    assert len(host.copies()) == 1


async def test_a_kill_between_entries_and_mark_keeps_the_entries(
    host: VerifierHost,
) -> None:
    """Nothing of them was acknowledged; the age is of before them, and true."""
    verifier = await host.start()
    await verifier.sync()
    host.issuer.revoke(EntryKind.SID, "dead")
    verifier.copy.write_entries(host.issuer.entries)
    kill(verifier)
    again = await host.start()
    assert again.feed.position == 0
    assert statuses(again) == (200, 401)


async def test_an_age_from_the_future_counts_for_nothing(host: VerifierHost) -> None:
    await killed(host)
    host.clock.advance(-20)
    assert statuses(await host.start()) == (503, 503)


async def test_an_answer_that_was_not_complete_gives_no_age(host: VerifierHost) -> None:
    verifier = await host.start()
    await verifier.sync()
    host.clock.advance(20)
    host.issuer.page_limit = 1
    host.issuer.revoke(EntryKind.SID, "dead")
    host.issuer.revoke(EntryKind.SID, "deader")
    await verifier.feed.step()
    kill(verifier)
    again = await host.start()
    assert again.feed.position == 1
    assert statuses(again) == (200, 401)
    host.clock.advance(10)
    assert statuses(again) == (503, 503)


async def copy_elsewhere(host: VerifierHost) -> None:
    (path,) = host.copies()
    shutil.copy2(path, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


async def cut_off_within_a_record(host: VerifierHost) -> None:
    (path,) = host.copies()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


async def cut_off_behind_a_record(host: VerifierHost) -> None:
    (path,) = host.copies()
    with path.open("r+b") as file:
        file.truncate(offsets(path)[-2])


async def append_rubbish(host: VerifierHost) -> None:
    (path,) = host.copies()
    with path.open("ab") as file:
        file.write(b"\0" * 50)


async def flip_a_bit_of_the_mark(host: VerifierHost) -> None:
    (path,) = host.copies()
    with path.open("r+b") as file:
        file.seek(MARK_SIZE - 40)
        byte = file.read(1)
        file.seek(MARK_SIZE - 40)
        file.write(bytes([byte[0] ^ 1]))


DAMAGES = [
    cut_off_within_a_record,
    cut_off_behind_a_record,
    append_rubbish,
    flip_a_bit_of_the_mark,
]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_copy_has_entries_and_no_age(
    host: VerifierHost, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    await killed(host)
    await damage(host)  # type: ignore[operator]  # a function of the list above
    host.issuer.is_down = True
    verifier = await host.start()
    assert statuses(verifier) == (503, 503)
    assert "copy.damaged" in caplog.messages
    assert len(verifier.trust.snapshot.own.revocations) == 1
    assert verifier.feed.replaces == ()
    host.issuer.is_down = False
    await verifier.sync()
    assert statuses(verifier) == (200, 401)
    kill(verifier)
    assert len(host.copies()) == 1
    assert statuses(await host.start()) == (200, 401)


@pytest.mark.parametrize("how", ["another boot", "a copied file"])
async def test_elsewhere_entries_and_keys_count_and_the_age_does_not(
    host: VerifierHost, how: str
) -> None:
    await killed(host)
    if how == "a copied file":
        await copy_elsewhere(host)
    host.issuer.is_down = True
    boot = "another boot" if how == "another boot" else "one boot"
    verifier = await host.start(boot=boot, policies=ALLOW_STALE)
    assert verifier.feed.replaces == ()
    assert statuses(verifier) == (503, 503)
    lax = b"/verify/nginx/p/lax"
    mint = host.issuer.mint
    assert verifier.check(mint(), target=lax).status == 200
    assert verifier.check(mint(sid="dead"), target=lax).status == 401


async def test_only_new_ages_count_after_a_reboot(host: VerifierHost) -> None:
    """The file goes on under another boot; an age of the old one must not come back."""
    await killed(host)
    for boot in ("second boot", "second boot", "one boot"):
        verifier = await host.start(boot=boot)
        assert statuses(verifier) == (503, 503)
        assert verifier.trust.snapshot.own.fresh_until == 0.0
        kill(verifier)


@pytest.mark.parametrize("how", ["another boot", "a copied file"])
async def test_kept_keys_outlive_a_second_restart_elsewhere(
    host: VerifierHost, how: str
) -> None:
    """With the age they have had all along."""
    await killed(host, keys_max_age=1_000)
    if how == "a copied file":
        await copy_elsewhere(host)
    lax = b"/verify/nginx/p/lax"
    for number in range(3):
        host.clock.advance(300)
        boot = f"boot {number}" if how == "another boot" else "one boot"
        verifier = await host.start(boot=boot, keys_max_age=1_000, policies=ALLOW_STALE)
        assert verifier.check(host.issuer.mint(), target=lax).status == 200
        kill(verifier)
    host.clock.advance(100)
    verifier = await host.start(keys_max_age=1_000, policies=ALLOW_STALE)
    assert verifier.check(host.issuer.mint(), target=lax).status == 503


async def test_no_age_counts_for_an_unknown_boot(host: VerifierHost) -> None:
    await killed(host, boot="")
    assert statuses(await host.start(boot="")) == (503, 503)


async def test_a_copy_of_another_issuer_or_feed_token_is_left_alone(
    host: VerifierHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await killed(host)
    verifier = SimulatedVerifier(host.clock, host.issuer)
    for identity in (
        verifier.copy.identity._replace(issuer="https://other.test"),
        verifier.copy.identity._replace(key=b"k" * 32),
    ):
        other = SimulatedVerifier(host.clock, host.issuer)
        other.copy.identity = identity
        await other.start_from(host.state_dir)
        assert len(other.trust.snapshot.own.revocations) == 0
        assert other.feed.epoch is None
        kill(other)
    assert caplog.messages.count("copy.not_ours") >= 2
    assert statuses(await host.start()) == (200, 401)


async def test_entries_of_a_living_writer_count_and_its_age_does_not(
    host: VerifierHost,
) -> None:
    """Its row covers it alone: it may acknowledge entries the reader never gets."""
    living = await host.start(workers=2)
    host.issuer.revoke(EntryKind.SID, "dead")
    await living.sync()
    reader = await host.start(workers=2)
    assert len(reader.trust.snapshot.own.revocations) == 1
    assert statuses(reader) == (503, 503)
    assert (reader.feed.epoch, reader.feed.replaces) == (None, ())
    assert len(host.copies()) == 2


async def test_each_worker_takes_over_one_copy_and_the_first_takes_the_rest(
    host: VerifierHost,
) -> None:
    crowd = [await host.start(workers=4) for _ in range(4)]
    for verifier in crowd:
        await verifier.sync()
    for verifier in crowd:
        kill(verifier)
    pair = [await host.start(workers=2) for _ in range(2)]
    assert [len(verifier.feed.replaces) for verifier in pair] == [3, 1]
    assert {id_ for v in pair for id_ in v.feed.replaces} == {
        v.copy.identity.follower for v in crowd
    }
    assert [statuses(verifier)[0] for verifier in pair] == [200, 200]
    assert len(host.copies()) == 2


async def test_successor_of_two_writers_has_the_entries_of_both(
    host: VerifierHost,
) -> None:
    first = await host.start(workers=2)
    second = await host.start(workers=2)
    host.issuer.revoke(EntryKind.SID, "dead")
    await first.sync()
    host.issuer.restore_backup(0)
    host.clock.advance(1)
    await second.sync()
    kill(first)
    kill(second)
    verifier = await host.start()
    assert statuses(verifier) == (200, 401)
    kill(verifier)
    assert statuses(await host.start()) == (200, 401)


@pytest.mark.parametrize(("old", "new"), [(30, 60), (60, 30)])
async def test_an_age_counts_by_the_smaller_of_both_bounds(
    host: VerifierHost, old: int, new: int
) -> None:
    """The issuer waits for the old process no longer than that one's bound."""
    await killed(host, max_staleness=old)
    verifier = await host.start(max_staleness=new)
    host.clock.advance(29)
    assert statuses(verifier)[0] == 200
    host.clock.advance(1)
    assert statuses(verifier)[0] == 503


async def test_staleness_bound_stays_with_the_age_it_was_sent_for(
    host: VerifierHost,
) -> None:
    """Also when a process with a greater one was there in between and sent nothing."""
    await killed(host, max_staleness=30)
    kill(await host.start(max_staleness=60))
    verifier = await host.start(max_staleness=60)
    host.clock.advance(30)
    assert statuses(verifier)[0] == 503


@pytest.mark.parametrize("answers", [0, 1])
async def test_age_counts_by_the_smallest_bound_of_all_that_had_the_copy(
    host: VerifierHost, answers: int
) -> None:
    """Its first request ends the lease of the one before it, answered or not. From then
    on the issuer waits by its bound only, also for a successor.
    """
    await killed(host, max_staleness=60)
    between = await host.start(max_staleness=13)
    for _ in range(answers):
        await between.feed.step()
    kill(between)
    verifier = await host.start(max_staleness=60)
    host.clock.advance(12)
    assert statuses(verifier)[0] == 200
    host.clock.advance(1)
    assert statuses(verifier)[0] == 503


@pytest.mark.parametrize("boot", ["one boot", "another boot"])
async def test_kept_keys_obey_their_age_limit(host: VerifierHost, boot: str) -> None:
    await killed(host, keys_max_age=1_000)
    host.clock.advance(990)
    verifier = await host.start(boot=boot, keys_max_age=1_000, policies=ALLOW_STALE)
    token, lax = host.issuer.mint(), b"/verify/nginx/p/lax"
    assert verifier.check(token, target=lax).status == 200
    host.clock.advance(10)
    assert verifier.check(token, target=lax).status == 503


@pytest.mark.parametrize(("error", "status"), [(60, 200), (3_600, 503)])
async def test_keys_that_a_clock_ahead_dated_are_not_taken_for_new(
    host: VerifierHost, error: int, status: int
) -> None:
    """R53: after another boot their age is that of the wall clock, and it is
    negative.
    """
    host.clock.set_by(error)
    await killed(host, keys_max_age=1_000)
    host.clock.set_by(-error)
    lax = {"boot": "another boot", "policies": ALLOW_STALE}
    verifier = await host.start(keys_max_age=1_000, **lax)
    token = host.issuer.mint()
    assert verifier.check(token, target=b"/verify/nginx/p/lax").status == status


async def test_a_new_epoch_keeps_the_union_over_a_restart(host: VerifierHost) -> None:
    verifier = await host.start()
    host.issuer.revoke(EntryKind.SID, "dead")
    await verifier.sync()
    host.issuer.restore_backup(0)
    await verifier.feed.step()
    assert verifier.feed.epoch == host.issuer.epoch
    kill(verifier)
    verifier = await host.start()
    assert verifier.feed.epoch == host.issuer.epoch
    assert statuses(verifier) == (200, 401)


async def lax_statuses(verifier: SimulatedVerifier) -> tuple[int, int]:
    """Ask a route with a policy for old lists: a good token, and a revoked one."""
    lax = b"/verify/nginx/p/lax"
    good, dead = verifier.issuer.mint(), verifier.issuer.mint(sid="dead")
    return (
        verifier.check(good, target=lax).status,
        verifier.check(dead, target=lax).status,
    )


async def test_missing_list_does_not_count_as_an_old_list(host: VerifierHost) -> None:
    """Issue 10: `on_stale = "allow"` passed revoked tokens at a first start."""
    host.issuer.revoke(EntryKind.SID, "dead")
    verifier = await host.start(policies=ALLOW_STALE)
    await verifier.keys.step()
    assert await lax_statuses(verifier) == (503, 503)
    await verifier.feed.step()
    host.clock.advance(40)
    assert await lax_statuses(verifier) == (200, 401)


async def test_a_wrong_feed_token_opens_no_route(host: VerifierHost) -> None:
    host.issuer.revoke(EntryKind.SID, "dead")
    verifier = await host.start(policies=ALLOW_STALE)
    verifier.feed._source = verifier.feed._source._replace(token="wrong")
    await verifier.keys.step()
    with pytest.raises(FetchError, match="401"):
        await verifier.feed.step()
    assert await lax_statuses(verifier) == (503, 503)


@pytest.mark.parametrize("is_killed", [False, True])
async def test_half_a_snapshot_is_no_old_list(
    host: VerifierHost, is_killed: bool
) -> None:
    """Nor after a restart: entries of it are on disk, a position is not."""
    for n in range(6):
        host.issuer.revoke(EntryKind.SID, f"s-{n}")
    host.issuer.revoke(EntryKind.SID, "dead")
    host.issuer.knows_lines, host.issuer.page_limit = True, 2
    host.issuer.lie_lines = lambda lines: lines[:2]
    verifier = await host.start(policies=ALLOW_STALE)
    await verifier.keys.step()
    with pytest.raises(FeedError, match="not whole"):
        await verifier.feed.step()
    assert len(verifier.trust.snapshot.own.revocations) == 4
    if is_killed:
        kill(verifier)
        verifier = await host.start(policies=ALLOW_STALE)
        assert len(verifier.trust.snapshot.own.revocations) == 4
    assert await lax_statuses(verifier) == (503, 503)
    host.issuer.lie_lines = None
    await verifier.feed.step()
    host.clock.advance(40)
    assert await lax_statuses(verifier) == (200, 401)


async def test_a_kept_list_of_any_age_is_an_old_list(host: VerifierHost) -> None:
    await killed(host)
    host.issuer.is_down = True
    host.clock.advance(500)
    assert await lax_statuses(await host.start(policies=ALLOW_STALE)) == (200, 401)
