"""R55: the images, built by the Dockerfile's own lines, run as its comment says.

No engine is needed: `tests/support/image.py` carries the lines out. What this does not
run: the base image itself (Debian's Python of this machine stands for it), `apt-get`'s
own downloads, and Docker's default filter of system calls.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from shared.feed import EntryKind
from tests.support import compiled_gate
from tests.support.debian_root import NoPackagesError
from tests.support.grpc_checks import CHECK, check_message, read_verdict
from tests.support.image import (
    BuildError,
    Container,
    ImageBuilder,
    Stage,
    fetch_wheels,
    first_process,
    make_volume,
)
from tests.support.issuer_harness import FEED_TOKEN
from tests.support.issuer_over_http import served
from tests.support.issuer_simulator import FEED_TOKEN as SIMULATED_FEED_TOKEN
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, ProcessFactory, free_port, wait_until
from tests.support.raw_http import bearer, post_json, send
from tests.support.tokens import AUDIENCE, ISSUER
from tests.support.unit_file import ROOT

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]
PASSWORD = "correct horse battery"
DATA = "/var/lib/gatehouse"
PROGRAMS = ["issuer", "verifier"]
LOCKS = [*PROGRAMS, "grpc", "otel", "compile"]


@pytest.fixture(scope="session")
def builder() -> Iterator[ImageBuilder]:
    """Builds images in a folder that their user can reach."""
    if os.geteuid() != 0:
        refuse("root is needed to build an image")
    folder = Path(tempfile.mkdtemp(prefix="gatehouse-image-"))
    folder.chmod(0o711)
    wheels = folder / "wheels"
    wheels.mkdir()
    locks = [ROOT / f"requirements/{name}.lock" for name in LOCKS]
    try:
        fetch_wheels(wheels, locks)
        yield ImageBuilder(folder, wheels)
    except (BuildError, NoPackagesError) as error:
        refuse(str(error))
    finally:
        shutil.rmtree(folder)


def refuse(reason: str) -> None:
    """Skip, and fail in CI: a part without a test run must not look green."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Docker:
    """`docker run` and its like for one image."""

    def __init__(self, image: Stage, machine: Path, factory: ProcessFactory) -> None:
        self.image = image
        self._machine = machine
        self._factory = factory
        self._settings: dict[str, str] = {}
        self._binds: dict[Path, str] = {}
        self.program = image.entrypoint[-1]

    def settings(self, **settings: str) -> None:
        """Set variables: `-e NAME=VALUE`."""
        self._settings |= settings

    def volume(self, name: str, inside: str) -> Path:
        """Mount a new named volume: `-v NAME:PATH`."""
        here = make_volume(self.image, inside, self._machine / name)
        self._binds[here] = inside
        return here

    def mount(self, here: Path, inside: str) -> None:
        """Mount a directory of the machine: `-v PATH:PATH`."""
        self._binds[here] = inside

    def container(self, *, tmpfs: bool = False) -> Container:
        """Return how it is run: always with `--read-only`."""
        return Container(
            self.image,
            self._machine / "root",
            binds=self._binds,
            environment={**self.image.environment, **self._settings},
            is_tmp_writable=tmpfs,
        )

    def run(self, *arguments: str, given: str = "") -> str:
        """Run a command of the program to its end and return its output."""
        done = self.container().run([*self.image.entrypoint, *arguments], given=given)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def start(
        self,
        ready: Callable[[], object] | None = None,
        *,
        tmpfs: bool = False,
        own_network: bool = False,
    ) -> Process:
        """Run the program and return once it is ready."""
        command = self.container(tmpfs=tmpfs).command(
            list(self.image.entrypoint), own_network=own_network
        )
        return self._factory.start(
            self.program, command, cwd=ROOT, ready=ready, deadline=90
        )

    def check_health(self, process: Process, **settings: str) -> int:
        """Run the image's HEALTHCHECK beside the program and return its status."""
        container = self.container()
        container = Container(
            container.stage,
            container.mount,
            environment={**container.environment, **settings},
        )
        done = container.execute(first_process(process.pid), self.image.health)
        assert len((done.stdout + done.stderr).splitlines()) == 1, done
        return done.returncode


def has_begun(process: Process, image: Stage) -> bool:
    """Return whether the container's first process is the program by now."""
    try:
        words = Path(f"/proc/{first_process(process.pid)}/cmdline").read_bytes()
    except (OSError, IndexError):
        return False
    return words == b"".join(word.encode() + b"\0" for word in image.entrypoint)


def stop(process: Process) -> int:
    """End a container as `docker stop` does: SIGTERM to its first process."""
    os.kill(first_process(process.pid), signal.SIGTERM)
    return process.wait_for_exit(deadline=30)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ProcessFactory]:
    factory = ProcessFactory(tmp_path)
    yield factory
    # `unshare` ignores SIGTERM while its child runs; killed, it takes the child along.
    factory.kill_all()


@pytest.fixture
def machine() -> Iterator[Path]:
    """A folder for volumes, which the image's user can reach."""
    with tempfile.TemporaryDirectory(prefix="gatehouse-image-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture(scope="session")
def kept_gate(
    builder: ImageBuilder,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> None:
    """The gate's own tests run on what the image has (test_compiled_gate.py)."""
    stage = builder.build("compile-verifier")
    mount = tmp_path_factory.mktemp("compile") / "root"
    container = Container(stage, mount, environment=stage.environment)
    asked = container.run(["/opt/compile/bin/python", *compiled_gate.ASK])
    assert asked.returncode == 0, asked.stderr
    run_folder = compiled_gate.run_folder(tmp_path_factory, request.config)
    compiled_gate.keep(run_folder, stage.layers[0] / "app", asked.stdout)


@pytest.fixture
def docker(
    builder: ImageBuilder,
    machine: Path,
    processes: ProcessFactory,
    request: pytest.FixtureRequest,
) -> Docker:
    try:
        image = builder.build(request.param)
        if image.entrypoint[-1] == "verifier":
            request.getfixturevalue("kept_gate")
        return Docker(image, machine, processes)
    except NoPackagesError as error:
        refuse(str(error))
        raise


def issuer_settings(database_url: str, port: int, admin: int) -> Mapping[str, str]:
    rings = ("KEY_ENCRYPTION_KEYS", "PASSWORD_PEPPERS", "REFRESH_KEYS")
    return {
        "ISSUER_URL": f"http://127.0.0.1:{port}",
        "ISSUER_AUDIENCE": "api",
        "ISSUER_DATABASE_URL": database_url,
        "ISSUER_FEED_TOKEN": FEED_TOKEN,
        "ISSUER_BCRYPT_COST": "10",
        **{f"ISSUER_{ring}": f"k1:{'A' * 43}" for ring in rings},
        "ISSUER_BIND": f"127.0.0.1:{port}",
        "ISSUER_ADMIN_BIND": f"127.0.0.1:{admin}",
    }


def ask_over_grpc(port: int, token: bytes) -> int:
    """Return the status that Envoy would act on."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer: bytes = channel.unary_unary(CHECK)(check_message(token), timeout=30)
    return read_verdict(answer).status


def log_in(port: int) -> None:
    account = {"username": "alice", "password": PASSWORD}
    answer = post_json(port, "/auth/login", account)
    assert answer.status == 200, answer
    renewed = {"refresh_token": answer.json()["refresh_token"]}
    assert post_json(port, "/auth/refresh", renewed).status == 200


@pytest.mark.parametrize("docker", ["issuer"], indirect=True)
def test_issuer_image_serves_from_a_volume_and_writes_nothing_else(
    docker: Docker,
) -> None:
    port, admin = free_port(), free_port()
    url = f"sqlite+aiosqlite:///{DATA}/issuer.db"
    docker.settings(**issuer_settings(url, port, admin))
    docker.volume("data", DATA)
    docker.run("migrate")
    docker.run("create-admin", "alice", given=f"{PASSWORD}\n")
    process = docker.start(lambda: send(admin, "GET", "/readyz").status == 200)
    log_in(port)
    # The ports are none of the image's own: the check follows the settings.
    assert docker.check_health(process) == 0
    assert docker.check_health(process, ISSUER_ADMIN_BIND="0.0.0.0:1") == 1
    assert stop(process) == 0, process.log()


@pytest.mark.postgres
@pytest.mark.parametrize("docker", ["issuer"], indirect=True)
def test_issuer_image_serves_with_workers(
    docker: Docker, postgres: PostgresServer
) -> None:
    port, admin = free_port(), free_port()
    name = postgres.create_database()
    url = f"postgresql+asyncpg://postgres@/{name}?host=/run/postgresql"
    docker.settings(**issuer_settings(url, port, admin), ISSUER_WORKERS="2")
    docker.mount(postgres.directory, "/run/postgresql")
    docker.run("migrate")
    docker.run("create-admin", "alice", given=f"{PASSWORD}\n")
    process = docker.start(
        lambda: send(admin, "GET", "/readyz").status == 200, tmpfs=True
    )
    log_in(port)
    assert docker.check_health(process) == 0
    assert stop(process) == 0, process.log()


@pytest.mark.parametrize("docker", ["issuer-otel"], indirect=True)
def test_issuer_image_for_traces_serves_without_a_collector(docker: Docker) -> None:
    """The packages of traces are there; the other image would refuse the variable."""
    port, admin = free_port(), free_port()
    url = f"sqlite+aiosqlite:///{DATA}/issuer.db"
    docker.settings(
        **issuer_settings(url, port, admin),
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
    )
    docker.volume("data", DATA)
    process = docker.start(lambda: send(admin, "GET", "/readyz").status == 200)
    assert send(port, "GET", "/.well-known/jwks.json").status == 200
    assert stop(process) == 0, process.log()
    assert "tracing.failed" in process.log()


@pytest.mark.parametrize(
    ("docker", "workers"),
    [("verifier", "1"), ("verifier-grpc", "2")],
    indirect=["docker"],
)
def test_verifier_image_answers_compiled_and_starts_from_its_volume(
    docker: Docker, workers: str, request: pytest.FixtureRequest
) -> None:
    port, admin, grpc_port = free_port(), free_port(), free_port()
    has_grpc = "verifier-grpc" in request.node.callspec.id
    with served() as (issuer, url):
        docker.settings(
            VERIFIER_ISSUER_URL=ISSUER,
            VERIFIER_AUDIENCE=AUDIENCE,
            VERIFIER_JWKS_URL=f"{url}/.well-known/jwks.json",
            VERIFIER_FEED_URL=f"{url}/revocations",
            VERIFIER_FEED_TOKEN=SIMULATED_FEED_TOKEN,
            VERIFIER_BIND=f"127.0.0.1:{port}",
            VERIFIER_ADMIN_BIND=f"127.0.0.1:{admin}",
            VERIFIER_STATE_DIR=f"{DATA}/copies",
            VERIFIER_WORKERS=workers,
            VERIFIER_GRPC_BIND=f"127.0.0.1:{grpc_port}" if has_grpc else "",
        )
        volume = docker.volume("data", DATA)
        issuer.revoke(EntryKind.SID, "dead")
        tokens = [issuer.mint(), issuer.mint(sid="dead")]
        docker.run("check")
        for _ in range(2):
            process = docker.start(
                lambda: send(admin, "GET", "/readyz").status == 200,
                tmpfs=workers != "1",
            )
            headers = [[bearer(token.decode())] for token in tokens]
            answers = [send(port, "GET", "/verify/nginx", h).status for h in headers]
            assert answers == [200, 401]
            if has_grpc:
                assert [ask_over_grpc(grpc_port, token) for token in tokens] == answers
            assert json.loads(send(admin, "GET", "/status").body)["compiled"] is True
            assert docker.check_health(process) == 0
            assert docker.check_health(process, VERIFIER_ADMIN_BIND="[::1]:1") == 1
            assert stop(process) == 0, process.log()
            assert any(volume.rglob("*"))


@pytest.mark.parametrize("docker", PROGRAMS, indirect=True)
def test_health_check_requests_the_images_own_port(docker: Docker) -> None:
    """In a network of its own, with the addresses that the image sets."""
    if docker.program == "issuer":
        made = issuer_settings(f"sqlite+aiosqlite:///{DATA}/issuer.db", 8000, 8100)
        binds = ("ISSUER_BIND", "ISSUER_ADMIN_BIND")
        docker.settings(**{n: v for n, v in made.items() if n not in binds})
        docker.volume("data", DATA)
    else:
        docker.settings(
            VERIFIER_ISSUER_URL=ISSUER,
            VERIFIER_AUDIENCE=AUDIENCE,
            VERIFIER_FEED_TOKEN=SIMULATED_FEED_TOKEN,
        )
    process = docker.start(own_network=True)
    wait_until(lambda: has_begun(process, docker.image), what="its first process")
    wait_until(lambda: docker.check_health(process) == 0, deadline=90)
    assert stop(process) == 0, process.log()


@pytest.mark.parametrize("docker", PROGRAMS, indirect=True)
def test_the_image_holds_no_tool_and_lets_nothing_be_written(docker: Docker) -> None:
    container = docker.container()
    for command in (
        ["python", "-m", "pip", "--version"],
        ["gcc", "--version"],
        ["/bin/sh", "-c", "echo x >/app/x"],
        ["/bin/sh", "-c", "echo x >/tmp/tests"],
        ["/bin/sh", "-c", f"echo x >{DATA}/x"],
    ):
        assert container.run(command).returncode != 0, command
    shown = container.run(["/bin/sh", "-c", "id -u; id -g; cat /proc/1/status"]).stdout
    assert shown.startswith("65532\n65532\n")
    assert "CapBnd:\t0000000000000000" in shown
    assert "NoNewPrivs:\t1" in shown
