"""A policy that changes reaches every current worker of HAProxy."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shared.feed import EntryKind
from tests.support.haproxy_sites import STALENESS, GatewaysSite, until
from tests.support.log_fields import fields_of
from tests.support.tokens import AUDIENCE, ISSUER
from verifier.check.policy import Policy, PolicyBook, TokenPolicy
from verifier.check.rules.requirements import Requirements
from verifier.native.gateways import HAPROXY, check_kind
from verifier.native.haproxy import gateways as gateways_module
from verifier.native.terms import NativePolicies


class PolicySite(GatewaysSite):
    """A HAProxy that checks two policies of a file."""

    def __init__(self, folder: Path) -> None:
        self.write("a")
        native = NativePolicies(
            ["default", "second"], lambda: self.book, partial(check_kind, HAPROXY)
        )
        super().__init__(folder, native.terms)

    def write(self, scope: str, **changes: Any) -> None:
        """Write the file: what `default` asks besides, and the scope of both."""
        asked = Requirements(required_scopes=frozenset({scope}))
        token = TokenPolicy.own(ISSUER, AUDIENCE)
        self.book = PolicyBook(
            {
                "default": Policy(
                    "default", token, requirements=replace(asked, **changes)
                ),
                "second": Policy("second", token, requirements=asked),
            }
        )

    @property
    def rules(self) -> str:
        return (self.path / "gatehouse.cfg").read_text()

    def is_listed(self, policy: str, scope: str) -> bool:
        """Return whether the rules on disk ask that policy for that scope."""
        (section,) = [
            part
            for part in self.rules.split("\ndefaults gatehouse-")
            if part.startswith(f"{policy}\n")
        ]
        return f"(?:{scope})" in section


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[PolicySite]:
    monkeypatch.setattr(gateways_module, "LOOK_EVERY", 0.05)
    # Its path must be short enough for a socket.
    with tempfile.TemporaryDirectory() as name:
        yield PolicySite(Path(name))


def test_new_terms_are_written_and_reloaded_for_at_once(site: PolicySite) -> None:
    async def story() -> None:
        async with site.running():
            await site.open()
            for count, scope in enumerate("bc", start=1):
                site.write(scope)
                await until(lambda count=count: site.haproxy.reloads == count)
                assert site.is_listed("default", scope)
                assert site.is_listed("second", scope)
                newest = site.haproxy.current
                await until(lambda new=newest: new.window is not None)
            await asyncio.sleep(0.2)
            assert site.haproxy.reloads == 2

    asyncio.run(story())


def test_terms_that_haproxy_cannot_check_leave_those_of_before(
    site: PolicySite, caplog: pytest.LogCaptureFixture
) -> None:
    """The other policy changes all the same, and revocations go on."""

    async def story() -> None:
        async with site.running():
            await site.open()
            site.write("b", client_ids=frozenset({"é"}))
            await until(lambda: site.haproxy.reloads == 1)
            assert site.is_listed("default", "a")
            assert site.is_listed("second", "b")
            site.revoke(EntryKind.SID, "s")
            await site.in_force_everywhere()
            await asyncio.sleep(0.2)
            site.write("c")
            await until(lambda: site.haproxy.reloads == 2)
            assert site.is_listed("default", "c")

    with caplog.at_level(logging.ERROR):
        asyncio.run(story())
    (record,) = [r for r in caplog.records if r.msg == "native.policy_not_taken"]
    error = str(fields_of(record)["error"])
    assert error.startswith("policy default: HAProxy cannot check it: client_ids: ")


def test_replaced_worker_holds_no_confirmation_up_and_closes(site: PolicySite) -> None:
    async def story() -> None:
        async with site.running():
            await site.open()
            window = site.haproxy.current.window
            site.write("b")
            await until(lambda: site.haproxy.reloads == 1)
            await until(lambda: len(site.gateways.writers) == 2)
            site.clock.advance(1)
            site.renew()
            site.revoke(EntryKind.SID, "s")
            await site.in_force_everywhere()
            (old,) = site.haproxy.old
            assert old.find("sessions", "s")
            assert old.window == window

    asyncio.run(story())


def test_reload_that_fails_is_named_and_asked_for_again(
    site: PolicySite,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As when the rest of HAProxy's configuration has a fault."""
    monkeypatch.setattr(gateways_module, "_RELOADS", (600.0, 600.0))
    monkeypatch.setattr(gateways_module, "_LONGEST_CLOSED", 0.05)

    async def story() -> None:
        reload = site.haproxy.reload
        async with site.running():
            await site.open()
            # The worker stays, as the master does; its connections end.
            site.haproxy.reload = site.haproxy.end_connections  # type: ignore[method-assign]
            site.write("b")
            await until(lambda: site.haproxy.reloads == 3)
            site.haproxy.reload = reload  # type: ignore[method-assign]
            newest = site.haproxy.current
            await until(lambda: site.haproxy.current is not newest)
            await site.in_force_everywhere()
            await until(lambda: "native.haproxy_not_reloaded_no_more" in messages())

    def messages() -> list[str]:
        return [record.msg for record in caplog.records]

    with caplog.at_level(logging.INFO):
        asyncio.run(story())
    assert messages().count("native.haproxy_not_reloaded") == 1


def test_worker_that_a_failed_reload_leaves_closed_is_seen(site: PolicySite) -> None:
    """It answers 503 to everything: a mistake elsewhere in HAProxy's configuration."""

    async def story() -> None:
        async with site.running():
            await site.open()
            (writer,) = site.gateways.writers.values()
            (name,) = site.gateways.writers
            site.haproxy.has_fault = True
            site.write("b")
            await until(lambda: site.haproxy.reloads == 1)
            site.clock.advance(5)
            site.renew()
            await until(lambda: "policies of before" in writer.last_error)
            assert site.in_force.failing_processes == 1
            assert site.in_force.progress(name).window_left == STALENESS - 5
            # Mended, and reloaded by hand.
            site.haproxy.has_fault = False
            site.haproxy.reload()
            await until(lambda: len(site.gateways.writers) == 2)
            await until(lambda: site.haproxy.current.window is not None)
            # The old worker drains and closes, as it should; without further news.
            await until(lambda: site.in_force.failing_processes == 0)
            assert not writer.last_error

    asyncio.run(story())
