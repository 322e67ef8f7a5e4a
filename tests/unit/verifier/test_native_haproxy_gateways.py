"""All workers of a HAProxy, over reloads, and the directory that it reads."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.feed import EntryKind, FeedEntry
from tests.support.clock import FakeClock
from tests.support.fake_haproxy import FakeHaproxy
from tests.support.processes import eventually
from tests.support.tokens import AUDIENCE, ISSUER, TestKey, signing_key
from verifier.check.trust import key_set
from verifier.native.content import ContentSource, KeepingTrust
from verifier.native.haproxy import gateways as gateways_module
from verifier.native.haproxy import master
from verifier.native.haproxy.directory import HaproxyDirectory
from verifier.native.haproxy.gateways import HaproxyGateways
from verifier.native.haproxy.master import MasterConnection, MasterError
from verifier.native.haproxy.token_rules import check_terms, policy_section
from verifier.native.in_force import MAX_PROCESSES, InForce
from verifier.native.terms import InexpressibleError, NativeTerms

STALENESS = 30
TERMS = NativeTerms("default", ISSUER, AUDIENCE, 5, 3_600, (), (), (), (), ())
NEVER = 2**31


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


class Site:
    """A HAProxy and all that writes into it, long after its predecessor."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.trust = KeepingTrust(ISSUER)
        self.in_force = InForce(self.clock.monotonic, STALENESS)
        self.in_force.reached("e", 0)
        self.clock.advance(STALENESS)
        self.source = ContentSource(
            self.trust, self.in_force, dict, self.clock.monotonic, self.clock.now
        )
        self.trust_keys(signing_key())
        self.trust.renew(self.clock.monotonic() + STALENESS)
        self.path = folder / "haproxy"
        self.gateways = HaproxyGateways(
            {"default": TERMS},
            self.source,
            self.in_force,
            str(folder / "m"),
            self.path,
        )
        self.gateways.prepare()
        self.haproxy = FakeHaproxy(folder / "m", self.path)
        self._position = 0

    def trust_keys(self, *keys: TestKey) -> None:
        self.trust.trust_keys(ISSUER, key_set(key.jwk for key in keys), 1e9)

    def revoke(
        self, key: str, kind: EntryKind = EntryKind.SID, generation: int = 0
    ) -> None:
        """Revoke something: the feed is one position further."""
        self.trust.enforce([FeedEntry(1, kind, key, generation, NEVER)])
        self._position += 1
        self.in_force.reached("e", self._position)

    @asynccontextmanager
    async def running(self) -> Any:
        await self.haproxy.start()
        task = asyncio.create_task(self.gateways.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self.haproxy.stop()

    async def in_force_everywhere(self) -> None:
        await until(lambda: self.in_force.position("e") == self._position)


async def until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds)


@pytest.fixture
def site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(gateways_module, "LOOK_EVERY", 0.05)
    return Site(folder)


def test_replaced_worker_gets_every_revocation_too(site: Site) -> None:
    async def story() -> None:
        async with site.running():
            site.revoke("a")
            await until(lambda: len(site.gateways.writers) == 1)
            await site.in_force_everywhere()
            site.haproxy.reload()
            await until(lambda: len(site.gateways.writers) == 2)
            site.revoke("b")
            await site.in_force_everywhere()
            (old,) = site.haproxy.old
            for worker in (old, site.haproxy.current):
                assert worker.find("sessions", "a")
                assert worker.find("sessions", "b")
                assert worker.find("window", "window")

    asyncio.run(story())


def test_worker_that_ended_is_waited_for_no_more(site: Site) -> None:
    async def story() -> None:
        async with site.running():
            site.revoke("a")
            await until(lambda: len(site.gateways.writers) == 1)
            await site.in_force_everywhere()
            site.haproxy.reload()
            await until(lambda: len(site.gateways.writers) == 2)
            site.haproxy.old.clear()
            await until(lambda: len(site.gateways.writers) == 1)
            site.revoke("b")
            await site.in_force_everywhere()
            assert site.in_force.awaited_processes == 0

    asyncio.run(story())


def test_stopped_worker_keeps_a_revocation_pending_until_its_window_is_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master, "ANSWER_TIME", 0.05)

    async def story() -> None:
        async with site.running():
            site.revoke("a")
            await until(lambda: len(site.gateways.writers) == 1)
            await site.in_force_everywhere()
            stopped = site.haproxy.current
            site.haproxy.reload()
            await until(lambda: len(site.gateways.writers) == 2)
            await site.in_force_everywhere()
            stopped.runs.clear()
            site.revoke("b")
            # The other one has it all the same.
            await until(lambda: site.haproxy.current.find("sessions", "b") is not None)
            await until(
                lambda: any(w.last_error for w in site.gateways.writers.values())
            )
            await until(lambda: site.in_force.position("e") == 1)
            site.clock.advance(STALENESS)
            assert site.in_force.position("e") == 2
            stopped.runs.set()

    asyncio.run(story())


def test_new_key_is_listed_and_reloaded_for_once(site: Site) -> None:
    async def story() -> None:
        async with site.running():
            site.revoke("a")
            await until(lambda: len(site.gateways.writers) == 1)
            await site.in_force_everywhere()
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


def test_reload_without_effect_is_not_asked_for_again_and_again(site: Site) -> None:
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
            assert site.haproxy.current.find("window", "window") is None

    asyncio.run(story())


def test_master_that_comes_later_is_found(site: Site) -> None:
    async def story() -> None:
        task = asyncio.create_task(site.gateways.run())
        await asyncio.sleep(0.05)
        assert site.gateways.writers == {}
        await site.haproxy.start()
        site.revoke("a")
        await until(lambda: len(site.gateways.writers) == 1)
        await site.in_force_everywhere()
        task.cancel()
        await asyncio.wait([task])
        await site.haproxy.stop()
        assert site.gateways.writers == {}

    asyncio.run(story())


def test_worker_that_the_kernel_does_not_have_is_waited_for_no_more(
    site: Site,
) -> None:
    """As when the master was killed: its workers end, and no master says so."""

    async def story() -> None:
        program = await asyncio.create_subprocess_exec("sleep", "60")
        # The one that listens is this process.
        site.haproxy.master = os.getpid()
        site.haproxy.current = site.haproxy.new_worker(program.pid)
        async with site.running():
            site.revoke("a")
            await until(lambda: len(site.gateways.writers) == 1)
            await site.in_force_everywhere()
            await site.haproxy.stop()
            site.revoke("b")
            await asyncio.sleep(0.1)
            await until(lambda: site.in_force.position("e") == 1)
            program.kill()
            await program.wait()
            await site.in_force_everywhere()
            assert site.gateways.writers == {}

    asyncio.run(story())


def test_workers_of_another_haproxy_say_nothing_of_those_before(site: Site) -> None:
    async def story() -> None:
        async with site.running():
            site.revoke("a")
            await until(lambda: len(site.gateways.writers) == 1)
            await site.in_force_everywhere()
            site.haproxy.master = 200
            site.haproxy.current = site.haproxy.new_worker()
            site.haproxy.end_connections()
            site.revoke("b")
            newest = site.haproxy.current
            await until(lambda: newest.find("sessions", "b") is not None)
            await until(lambda: site.in_force.position("e") == 1)
            site.clock.advance(STALENESS)
            await site.in_force_everywhere()

    asyncio.run(story())


def test_worker_that_was_abandoned_is_left_until_it_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master, "ANSWER_TIME", 0.05)

    async def story() -> None:
        async with site.running():
            site.revoke("u", EntryKind.USER, 1)
            await until(lambda: len(site.gateways.writers) == 1)
            await site.in_force_everywhere()
            worker = site.haproxy.current
            worker.runs.clear()
            site.revoke("u", EntryKind.USER, 2)
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


def test_worker_that_the_ledger_has_no_room_for_stays_closed(site: Site) -> None:
    async def story() -> None:
        for n in range(MAX_PROCESSES):
            site.in_force.connected(f"{n}")
        async with site.running():
            await asyncio.sleep(0.3)
            assert site.haproxy.current.find("window", "window") is None
            site.in_force.ended("0")
            await until(
                lambda: site.haproxy.current.find("window", "window") is not None
            )

    asyncio.run(story())


def test_key_that_haproxy_cannot_use_is_named(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        odd = TestKey(2_056)
        site.trust_keys(signing_key(), odd)
        async with site.running():
            await until(lambda: len(site.gateways.writers) == 1)
            await until(lambda: odd.kid in str([r.__dict__ for r in caplog.records]))
        assert site.haproxy.reloads == 0

    asyncio.run(story())


def test_no_more_workers_than_the_master_takes_connections(site: Site) -> None:
    async def story() -> None:
        for _ in range(10):
            site.haproxy.reload()
        async with site.running():
            most = gateways_module.MAX_WORKERS
            await until(lambda: len(site.gateways.writers) == most)
            # A further reload: the newest is followed in place of an older one.
            site.haproxy.reload()
            newest = site.haproxy.current
            await until(lambda: newest.find("window", "window") is not None)
            assert len(site.gateways.writers) == most

    asyncio.run(story())


@pytest.mark.parametrize(
    "sent", [b"hello> master> ", b"x" * (master.MAX_ANSWER + 10), b"master> " * 3]
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


# --- the directory --------------------------------------------------------------------


def keys_of(*names: str) -> list[Any]:
    return list(key_set(signing_key(name).jwk for name in names).keys.values())


def test_directory_lets_a_worker_start_closed(folder: Path) -> None:
    directory = HaproxyDirectory(folder / "d")
    directory.prepare(keys_of("first"), {"default": TERMS})
    for path in directory.maps:
        assert path.read_bytes() == b""
    for path in (folder / "d").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o750 if path.is_dir() else 0o640)
    assert stat.S_IMODE((folder / "d").stat().st_mode) == 0o750
    text = (folder / "d/gatehouse.cfg").read_text()
    assert f"setenv GATEHOUSE_NATIVE {directory.mark}" in text
    (key,) = keys_of("first")
    assert f"jwt_verify(RS256,{directory.key_path(key)})" in text
    assert directory.key_path(key).read_bytes().startswith(b"-----BEGIN PUBLIC KEY")


def test_keys_of_before_stay_while_none_is_known(folder: Path) -> None:
    first = HaproxyDirectory(folder / "d")
    first.prepare(keys_of("first"), {"default": TERMS})
    second = HaproxyDirectory(folder / "d")
    second.prepare([], {"default": TERMS})
    assert second.mark == first.mark
    assert not second.update(keys_of("first"), {"default": TERMS})
    # What a crash has left: a file that is not listed.
    (folder / "d/keys/0.pem").write_bytes(b"")
    third = HaproxyDirectory(folder / "d")
    third.prepare(keys_of("second"), {"default": TERMS})
    assert third.mark != first.mark
    names = [path.name for path in (folder / "d/keys").iterdir()]
    assert names == [third.key_path(keys_of("second")[0]).name]


def test_new_key_or_terms_need_a_reload_and_fewer_keys_do_not(folder: Path) -> None:
    directory = HaproxyDirectory(folder / "d")
    directory.prepare(keys_of("first", "second"), {"default": TERMS})
    assert not directory.update(keys_of("second"), {"default": TERMS})
    rules = directory.rules
    assert directory.update(keys_of("third"), {"default": TERMS})
    assert directory.rules == rules
    other = TERMS._replace(required_scopes=("orders:write",))
    assert directory.update(keys_of("third"), {"default": other})
    assert directory.rules != rules


def test_key_whose_signature_the_rules_cannot_read_is_left_out(folder: Path) -> None:
    directory = HaproxyDirectory(folder / "d")
    odd = list(key_set([TestKey(2_056).jwk]).keys.values())
    directory.prepare(odd, {"default": TERMS})
    assert list((folder / "d/keys").iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "a;b", "a'b", "a\nb", "a#b", "ä"])
def test_directory_that_a_configuration_cannot_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="HAProxy needs a path"):
        HaproxyDirectory(Path("/x") / name)


# --- policies -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("issuer", 'https://a"b'),
        ("audience", "a b"),
        ("required_scopes", ("ok", "a%b")),
        ("any_scopes", ("a,b",)),
        ("required_roles", ("a]",)),
        ("client_ids", ("é",)),
        ("claims", ((("acr",), ("mfa",)),)),
    ],
)
def test_policy_that_haproxy_cannot_check_is_refused_by_name(
    field: str, value: Any
) -> None:
    terms = TERMS._replace(policy="orders", **{field: value})
    with pytest.raises(InexpressibleError, match=rf"policy orders: .*{field}: "):
        check_terms(terms)


def test_policy_whose_name_no_section_has_is_refused() -> None:
    with pytest.raises(InexpressibleError, match="name: "):
        check_terms(TERMS._replace(policy="a b"))


def test_policy_that_haproxy_can_check_is_accepted() -> None:
    check_terms(
        TERMS._replace(
            required_scopes=("orders:read", "a'b"),
            required_roles=("clerk[1",),
            client_ids=("web",),
        )
    )


def test_rules_of_a_policy_refuse_what_it_does_not_allow(folder: Path) -> None:
    """How HAProxy reads them is tested in tests/gateways/test_native_haproxy.py."""
    asking = TERMS._replace(
        policy="asking",
        required_scopes=("a", "b"),
        any_scopes=("c", "d'e"),
        required_roles=("f",),
        client_ids=("g",),
    )
    section = policy_section(asking, HaproxyDirectory(folder / "d").maps)
    assert section.startswith("defaults gatehouse-asking\n")
    lines = [line for line in section.splitlines() if "insufficient_scope" in line]
    conditions = [line.partition(" unless ")[2] for line in lines]
    assert conditions == [
        "{ var(txn.gh_scope) -m reg '(?:^| )(?:a)(?: |$)' }",
        "{ var(txn.gh_scope) -m reg '(?:^| )(?:b)(?: |$)' }",
        "{ var(txn.gh_scope) -m reg '(?:^| )(?:c|d'\\''e)(?: |$)' }",
        "{ var(txn.gh_roles) -m reg '(?:^| )(?:f)(?: |$)' }",
        "{ var(txn.gh_client) -m reg '^(?:g)\\z' }",
    ]
