"""Workers of a HAProxy that are followed no more, or cannot be reached."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from shared.feed import EntryKind
from tests.support.haproxy_sites import STALENESS, GatewaysSite, until
from tests.support.tokens import signing_key
from verifier.native.haproxy import gateways as gateways_module
from verifier.native.haproxy import master
from verifier.native.haproxy.process import HaproxyProcess


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> GatewaysSite:
    monkeypatch.setattr(gateways_module, "LOOK_EVERY", 0.05)
    return GatewaysSite(folder)


def test_stopped_worker_keeps_a_revocation_pending_until_it_goes_on(
    site: GatewaysSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master, "ANSWER_TIME", 0.05)

    async def story() -> None:
        async with site.running():
            await site.open()
            stopped = site.haproxy.current
            site.haproxy.reload()
            await until(lambda: len(site.gateways.writers) == 2)
            await site.in_force_everywhere()
            stopped.runs.clear()
            site.revoke_session("b")
            # The other one has it all the same.
            await until(lambda: site.haproxy.current.find("sessions", "b") is not None)
            await until(
                lambda: any(w.last_error for w in site.gateways.writers.values())
            )
            await until(lambda: site.in_force.position("e") == 1)
            # It may go on by the clock of before.
            site.clock.advance(2 * STALENESS)
            site.renew()
            await asyncio.sleep(0.2)
            assert site.in_force.position("e") == 1
            stopped.runs.set()
            await site.in_force_everywhere()
            assert stopped.find("sessions", "b")

    asyncio.run(story())


def test_worker_that_the_kernel_does_not_have_is_waited_for_no_more(
    site: GatewaysSite,
) -> None:
    """As when the master was killed: its workers end, and no master says so."""

    async def story() -> None:
        program = await asyncio.create_subprocess_exec("sleep", "60")
        # The one that listens is this process.
        site.haproxy.master = os.getpid()
        site.haproxy.current = site.haproxy.new_worker(program.pid)
        async with site.running():
            await site.open()
            await site.haproxy.stop()
            site.revoke_session("b")
            await asyncio.sleep(0.1)
            await until(lambda: site.in_force.position("e") == 1)
            program.kill()
            await program.wait()
            await site.in_force_everywhere()
            assert site.gateways.writers == {}

    asyncio.run(story())


def test_workers_of_another_haproxy_say_nothing_of_those_before(
    site: GatewaysSite,
) -> None:
    async def story() -> None:
        async with site.running():
            await site.open()
            site.haproxy.master = 200
            site.haproxy.current = site.haproxy.new_worker()
            site.haproxy.end_connections()
            site.revoke_session("b")
            newest = site.haproxy.current
            await until(lambda: newest.find("sessions", "b") is not None)
            await until(lambda: site.in_force.position("e") == 1)
            site.clock.advance(STALENESS)
            await site.in_force_everywhere()

    asyncio.run(story())


def test_worker_that_was_abandoned_is_left_until_it_ends(
    site: GatewaysSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master, "ANSWER_TIME", 0.05)

    async def story() -> None:
        async with site.running():
            site.revoke(EntryKind.USER, "u", 1)
            await until(lambda: len(site.gateways.writers) == 1)
            await site.in_force_everywhere()
            worker = site.haproxy.current
            worker.runs.clear()
            site.revoke(EntryKind.USER, "u", 2)
            (writer,) = site.gateways.writers.values()
            await until(lambda: bool(writer.last_error))
            site.haproxy.reload()
            newest = site.haproxy.current
            await until(lambda: newest.find("minimums", "u") == "2")
            await until(lambda: len(site.gateways.writers) == 1)
            worker.runs.set()
            await until(lambda: site.in_force.position("e") == 1)
            site.haproxy.old.clear()
            await site.in_force_everywhere()

    asyncio.run(story())


def test_current_worker_that_was_abandoned_is_replaced_by_a_reload(
    site: GatewaysSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that failed ended the connection that owed the answer; the worker goes
    on, and would have stayed closed.
    """
    monkeypatch.setattr(master, "ANSWER_TIME", 0.05)

    async def story() -> None:
        async with site.running():
            site.revoke(EntryKind.USER, "u", 1)
            await until(lambda: len(site.gateways.writers) == 1)
            await site.in_force_everywhere()
            worker = site.haproxy.current
            worker.runs.clear()
            site.revoke(EntryKind.USER, "u", 2)
            (writer,) = site.gateways.writers.values()
            await until(lambda: bool(writer.last_error))
            reload = site.haproxy.reload
            # Its first reload fails, too, and so does ours.
            site.haproxy.reload = site.haproxy.end_connections  # type: ignore[method-assign]
            site.haproxy.reload()
            worker.runs.set()
            await until(lambda: f"worker {worker.pid}:" in site.gateways.last_error)
            await until(lambda: site.haproxy.reloads == 1)
            site.haproxy.reload = reload  # type: ignore[method-assign]
            await until(lambda: site.haproxy.current is not worker)
            newest = site.haproxy.current
            await until(lambda: newest.find("minimums", "u") == "2")
            await until(lambda: newest.window is not None)
            await until(lambda: site.gateways.last_error == "")

    monkeypatch.setattr(gateways_module, "_LONGEST_CLOSED", 0.2)
    asyncio.run(story())


def test_name_of_a_process_may_be_any_bytes(tmp_path: Path) -> None:
    """A process that took the id of a worker that has ended (proc(5))."""
    program = tmp_path.as_posix().encode() + b"/\xff) x"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            started = gateways_module._start_time(process.pid)
            assert started is not None
            assert started.isdigit()
        finally:
            process.kill()


def test_no_more_workers_than_the_master_takes_connections(site: GatewaysSite) -> None:
    async def story() -> None:
        for _ in range(10):
            site.haproxy.reload()
        async with site.running():
            most = gateways_module.MAX_WORKERS
            await until(lambda: len(site.gateways.writers) == most)
            # A further reload: the newest is followed in place of an older one.
            site.haproxy.reload()
            newest = site.haproxy.current
            await until(lambda: newest.window is not None)
            assert len(site.gateways.writers) == most

    asyncio.run(story())


def test_stopped_worker_that_is_left_for_newer_ones_counts_until_it_has_all(
    site: GatewaysSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master, "ANSWER_TIME", 0.05)

    async def story() -> None:
        async with site.running():
            await site.open()
            stopped = site.haproxy.current
            stopped.runs.clear()
            site.revoke_session("b")
            (writer,) = site.gateways.writers.values()
            await until(lambda: bool(writer.last_error))
            for _ in range(gateways_module.MAX_WORKERS):
                site.haproxy.old.append(site.haproxy.new_worker())
            site.haproxy.old.append(site.haproxy.current)
            site.haproxy.current = site.haproxy.new_worker()
            newest = site.haproxy.current
            await until(lambda: newest.find("sessions", "b") is not None)
            site.clock.advance(2 * STALENESS)
            site.renew()
            await asyncio.sleep(0.2)
            assert site.in_force.position("e") == 1
            # There is room for it again.
            site.haproxy.old = [stopped]
            stopped.runs.set()
            await site.in_force_everywhere()
            assert stopped.find("sessions", "b")

    asyncio.run(story())


async def until_raising(site: GatewaysSite, users: Sequence[str]) -> HaproxyProcess:
    """Stop the worker while it is to raise the minimum of users; return its process."""
    for user in users:
        site.revoke(EntryKind.USER, user, 1)
    await until(lambda: len(site.gateways.writers) == 1)
    await site.in_force_everywhere()
    site.haproxy.current.runs.clear()
    for user in users:
        site.revoke(EntryKind.USER, user, 2)
    (followed,) = site.gateways._followed.values()
    await until(followed.process.raising.locked)
    return followed.process


# With several, the writer waits for its turn during the reload, and its connection has
# ended then.
@pytest.mark.parametrize("users", [["u"], ["u", "v", "w", "x", "y"]], ids=len)
def test_reload_waits_for_a_command_that_must_not_come_late(
    site: GatewaysSite, monkeypatch: pytest.MonkeyPatch, users: list[str]
) -> None:
    """One that fails ends the connections, and the worker would be abandoned."""

    async def story() -> None:
        async with site.running():
            process = await until_raising(site, users)
            worker = site.haproxy.current
            site.haproxy.reload = site.haproxy.end_connections  # type: ignore[method-assign]
            site.trust_keys(signing_key("second"))
            # Time for the reload to wait for the lock.
            await asyncio.sleep(0.3)
            assert site.haproxy.reloads == 0
            worker.runs.set()
            await until(lambda: site.haproxy.reloads == 1)
            await site.in_force_everywhere()
            assert not process.is_abandoned
            assert all(worker.find("minimums", user) == "2" for user in users)

    monkeypatch.setattr(gateways_module, "_QUIET", 60.0)
    asyncio.run(story())


def test_reload_does_not_wait_for_a_worker_that_stands_still(
    site: GatewaysSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with site.running():
            await until_raising(site, ["u"])
            site.trust_keys(signing_key("second"))
            await until(lambda: site.haproxy.reloads == 1)

    monkeypatch.setattr(gateways_module, "_QUIET", 0.05)
    asyncio.run(story())


def test_worker_that_stands_still_leaves_the_current_one_to_the_reload(
    site: GatewaysSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that fails in the middle of a command would close that one."""
    held: list[bool] = []

    async def story() -> None:
        async with site.running():
            site.revoke(EntryKind.USER, "u", 1)
            await until(lambda: len(site.gateways.writers) == 1)
            await site.in_force_everywhere()
            (old,) = site.gateways._followed.values()
            site.haproxy.reload()
            await until(lambda: len(site.gateways.writers) == 2)
            await site.in_force_everywhere()
            current = site.gateways._followed[site.haproxy.current.pid].process
            (stopped,) = site.haproxy.old
            stopped.runs.clear()
            site.revoke(EntryKind.USER, "u", 2)
            newest = site.haproxy.current
            await until(lambda: newest.find("minimums", "u") == "2")
            await until(old.process.raising.locked)
            await until(lambda: not current.raising.locked())

            def fail() -> None:
                held.append(current.raising.locked())
                site.haproxy.end_connections()

            site.haproxy.reload = fail  # type: ignore[method-assign]
            site.trust_keys(signing_key("second"))
            await until(lambda: bool(held))
            assert held[0]
            stopped.runs.set()

    monkeypatch.setattr(gateways_module, "_QUIET", 0.05)
    asyncio.run(story())
