"""R55: the verifier's unit, as it ships, under its own filters and mounts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.feed import EntryKind
from tests.support.issuer_over_http import served
from tests.support.issuer_simulator import FEED_TOKEN, IssuerSimulator
from tests.support.processes import Process, ProcessFactory, free_port
from tests.support.raw_http import bearer, send
from tests.support.tokens import AUDIENCE, ISSUER
from tests.support.unit_file import UNITS
from tests.support.unit_service import UnitService, can_connect

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
UNIT = UNITS / "gatehouse-verifier.service"
POLICIES = '[policies.orders]\nrequired_scopes = ["orders:read"]\n'
COMMANDS = ("check", "settings", "health")
Sources = tuple[IssuerSimulator, str]


@pytest.fixture
def sources() -> Iterator[Sources]:
    with served() as (issuer, url):
        yield issuer, url


class VerifierUnit:
    """One verifier run by its unit."""

    def __init__(
        self,
        machine: Path,
        factory: ProcessFactory,
        sources: Sources,
        *,
        on_unix_sockets: bool = False,
        unit: Path = UNIT,
        **settings: str,
    ) -> None:
        self.issuer, url = sources
        # By a name with addresses of both kinds: looking it up is part of its work.
        url = url.replace("127.0.0.1", "localhost")
        self.public: int | Path = free_port()
        self.admin: int | Path = free_port()
        binds = [f"127.0.0.1:{self.public}", f"127.0.0.1:{self.admin}"]
        if on_unix_sockets:
            run = "run/gatehouse"
            binds = [f"unix:/{run}/{name}.sock" for name in ("verifier", "admin")]
            self.public, self.admin = (
                machine / run / f"{name}.sock" for name in ("verifier", "admin")
            )
        made = {
            "VERIFIER_ISSUER_URL": ISSUER,
            "VERIFIER_AUDIENCE": AUDIENCE,
            "VERIFIER_JWKS_URL": f"{url}/.well-known/jwks.json",
            "VERIFIER_FEED_URL": f"{url}/revocations",
            "VERIFIER_FEED_TOKEN": FEED_TOKEN,
            "VERIFIER_POLICY_FILE": "/etc/gatehouse/policies.toml",
            "VERIFIER_BIND": binds[0],
            "VERIFIER_ADMIN_BIND": binds[1],
            **settings,
        }
        hosts = machine.parent / "hosts"
        hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")
        hosts.chmod(0o644)
        self.service = UnitService(unit, machine, factory, made, {hosts: "/etc/hosts"})
        (machine / "etc/gatehouse/policies.toml").write_text(POLICIES)

    def start(self) -> Process:
        """Serve, as the unit does."""
        return self.service.start(
            lambda: send(self.admin, "GET", "/readyz").status == 200
        )

    def check(self, token: bytes) -> int:
        """Ask as nginx would."""
        headers = [bearer(token.decode())]
        return send(self.public, "GET", "/verify/nginx", headers).status


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("on_unix_sockets", [False, True], ids=["tcp", "unix"])
def test_unit_answers_without_a_denied_call(
    machine: Path,
    processes: ProcessFactory,
    sources: Sources,
    workers: str,
    on_unix_sockets: bool,
) -> None:
    verifier = VerifierUnit(
        machine / "verifier",
        processes,
        sources,
        on_unix_sockets=on_unix_sockets,
        VERIFIER_WORKERS=workers,
    )
    verifier.issuer.revoke(EntryKind.SID, "dead")
    good, dead = verifier.issuer.mint(), verifier.issuer.mint(sid="dead")
    for _ in range(2):
        # The second start finds the first one's disk copy.
        process = verifier.start()
        assert (verifier.check(good), verifier.check(dead)) == (200, 401)
        for path in ("/metrics", "/healthz", "/status"):
            assert send(verifier.admin, "GET", path).status == 200
        healthy = verifier.service.run("health", "--ready")
        assert healthy.returncode == 0, healthy.stderr
        assert process.terminate(deadline=30) == 0, process.log()
    copies = verifier.service.state_directory / "copies"
    assert copies.stat().st_mode & 0o777 == 0o700
    assert any(copies.iterdir())
    assert verifier.service.unforeseen_denials() == []


def test_every_command_runs_under_the_unit(
    machine: Path, processes: ProcessFactory, sources: Sources
) -> None:
    verifier = VerifierUnit(machine / "verifier", processes, sources)
    verifier.start()
    for command in COMMANDS:
        done = verifier.service.run(command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert "policy orders" in verifier.service.run("check").stdout
    shown = verifier.service.run("--help").stdout
    known = set(re.findall(r"^    ([a-z][a-z-]+)(?: |$)", shown, re.MULTILINE))
    # These read files that people name, and no setting of the unit; `native` serves.
    others = {"serve", "native", "configs", "completion", "policy", "issuers", "doctor"}
    assert known == others | {*COMMANDS}
    assert verifier.service.unforeseen_denials() == []


def test_only_the_units_group_reaches_its_socket(
    machine: Path, processes: ProcessFactory, sources: Sources, tmp_path: Path
) -> None:
    """With `Group=` as in the unit's comment, the gateway connects and others do
    not.
    """
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("#Group=www-data", "Group=www-data"))
    verifier = VerifierUnit(
        machine / "verifier", processes, sources, on_unix_sockets=True, unit=unit
    )
    service = verifier.service
    assert service.group != service.user
    verifier.start()
    other = service.user + 1
    assert can_connect(verifier.public, other, service.group)
    assert not can_connect(verifier.public, other, other)
