"""What operators see of gateways that check tokens by themselves."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gatehouse_verifier import TOKEN_POLICY, started
from tests.support.haproxy_sites import GatewaysSite
from verifier.check.policy import Policy, PolicyBook
from verifier.check.rules.requirements import Requirements
from verifier.native.gateways import HAPROXY, Gateways
from verifier.native.haproxy.directory import HaproxyDirectory
from verifier.native.haproxy.process import HaproxyProcess
from verifier.native.in_force import Mark
from verifier.native.terms import NativePolicies
from verifier.native.writer import Writer
from verifier.operators.metrics import VerifierMetrics

_PREFIX = "gatehouse_verifier_"


class Site(GatewaysSite):
    """A HAProxy that is not reached; a test says what is in force in its workers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked = Requirements()
        self.policies = NativePolicies(["default"], self._book, lambda _: None)
        self.shown = Gateways(HAPROXY, self.in_force, self.gateways, self.policies)

    def _book(self) -> PolicyBook:
        return PolicyBook(
            {"default": Policy("default", TOKEN_POLICY, requirements=self.asked)}
        )

    def connect(self, name: str) -> None:
        """Connect a worker that has everything."""
        process = HaproxyProcess(1, "", HaproxyDirectory(self.path))
        writer = Writer(process, self.source, self.in_force)
        self.gateways.writers[name] = writer
        self.in_force.connected(name)
        self.in_force.sending(name, self.clock.monotonic() + 30)
        self.in_force.proven(name, Mark("e", 0))

    async def metrics(self) -> dict[str, float]:
        """Return the metrics about gateways and policies, without the prefix."""
        verifier = await started()
        parts = verifier.parts._replace(gateways=self.shown)
        text = VerifierMetrics(parts, verifier.clock.monotonic).render().decode()
        lines = [line for line in text.splitlines() if line.startswith(_PREFIX)]
        pairs = [line.removeprefix(_PREFIX).rsplit(" ", 1) for line in lines]
        return {name: float(value) for name, value in pairs}


@pytest.fixture
def site() -> Iterator[Site]:
    # Its path must be short enough for a socket.
    with tempfile.TemporaryDirectory() as name:
        yield Site(Path(name))


async def test_policy_that_a_gateway_cannot_check_any_more_shows(site: Site) -> None:
    """The gateway goes on with the last terms, and an alert reads this metric."""
    site.policies.terms()
    assert (await site.metrics())["policy_file_differs"] == 0
    site.asked = Requirements(max_age=60)
    site.policies.terms()
    assert site.shown.has_older_policies
    assert (await site.metrics())["policy_file_differs"] == 1
    site.asked = Requirements()
    site.policies.terms()
    assert (await site.metrics())["policy_file_differs"] == 0


async def test_gateway_that_is_kept_closed_counts_as_failing(site: Site) -> None:
    failing = 'native_gateways{state="failing"}'
    site.connect("one")
    site.gateways.last_error = ""
    assert (await site.metrics())[failing] == site.shown.failing == 0
    site.in_force.proven("one", Mark("e", 0), has_window=False, is_failing=True)
    assert (await site.metrics())[failing] == site.shown.failing == 1
    site.in_force.proven("one", Mark("e", 0))
    assert site.shown.failing == 0


async def test_worker_that_is_left_beside_one_that_is_not_counts_as_failing(
    site: Site,
) -> None:
    site.connect("an old one, that drains")
    site.gateways.last_error = "worker 7: it is closed until a reload replaces it"
    assert (await site.metrics())['native_gateways{state="failing"}'] == 1
    assert not site.shown.is_alone
    # It is a part of those that are connected.
    site.in_force.write_failed("an old one, that drains")
    assert site.shown.failing == 1
    site.in_force.proven("an old one, that drains", Mark("e", 0))
    # Without any, `connected` is 0, and its alert says so.
    site.gateways.writers.clear()
    assert site.shown.failing == 0
    assert site.shown.is_alone
