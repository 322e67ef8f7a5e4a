"""The wheel holds all that its programs need, and runs away from the checkout."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.distribution import VERSION, install_line
from tests.support import wheel as wheels
from tests.support.issuer_harness import key_environment
from tests.support.processes import ProcessFactory, free_port
from tests.support.raw_http import bearer, post_json, send

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

PACKAGES = ("issuer", "verifier", "shared")
CONFIGS = (
    "deploy/gateways/",
    "deploy/grafana/",
    "deploy/prometheus/",
    "deploy/systemd/",
    ".env.example",
)
INFO = f"gatehouse_auth-{VERSION}.dist-info"
PASSWORD = "correct horse battery staple"


@dataclass(frozen=True, slots=True)
class Built:
    """The files of `make dist`, and an environment for each program.

    Attributes:
        elsewhere: an empty folder, to run programs in.
    """

    wheel: Path
    sdist: Path
    bins: Mapping[str, Path]
    elsewhere: Path

    def run(
        self, program: str, *command: str, words: str = "", **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of a program's environment, with these settings alone."""
        return subprocess.run(
            [self.bins[program] / command[0], *command[1:]],
            cwd=self.elsewhere,
            env={"PATH": "/usr/bin:/bin", **settings},
            input=words,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    dist = wheels.build(folder / "source")
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    bins = {
        # A place with a blank and a percent sign is a place, too.
        program: wheels.install(wheel, f"{program}.lock", folder / f"{program} 100%")
        for program in ("issuer", "verifier")
    }
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return Built(wheel, sdist, bins, elsewhere)


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[ProcessFactory]:
    factory = ProcessFactory(tmp_path)
    yield factory
    factory.stop_all()


def test_the_wheel_holds_the_packages_and_their_configs_and_no_more(
    built: Built,
) -> None:
    tracked = wheels.tracked_files()
    expected = {name for name in tracked if name.partition("/")[0] in PACKAGES}
    expected |= {f"shared/configs/{n}" for n in tracked if n.startswith(CONFIGS)}
    with zipfile.ZipFile(built.wheel) as archive:
        held = {name for name in archive.namelist() if not name.startswith(INFO)}
        info = {name for name in archive.namelist() if name.startswith(INFO)}

    assert held == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert "issuer/migrations/script.py.mako" in held
    assert "shared/configs/deploy/gateways/nginx/gatehouse.conf" in held
    assert f"{INFO}/licenses/LICENSE" in info


def test_the_sdist_holds_all_that_the_repository_holds(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert [name for name in wheels.tracked_files() if name not in held] == []
    assert not any(name.endswith(".pyc") or name.startswith("var/") for name in held)


@pytest.mark.parametrize("program", ["issuer", "verifier"])
def test_both_ways_to_start_a_program_show_its_version(
    program: str, built: Built
) -> None:
    name = f"gatehouse-{program}"
    for command in ((name,), ("python", "-m", program)):
        shown = built.run(program, *command, "--version")
        assert shown.stdout == f"{name} {VERSION}\n"
    metadata = "import importlib.metadata as m; print(m.version('gatehouse-auth'))"
    assert built.run(program, "python", "-c", metadata).stdout == f"{VERSION}\n"
    assert built.run(program, name, "--help").stdout.startswith(f"usage: {name} ")


def test_both_programs_run_from_the_wheel_alone(
    built: Built, factory: ProcessFactory
) -> None:
    ports = {name: free_port() for name in ("issuer", "admin", "gate", "operators")}
    issuer = issuer_settings(built, ports)
    verifier = {
        "VERIFIER_ISSUER_URL": issuer["ISSUER_URL"],
        "VERIFIER_AUDIENCE": "wheel",
        "VERIFIER_FEED_TOKEN": issuer["ISSUER_FEED_TOKEN"],
        "VERIFIER_BIND": f"127.0.0.1:{ports['gate']}",
        "VERIFIER_ADMIN_BIND": f"127.0.0.1:{ports['operators']}",
        # Several workers: each is started by the program of the first process.
        "VERIFIER_WORKERS": "2",
    }
    migrated = built.run("issuer", "gatehouse-issuer", "migrate", **issuer)
    assert migrated.stdout == "The database is up to date.\n", migrated.stderr
    create = ("gatehouse-issuer", "create-admin", "alice")
    created = built.run("issuer", *create, words=PASSWORD, **issuer)
    assert created.returncode == 0, created.stderr
    checked = built.run("verifier", "gatehouse-verifier", "check", **verifier)
    assert "policy default: /verify/<dialect>/p/default" in checked.stdout

    start(factory, built, "issuer", issuer, ports["admin"])
    start(factory, built, "verifier", verifier, ports["operators"])

    account = {"username": "alice", "password": PASSWORD}
    token = post_json(ports["issuer"], "/auth/login", account).json()["access_token"]
    check = ports["gate"], "GET", "/verify/nginx"
    assert send(*check).status == 401
    assert send(*check, headers=[bearer(token)]).status == 200
    document = send(ports["issuer"], "GET", "/openapi.json").json()
    assert document["info"]["version"] == VERSION


def issuer_settings(built: Built, ports: Mapping[str, int]) -> dict[str, str]:
    made = built.run("issuer", "gatehouse-issuer", "generate-secrets")
    assert made.returncode == 0, made.stderr
    secrets = dict(line.split("=", 1) for line in made.stdout.splitlines())
    return {
        **{name: value for name, value in secrets.items() if "ISSUER" in name},
        "ISSUER_URL": f"http://127.0.0.1:{ports['issuer']}",
        "ISSUER_AUDIENCE": "wheel",
        "ISSUER_DATABASE_URL": "sqlite+aiosqlite:///issuer.db",
        "ISSUER_BIND": f"127.0.0.1:{ports['issuer']}",
        "ISSUER_ADMIN_BIND": f"127.0.0.1:{ports['admin']}",
    }


def start(
    factory: ProcessFactory,
    built: Built,
    program: str,
    settings: Mapping[str, str],
    admin: int,
) -> None:
    factory.start(
        program,
        (built.bins[program] / f"gatehouse-{program}",),
        env={"PATH": "/usr/bin:/bin", **settings},
        cwd=built.elsewhere,
        ready=lambda: send(admin, "GET", "/readyz").status == 200,
        deadline=60,
    )


@pytest.mark.parametrize("program", ["issuer", "verifier"])
def test_configs_are_written_out_of_the_wheel(
    program: str, built: Built, tmp_path: Path
) -> None:
    name = f"gatehouse-{program}"
    listed = built.run(program, name, "configs").stdout.splitlines()
    shown = built.run(program, name, "configs", str(tmp_path / "out"))

    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines() == [
        str(tmp_path / "out" / file) for file in listed
    ]
    unit = (tmp_path / f"out/systemd/{name}.service").read_text()
    python = str(built.bins[program] / "python").replace("%", "%%")
    assert f'ExecStart="{python}" -m {program}\n' in unit
    shipped = wheels.ROOT / "deploy/gateways"
    gateways = {
        f"gateways/{path.relative_to(shipped)}": path.read_bytes()
        for path in shipped.rglob("*")
        if path.is_file()
    }
    written = tmp_path / "out/gateways"
    assert written.exists() == (program == "verifier")
    if program == "verifier":
        assert gateways
        assert {f: (tmp_path / "out" / f).read_bytes() for f in gateways} == gateways


def test_a_program_without_its_extra_names_the_extra_to_install(built: Built) -> None:
    """Every installation has both commands, with any extra."""
    settings = {
        **key_environment(),
        "ISSUER_URL": "https://issuer.test",
        "ISSUER_AUDIENCE": "api",
        "ISSUER_FEED_TOKEN": "f" * 40,
    }
    shown = built.run("verifier", "gatehouse-issuer", "migrate", **settings)
    assert shown.returncode == 1
    assert install_line("issuer") in shown.stderr
    assert built.wheel.name in shown.stderr
    assert "Traceback" not in shown.stderr
