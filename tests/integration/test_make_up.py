"""`make up` starts the whole stack, explains its use, and stops all of it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.demo.installation import ROOT, plain_environment
from deploy.gateway_programs import registry
from tests.support.installed_gateways import require
from tests.support.make_up import MakeUp
from tests.support.processes import ProcessFactory, is_alive, is_listening, wait_until
from tests.support.raw_http import bearer, post_json, send

pytestmark = pytest.mark.processes

DEMO_ENV = [
    "GATEWAY_URL",
    "ISSUER_URL",
    "",  # the verifier: a port, or a socket
    "ISSUER_ADMIN_URL",
    "VERIFIER_ADMIN_URL",
    "ADMIN_USERNAME",
    "ADMIN_PASSWORD",
    "CLIENT_ID",
    "CLIENT_SECRET",
    "PYTHON",
]


#: With people at work and with a policy file: one of each way of asking, over a socket,
#: HTTP and gRPC. That traffic and policies pass every gateway is tested in
#: tests/gateways, on the same configs.
BUSY = ("nginx", "envoy", "envoy-grpc")


@pytest.fixture(scope="module")
def kept_var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one start after another: whichever is first makes the accounts."""
    return tmp_path_factory.mktemp("kept") / "var"


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[ProcessFactory]:
    factory = ProcessFactory(tmp_path)
    yield factory
    factory.stop_all()


def ports(demo: dict[str, str]) -> dict[str, int]:
    urls = {name: url for name, url in demo.items() if name.endswith("_URL")}
    assert all(urlsplit(url).hostname == "127.0.0.1" for url in urls.values())
    return {name: urlsplit(url).port or 0 for name, url in urls.items()}


def log_in(demo: dict[str, str]) -> str:
    account = {"username": demo["ADMIN_USERNAME"], "password": demo["ADMIN_PASSWORD"]}
    answer = post_json(ports(demo)["ISSUER_URL"], "/auth/login", account)
    assert answer.status == 200
    return str(answer.json()["access_token"])


def run_load(var: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    """People at work for so many seconds."""
    load = (sys.executable, "loadtests/locustfile.py", "--users", "2")
    return subprocess.run(
        [*load, "--seconds", str(seconds)],
        cwd=ROOT,
        env=os.environ | {"GATEHOUSE_VAR": str(var)},
        capture_output=True,
        text=True,
        check=False,
    )


def check_people_work(var: Path) -> None:
    for seconds in (3, 6, 15, 60):
        load = run_load(var, seconds)
        # On a busy machine no client reaches the end of a session in three.
        if "through the gateway, logged out" in load.stderr:
            break
    assert load.returncode == 0, load.stdout + load.stderr
    assert "through the gateway, logged out" in load.stderr


@pytest.mark.parametrize("gateway", registry.NAMES)
def test_make_up_runs_everything_until_sigterm(
    gateway: str, factory: ProcessFactory, kept_var: Path
) -> None:
    require(gateway)
    up = MakeUp(factory, kept_var, gateway)
    demo = up.wait_until_up()

    is_asked_over_unix = registry.PROGRAMS[gateway].asks_over_unix
    verifier = "VERIFIER_SOCKET" if is_asked_over_unix else "VERIFIER_URL"
    assert list(demo) == [name or verifier for name in DEMO_ENV]
    assert stat.S_IMODE(up.var.stat().st_mode) == 0o700
    for file in ("demo.env", "secrets.env", "issuer.env", "verifier.env"):
        assert stat.S_IMODE((up.var / file).stat().st_mode) == 0o600
    at = ports(demo)
    assert send(at["GATEWAY_URL"], "GET", "/").status == 401
    session = [bearer(log_in(demo))]
    if registry.PROGRAMS[gateway].native:
        # HAProxy is up before it is reloaded with the first key.
        wait_until(lambda: send(at["GATEWAY_URL"], "GET", "/", session).status == 200)
    through = send(at["GATEWAY_URL"], "GET", "/a?b", headers=session)
    assert through.status == 200
    assert through.json()["path"] == "/a?b"
    assert through.json()["headers"]["x-auth-user"] == demo["ADMIN_USERNAME"]
    for operators in ("ISSUER_ADMIN_URL", "VERIFIER_ADMIN_URL"):
        assert send(at[operators], "GET", "/readyz").status == 200
    assert send(at["ISSUER_URL"], "POST", "/auth/logout", session).status == 200
    wait_until(lambda: send(at["GATEWAY_URL"], "GET", "/", session).status == 401)
    if gateway in BUSY:
        check_people_work(up.var)

    family = up.process.family()
    assert {"issuer", "verifier", "app", gateway} <= set(up.children)
    up.process.send_signal(signal.SIGTERM)
    up.process.wait_for_exit()

    wait_until(lambda: not any(map(is_alive, family)), what="all ended")
    assert not any(map(is_listening, at.values()))
    assert not is_asked_over_unix or not Path(demo["VERIFIER_SOCKET"]).exists()
    assert "Traceback" not in up.process.log()


def test_second_start_finds_account_and_database_again(
    factory: ProcessFactory, tmp_path: Path
) -> None:
    var = tmp_path / "var"
    first = MakeUp(factory, var)
    demo = first.wait_until_up()
    twice = MakeUp(factory, var)
    assert twice.process.wait_for_exit() != 0
    assert "already up" in twice.process.log()
    assert first.demo_env() == demo
    # Ctrl-C reaches the whole foreground group; here it is sent to the one it is for.
    os.kill(first.children["up"], signal.SIGINT)
    assert first.process.wait_for_exit() == 0

    again = MakeUp(factory, var).wait_until_up()

    lasting = ("ADMIN_PASSWORD", "CLIENT_ID", "CLIENT_SECRET")
    assert {n: again[n] for n in lasting} == {n: demo[n] for n in lasting}
    log_in(again)
    for program in ("issuer", "verifier"):
        # The settings that the start wrote are those of the programs that run.
        command = ("--env-file", var / f"{program}.env", "check", "--quiet")
        checked = subprocess.run(
            [sys.executable, "-m", program, *command],
            cwd=ROOT,
            env=plain_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_two_that_start_at_once_have_different_ports(
    factory: ProcessFactory, tmp_path: Path
) -> None:
    ups = [MakeUp(factory, tmp_path / name) for name in ("one", "other")]
    one, other = (up.wait_until_up() for up in ups)
    urls = {name for name in one if name.endswith("_URL")}
    assert all(one[name] != other[name] for name in urls)
    for up in ups:
        os.kill(up.children["up"], signal.SIGTERM)
    assert [up.process.wait_for_exit() for up in ups] == [0, 0]


@pytest.mark.parametrize("victim", ["verifier", "issuer"])
def test_death_of_one_program_is_reported_and_stops_the_rest(
    victim: str, factory: ProcessFactory, tmp_path: Path
) -> None:
    up = MakeUp(factory, tmp_path / "var")
    up.wait_until_up()
    family = up.process.family()

    os.kill(up.children[victim], signal.SIGKILL)

    assert up.process.wait_for_exit() != 0
    assert f"{victim} ended with code -9" in up.process.log()
    wait_until(lambda: not any(map(is_alive, family)), what="all ended")


@pytest.mark.parametrize("gateway", BUSY)
def test_make_up_tries_a_policy_file(
    gateway: str, factory: ProcessFactory, kept_var: Path, tmp_path: Path
) -> None:
    """docs/policies.md: the gateway asks the policy `default` of the file."""
    require(gateway)
    file = tmp_path / "policies.toml"
    file.write_text('[[policies.default.rules]]\npath = "/a/**"\npublic = true')
    up = MakeUp(factory, kept_var, gateway, file)
    gateway_port = ports(up.wait_until_up())["GATEWAY_URL"]
    assert send(gateway_port, "GET", "/a/b").status == 200
    assert send(gateway_port, "GET", "/").status == 403


def test_unknown_gateway_is_refused_by_name(
    factory: ProcessFactory, tmp_path: Path
) -> None:
    up = MakeUp(factory, tmp_path / "var", "other")
    assert up.process.wait_for_exit() != 0
    assert (
        "no such gateway: other; there are nginx, envoy, envoy-grpc" in up.process.log()
    )
