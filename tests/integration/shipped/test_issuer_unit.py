"""R55: the issuer's unit, as it ships, under its own filters and mounts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.issuer_unit import PASSWORD, UNIT, IssuerUnit
from tests.support.postgres import PostgresServer
from tests.support.processes import ProcessFactory
from tests.support.raw_http import send
from tests.support.unit_service import can_connect

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
#: Every command, with its standard input and the file of its own that it needs.
COMMANDS = (
    ("migrate",),
    ("generate-secrets",),
    ("settings",),
    ("check",),
    ("create-admin", "bob"),
    ("create-client", "orders"),
    ("import-users", "-", "--refused", "refused.csv"),
    ("rotate-keys",),
    ("rotate-keys", "--now"),
    ("reencrypt-keys",),
    ("revoke", "--user", "alice"),
    ("revoke", "--sid", "a-sid"),
    ("revoke", "--jti", "a-jti"),
    ("revoke-many", "--started-before", "1", "--yes"),
    ("audit", "head"),
    ("audit", "verify"),
    ("audit", "prune", "--before", "1"),
    ("new-epoch",),
    ("health",),
)
STDIN = {
    "create-admin": f"{PASSWORD}\n",
    "import-users": f"username,password\ncarol,{PASSWORD}\n",
}

MakeIssuer = Callable[..., IssuerUnit]


@pytest.fixture
def make_issuer(
    machine: Path, processes: ProcessFactory, request: pytest.FixtureRequest
) -> MakeIssuer:
    def make(database: str, **options: object) -> IssuerUnit:
        server: PostgresServer | None = None
        if database == "postgres":
            server = request.getfixturevalue("postgres")
        return IssuerUnit(machine / "issuer", processes, postgres=server, **options)

    return make


@pytest.mark.parametrize(
    ("database", "workers", "on_unix_sockets"),
    [
        ("sqlite", "1", False),
        ("sqlite", "1", True),
        pytest.param("postgres", "1", False, marks=pytest.mark.postgres),
        pytest.param("postgres", "2", False, marks=pytest.mark.postgres),
        pytest.param("postgres", "2", True, marks=pytest.mark.postgres),
    ],
    ids=[
        "sqlite",
        "sqlite-unix",
        "postgres",
        "postgres-workers",
        "postgres-workers-unix",
    ],
)
def test_unit_serves_logins_without_a_denied_call(
    make_issuer: MakeIssuer, database: str, workers: str, on_unix_sockets: bool
) -> None:
    """Before, the first login ended it by SIGSYS, and with two workers and a unix
    socket it did not start (chown)."""
    issuer = make_issuer(
        database, on_unix_sockets=on_unix_sockets, ISSUER_WORKERS=workers
    )
    process = issuer.start()
    issuer.create_admin()
    login = issuer.log_in()
    renewed = issuer.refresh(login["refresh_token"])
    issuer.log_out(renewed["access_token"])
    for path in ("/metrics", "/healthz", "/readyz"):
        assert send(issuer.admin, "GET", path).status == 200
    for flag in ((), ("--ready",)):
        healthy = issuer.service.run("health", *flag)
        assert healthy.returncode == 0, healthy.stderr
    assert process.terminate(deadline=30) == 0, process.log()
    assert issuer.service.unforeseen_denials() == []


def commands_on(issuer: IssuerUnit) -> list[tuple[str, ...]]:
    """Return every command, with names of existing things to revoke."""
    made = issuer.service.run("create-client", "ledger").stdout
    (client_id,) = re.findall(r"CLIENT_ID=(\S+)", made)
    keys = send(issuer.public, "GET", "/.well-known/jwks.json").json()["keys"]
    kid = keys[0]["kid"]
    return [*COMMANDS, ("revoke", "--client", client_id), ("revoke", "--kid", kid)]


@pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def test_every_command_runs_under_the_unit(
    make_issuer: MakeIssuer, database: str
) -> None:
    """In one process: most of a command's time is the start of its own.

    `create-client` and `health` have one each, here and above.
    """
    issuer = make_issuer(database)
    issuer.start()
    issuer.create_admin()
    script = (
        "import io, sys\n"
        "from issuer.commands.main import main\n"
        f"for command in {commands_on(issuer)}:\n"
        f"    given = io.BytesIO({STDIN}.get(command[0], '').encode())\n"
        "    sys.stdin = io.TextIOWrapper(given)\n"
        "    if main(list(command)) != 0: sys.exit(f'{command} failed')\n"
    )
    done = issuer.service.execute(issuer.python, "-c", script)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert issuer.service.unforeseen_denials() == []


def test_no_command_is_left_out(make_issuer: MakeIssuer) -> None:
    """A new command is to be run under the unit as well."""
    shown = make_issuer("sqlite").service.run("--help").stdout
    known = set(re.findall(r"^    ([a-z][a-z-]+)(?: |$)", shown, re.MULTILINE))
    assert {"migrate", "revoke"} <= known
    assert known == {command[0] for command in COMMANDS} | {
        "serve",
        "configs",
        "completion",
    }


def test_only_the_units_group_reaches_its_socket(
    machine: Path, processes: ProcessFactory, tmp_path: Path
) -> None:
    """With `Group=` as in the unit's comment, the gateway connects and others do
    not.
    """
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("#Group=www-data", "Group=www-data"))
    issuer = IssuerUnit(machine / "issuer", processes, on_unix_sockets=True, unit=unit)
    assert issuer.service.group != issuer.service.user
    issuer.start()
    other = issuer.service.user + 1
    assert can_connect(issuer.public, other, issuer.service.group)
    assert not can_connect(issuer.public, other, other)
