"""`--env-file FILE` stands for `.env`: at the start, in workers, and at a reload."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from issuer.settings.issuer_settings import IssuerSettings
from issuer.startup.reload import renewed
from shared.commands.command_line import command_of
from shared.configuration.env_file import EnvFile
from tests.support.processes import ProcessFactory, free_port
from tests.support.programs import HUSH, PROGRAMS, Desk
from tests.support.raw_http import send


def write(path: Path, desk: Desk, **changes: str) -> Path:
    env = desk.program.env(**changes)
    path.write_text("".join(f"{name}={text}\n" for name, text in env.items()))
    path.chmod(0o644)
    return path


def test_the_file_replaces_the_other_one(desk: Desk, tmp_path: Path) -> None:
    """A line of `.env` is not even read, so that it cannot be wrong either."""
    desk.write("no line of ours\n" + f"{desk.program.prefix}NONE=1\n")
    file = write(tmp_path / "named.env", desk, AUDIENCE="named")
    name = f"{desk.program.prefix}AUDIENCE"
    # By its name alone: the plain user may not look up its folder.
    for words in (["--env-file", file.name], [f"--env-file={file.name}"]):
        shown = desk.show({}, *words)
        assert (shown.status, shown.err) == (0, "")
        assert shown.values[name] == "named"
    # The environment comes before the file.
    assert desk.show({name: "other"}, *words).values[name] == "other"


def test_the_option_may_stand_behind_the_command(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "named.env", desk, AUDIENCE="named")
    main = desk.program.main
    assert main([desk.program.show, "--env-file", str(file)]) == 0
    assert "AUDIENCE=named" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_an_error(desk: Desk) -> None:
    """With the defaults in its place, limits that were written would not hold."""
    shown = desk.show(desk.program.env(), "--env-file", "away.env")
    assert shown.status == 2
    assert shown.err == (
        "--env-file: away.env is not there; name a file of NAME=VALUE lines\n"
    )


def test_a_file_that_may_not_be_read_is_an_error(desk: Desk, tmp_path: Path) -> None:
    file = write(tmp_path / "named.env", desk, AUDIENCE=HUSH)
    file.chmod(0)
    for path, reason in (
        (file.name, "may not be read by this user"),
        (".", "is a directory"),
    ):
        shown = desk.show({}, "--env-file", path)
        assert shown.status == 2
        assert shown.err == (
            f"{path}: {reason}; put a readable UTF-8 file there or name another one\n"
        )


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([], None),
        (["--env-file", "check"], None),
        (["--env-file=x"], None),
        (["--env-file", "x", "serve"], "serve"),
        (["check", "--env-file", "x"], "check"),
        (["--env-file"], None),
    ],
)
def test_a_program_knows_early_whether_it_serves(
    words: list[str], command: str | None
) -> None:
    """A signal to reload would end it before its handlers are there."""
    assert command_of(words) == command


def test_a_reload_of_the_issuer_reads_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program,) = (p for p in PROGRAMS if p.prefix == "ISSUER_")
    monkeypatch.setattr("os.environ", {})
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "named.env"

    def put(token: str) -> None:
        env = program.env(FEED_TOKEN=token)
        file.write_text("".join(f"{name}={text}\n" for name, text in env.items()))

    put("a" * 32)
    settings = program.load(EnvFile.named(str(file)))  # type: ignore[call-arg]
    assert isinstance(settings, IssuerSettings)
    put("b" * 32)
    (tmp_path / ".env").write_text(f"ISSUER_FEED_TOKEN={'c' * 32}\n")
    found = renewed(settings)
    assert found.feed_token.get_secret_value() == "b" * 32
    file.unlink()
    # A reload makes nothing worse.
    assert renewed(found).feed_token.get_secret_value() == "b" * 32


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[ProcessFactory]:
    made = ProcessFactory(tmp_path)
    yield made
    made.stop_all()


@pytest.mark.processes
def test_workers_and_a_reload_see_the_same_file(
    factory: ProcessFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers of a verifier; each takes the new feed token at HUP."""
    (program,) = (p for p in PROGRAMS if p.prefix == "VERIFIER_")
    admin = free_port()
    file = tmp_path / "named.env"

    def put(token: str) -> None:
        env = program.env(
            FEED_TOKEN=token,
            ISSUER_URL=f"http://127.0.0.1:{free_port()}",
            BIND=f"127.0.0.1:{port}",
            ADMIN_BIND=f"127.0.0.1:{admin}",
            WORKERS="2",
            START_WAIT="0",
        )
        file.write_text("".join(f"{name}={text}\n" for name, text in env.items()))

    port = free_port()
    put("a" * 32)
    process = factory.start(
        "verifier",
        [sys.executable, "-m", "verifier", "--env-file", "named.env"],
        env={"PYTHONPATH": os.getcwd()},
        cwd=tmp_path,
    )
    process.wait_until(lambda: send(admin, "GET", "/healthz").status == 200)
    put("b" * 32)
    process.send_signal(signal.SIGHUP)
    # The supervisor's line and those of both workers.
    process.wait_until(lambda: process.log().count("reload.done") >= 2)
    lines = [line for line in process.log().splitlines() if "reload.done" in line]
    assert all("VERIFIER_FEED_TOKEN" in line for line in lines), lines
    assert process.terminate() == 0
