"""Both programs' `main`, run inside the test with settings of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from issuer.commands.main import main as issuer_main
from issuer.settings.issuer_settings import load_settings as load_issuer
from shared.configuration.settings import ProgramSettings
from verifier.commands.main import main as verifier_main
from verifier.settings import load_settings as load_verifier

FEED_TOKEN = "feed-token-of-32-characters-or-more"
KEY = "A" * 43
#: Stands where it must not be repeated.
HUSH = "hush-hush-hush-hush-hush-hush-hush-hush"
_NOBODY = 65_534


class Program(NamedTuple):
    """One of the two programs.

    Attributes:
        prefix: of its settings.
        main: its entry point.
        load: reads its settings.
        show: the command that prints the settings in force.
        least: the least that must be set, without the prefix.
    """

    prefix: str
    main: Callable[[list[str]], int]
    load: Callable[[], ProgramSettings]
    show: str
    least: Mapping[str, str]

    def env(self, **changes: str) -> dict[str, str]:
        """Return good settings with `changes`, as an environment has them."""
        return {
            f"{self.prefix}{name}": text
            for name, text in (self.least | changes).items()
        }


PROGRAMS = (
    Program(
        "ISSUER_",
        issuer_main,
        load_issuer,
        "settings",
        {
            "URL": "https://issuer.test",
            "AUDIENCE": "api",
            "FEED_TOKEN": FEED_TOKEN,
            "KEY_ENCRYPTION_KEYS": f"k1:{KEY}",
            "PASSWORD_PEPPERS": f"p1:{KEY}",
            "REFRESH_KEYS": f"r1:{KEY}",
        },
    ),
    Program(
        "VERIFIER_",
        verifier_main,
        load_verifier,
        "settings",
        {
            "ISSUER_URL": "https://issuer.test",
            "AUDIENCE": "api",
            "FEED_TOKEN": FEED_TOKEN,
        },
    ),
)


class Shown(NamedTuple):
    """The end of a program's run."""

    status: int
    out: str
    err: str

    @property
    def values(self) -> dict[str, str]:
        """The settings it printed, by name."""
        lines = (line.partition("=") for line in self.out.splitlines())
        return {name: text for name, _, text in lines}


@contextlib.contextmanager
def _plain_user() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


class Desk:
    """Runs one program where nothing but the test's settings reach it.

    Attributes:
        program: which one.
        directory: the working directory, without a `.env` at first.
    """

    def __init__(
        self,
        program: Program,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.program = program
        self.directory = directory
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def show(self, env: Mapping[str, str] | None = None, *words: str) -> Shown:
        """Run the command that prints the settings in force; a traceback fails the
        test.

        It runs without root's right to read everything. `words` stand before the
        command.
        """
        self.directory.chmod(0o755)
        with self._monkeypatch.context() as patch:
            patch.setattr("os.environ", dict(env or {}))
            patch.chdir(self.directory)
            with _plain_user():
                status = self.program.main([*words, self.program.show])
        out, err = self._capsys.readouterr()
        return Shown(status, out, err)

    def load(self, env: Mapping[str, str]) -> ProgramSettings:
        """Return the settings that the program reads from good ones."""
        with self._monkeypatch.context() as patch:
            patch.setattr("os.environ", dict(env))
            patch.chdir(self.directory)
            return self.program.load()

    def refusal(self, env: Mapping[str, str] | None = None) -> str:
        """Run it with bad settings; return the one line it ends with."""
        shown = self.show(env)
        assert shown.status == 2, shown
        (line,) = shown.err.splitlines()
        return line

    def write(self, text: str | bytes) -> Path:
        """Write `.env` and return its path."""
        path = self.directory / ".env"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path
