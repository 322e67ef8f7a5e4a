"""All workers of a HAProxy, over reloads."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.fake_haproxy import FakeHaproxy
from tests.support.haproxy_sites import STALENESS, GatewaysSite, until
from tests.support.tokens import TestKey, signing_key
from verifier.check.policy import PolicyBook
from verifier.native import in_force
from verifier.native.content import Content
from verifier.native.gateways import HAPROXY, Gateways
from verifier.native.haproxy import gateways as gateways_module
from verifier.native.haproxy import master
from verifier.native.haproxy.directory import HaproxyDirectory
from verifier.native.haproxy.master import MasterConnection, MasterError
from verifier.native.haproxy.process import HaproxyProcess
from verifier.native.in_force import MAX_PROCESSES
from verifier.native.terms import NativePolicies

#: Processes that a small ledger has room for.
_FEW = 6


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> GatewaysSite:
    monkeypatch.setattr(gateways_module, "LOOK_EVERY", 0.05)
    return GatewaysSite(folder)


def test_replaced_worker_gets_every_revocation_too(site: GatewaysSite) -> None:
    async def story() -> None:
        async with site.running():
            await site.open()
            site.haproxy.reload()
            await until(lambda: len(site.gateways.writers) == 2)
            site.revoke_session("b")
            await site.in_force_everywhere()
            (old,) = site.haproxy.old
            for worker in (old, site.haproxy.current):
                assert worker.find("sessions", "a")
                assert worker.find("sessions", "b")
                assert worker.window

    asyncio.run(story())


def test_status_has_position_and_window_of_each_worker(site: GatewaysSite) -> None:
    """A worker that stands still is seen to be the one that is behind."""
    policies = NativePolicies((), lambda: PolicyBook({}), lambda _: None)
    status = Gateways(HAPROXY, site.in_force, site.gateways, policies).describe

    def processes() -> dict[int, dict[str, Any]]:
        listed = cast("dict[str, dict[str, Any]]", status()["processes"])
        return {int(name.split()[1]): state for name, state in listed.items()}

    async def story() -> None:
        assert processes() == {}
        async with site.running():
            await site.open()
            stopped = site.haproxy.current
            site.haproxy.reload()
            await until(lambda: len(processes()) == 2)
            await site.in_force_everywhere()
            whole = {"position": 1, "window_left": STALENESS, "last_error": ""}
            going = site.haproxy.current
            assert processes() == {stopped.pid: whole, going.pid: whole}
            stopped.runs.clear()
            site.clock.advance(10)
            site.renew()
            site.revoke_session("b")
            await until(lambda: processes()[going.pid]["position"] == 2)
            assert processes()[going.pid]["window_left"] == STALENESS
            assert processes()[stopped.pid]["position"] == 1
            assert status()["position"] == 1
            stopped.runs.set()
            await site.in_force_everywhere()

    asyncio.run(story())


def test_worker_that_ended_is_waited_for_no_more(site: GatewaysSite) -> None:
    async def story() -> None:
        async with site.running():
            await site.open()
            site.haproxy.reload()
            await until(lambda: len(site.gateways.writers) == 2)
            site.haproxy.old.clear()
            await until(lambda: len(site.gateways.writers) == 1)
            site.revoke_session("b")
            await site.in_force_everywhere()
            assert site.in_force.awaited_processes == 0

    asyncio.run(story())


def test_new_key_is_listed_and_reloaded_for_once(site: GatewaysSite) -> None:
    async def story() -> None:
        async with site.running():
            await site.open()
            assert site.haproxy.reloads == 0
            site.trust_keys(signing_key(), signing_key("second"))
            await until(lambda: site.haproxy.reloads == 1)
            await until(lambda: len(site.gateways.writers) == 2)
            await site.in_force_everywhere()
            assert len(site.haproxy.current.map("headers").lines) == 2
            # A key that is gone needs no reload; its header is gone at once.
            site.trust_keys(signing_key("second"))
            await until(lambda: len(site.haproxy.current.map("headers").lines) == 1)
            for _ in range(3):
                site.haproxy.end_connections()
                await asyncio.sleep(0.1)
            assert site.haproxy.reloads == 1

    asyncio.run(story())


def test_reload_without_effect_is_not_asked_for_again_and_again(
    site: GatewaysSite,
) -> None:
    """As when HAProxy was started with a copy of the configuration."""

    async def story() -> None:
        site.haproxy.new_worker = (  # type: ignore[method-assign]
            lambda pid=0: FakeHaproxy.new_worker(
                FakeHaproxy(site.haproxy.socket, Path("/nowhere")), 5_000
            )
        )
        site.haproxy.current = site.haproxy.new_worker()
        async with site.running():
            await until(lambda: site.haproxy.reloads == 1)
            await asyncio.sleep(0.3)
            assert site.haproxy.reloads == 1
            assert site.haproxy.current.window is None

    asyncio.run(story())


def test_failed_reload_closes_nothing_and_is_logged(
    site: GatewaysSite, caplog: pytest.LogCaptureFixture
) -> None:
    """The prompt of a master says so, and the workers go on."""
    caplog.set_level(logging.INFO)

    async def story() -> None:
        async with site.running():
            await site.open()
            site.haproxy.has_fault = True
            site.haproxy.reload()
            site.revoke_session("b")
            await site.in_force_everywhere()
            assert site.haproxy.current.find("sessions", "b")
            await until(lambda: "native.haproxy_reload_failed" in caplog.messages)
            site.haproxy.has_fault = False
            site.haproxy.reload()
            gone = "native.haproxy_reload_failed_no_more"
            await until(lambda: gone in caplog.messages)

    asyncio.run(story())


def test_master_that_comes_later_is_found(site: GatewaysSite) -> None:
    async def story() -> None:
        task = asyncio.create_task(site.gateways.run())
        await asyncio.sleep(0.05)
        assert site.gateways.writers == {}
        await site.haproxy.start()
        site.revoke_session("a")
        await until(lambda: len(site.gateways.writers) == 1)
        await site.in_force_everywhere()
        task.cancel()
        await asyncio.wait([task])
        await site.haproxy.stop()
        assert site.gateways.writers == {}

    asyncio.run(story())


def test_fault_of_ours_does_not_end_the_following(
    site: GatewaysSite,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """HAProxy would close for good, and nothing would say so."""
    updates = iter([ValueError("one"), ValueError("two")])
    update = HaproxyDirectory.update

    def failing(directory: HaproxyDirectory, *content: Any) -> bool:
        if (error := next(updates, None)) is not None:
            raise error
        return update(directory, *content)

    async def story() -> None:
        monkeypatch.setattr(HaproxyDirectory, "update", failing)
        async with site.running():
            await until(lambda: "ValueError" in site.gateways.last_error)
            await site.open()
            assert site.gateways.last_error == ""

    asyncio.run(story())
    assert "native.internal_error" in caplog.messages


def test_worker_that_the_ledger_has_no_room_for_stays_closed(
    site: GatewaysSite,
) -> None:
    async def story() -> None:
        for n in range(MAX_PROCESSES):
            site.in_force.connected(f"{n}")
        async with site.running():
            await asyncio.sleep(0.3)
            assert site.haproxy.current.window is None
            site.in_force.ended("0")
            await until(lambda: site.haproxy.current.window is not None)

    asyncio.run(story())


def test_worker_that_many_faults_of_ours_left_is_written_into_again(
    site: GatewaysSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts once: the ledger would be full of it, and HAProxy closed for good."""
    faults = iter(range(3 * _FEW))
    write = HaproxyProcess.write

    async def failing(process: HaproxyProcess, content: Content) -> None:
        if next(faults, None) is not None:
            raise ValueError
        await write(process, content)

    async def story() -> None:
        async with site.running():
            await site.open()
            monkeypatch.setattr(HaproxyProcess, "write", failing)
            site.revoke_session("b")
            await site.in_force_everywhere()
            assert next(faults, None) is None
            assert site.haproxy.current.find("sessions", "b")

    monkeypatch.setattr(in_force, "MAX_PROCESSES", _FEW)
    asyncio.run(story())


def test_fault_of_ours_that_lasts_is_no_busy_loop(
    site: GatewaysSite,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = 0

    def failing(*_: Any) -> bool:
        nonlocal faults
        faults += 1
        raise ValueError

    async def story() -> None:
        monkeypatch.setattr(HaproxyDirectory, "update", failing)
        async with site.running():
            await until(lambda: faults == 3)
            await asyncio.sleep(1)
        # The pauses grow by half, from a hundredth of a second on.
        assert faults < 20

    asyncio.run(story())
    assert caplog.messages.count("native.internal_error") == 1


def test_worker_with_the_mark_of_another_process_says_which_keys_it_has(
    site: GatewaysSite,
) -> None:
    """As after a restart of `native` while no reload succeeds."""

    async def story() -> None:
        site.haproxy.has_fault = True
        # Of a process before this one that had other keys, and the same rules.
        worker = site.haproxy.current
        rules = worker.mark.partition(".")[0]
        worker.mark, worker.loaded = f"{rules}.0123456789abcdef", "0" * 16
        async with site.running():
            await until(lambda: len(site.gateways.writers) == 1)
            (writer,) = site.gateways.writers.values()
            await until(lambda: "has not loaded the key" in writer.last_error)
            # None of ours: closed, as a good token would be refused (R38).
            assert worker.window == ""
            site.haproxy.has_fault = False
            site.haproxy.reload()
            await until(lambda: bool(site.haproxy.current.window))
            await until(lambda: site.in_force.failing_processes == 0)

    asyncio.run(story())


def test_key_that_haproxy_cannot_use_is_named(
    site: GatewaysSite, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        odd = TestKey(2_056)
        site.trust_keys(signing_key(), odd)
        async with site.running():
            await until(lambda: len(site.gateways.writers) == 1)
            await until(lambda: odd.kid in str([r.__dict__ for r in caplog.records]))
        assert site.haproxy.reloads == 0

    asyncio.run(story())


@pytest.mark.parametrize(
    "sent",
    [
        b"hello> master> ",
        b"x" * (master.MAX_ANSWER + 10),
        b"x> " * (master.MAX_ANSWER // 3 + 10),
        b"master> " * 3,
        b"master[ReloadFailed]> " * 3,
    ],
)
def test_what_is_no_master_is_an_error(folder: Path, sent: bytes) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        writer.close()

    async def story() -> None:
        server = await asyncio.start_unix_server(serve, folder / "m")
        try:
            connection = await MasterConnection.open(str(folder / "m"))
            try:
                await connection.processes()
            finally:
                connection.close()
        finally:
            server.close()
            await asyncio.sleep(0.01)

    with pytest.raises(MasterError):
        asyncio.run(story())
