"""A shipped unit, run on a machine that has no systemd: start, commands, stop."""

from __future__ import annotations

import grp
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import seccomp
from tests.support.processes import Process, ProcessFactory
from tests.support.unit_file import ROOT, Unit, read_unit
from tests.support.unit_root import Places
from tests.support.unit_sandbox import Spec

#: The first number that systemd gives to a dynamic user.
_DYNAMIC_USER = 61_184


class UnitService:
    """One unit with the directories that it finds and makes on its machine.

    Args:
        unit: path of the unit file.
        folder: for its directories; made.
        factory: starts and stops its processes.
        settings: the contents of the unit's environment file.
        binds: further paths of the machine: here, and inside.
    """

    def __init__(
        self,
        unit: Path,
        folder: Path,
        factory: ProcessFactory,
        settings: Mapping[str, str],
        binds: Mapping[Path, str] | None = None,
    ) -> None:
        self._path = unit
        self.unit: Unit = read_unit(unit)
        self.places = Places(folder)
        self._factory = factory
        self._binds = dict(binds or {})
        self._denials = folder / "denials"
        group = self.unit.value("Service.Group")
        self.group = grp.getgrnam(group).gr_gid if group else _DYNAMIC_USER
        self.user = _DYNAMIC_USER
        self._lay_out(settings)

    @property
    def runtime_directory(self) -> Path:
        """The unit's directory under /run, as it is reached from the outside."""
        return self.places.folder / "run" / self.unit.words("RuntimeDirectory")[0]

    @property
    def state_directory(self) -> Path:
        """The unit's directory under /var/lib."""
        return self.places.folder / "var/lib" / self.unit.words("StateDirectory")[0]

    def denials(self) -> list[str]:
        """Return the system calls that were denied so far, one line each."""
        return self._denials.read_text().splitlines()

    def unforeseen_denials(self) -> list[str]:
        """Return the denied calls without those that the C library goes on without.

        `getaddrinfo` asks over AF_NETLINK which addresses the machine has; without an
        answer it takes it that there are IPv4 and IPv6.
        """
        netlink = f"socket({socket.AF_NETLINK:#x},"
        return [line for line in self.denials() if not line.startswith(netlink)]

    def start(self, ready: Callable[[], object], *, deadline: float = 60.0) -> Process:
        """Run `ExecStartPre`, then `ExecStart` until it is ready.

        Raises:
            AssertionError: when `ExecStartPre` fails.
            NotInTimeError: when the program ends or is not ready in time.
        """
        before = self.unit.command("ExecStartPre")
        if before:
            done = self._run(before)
            assert done.returncode == 0, done.stdout + done.stderr
        command = self._launcher(self.unit.command("ExecStart"))
        return self._factory.start(
            self.unit.name, command, cwd=ROOT, ready=ready, deadline=deadline
        )

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command of the unit's program under the unit's restrictions."""
        return self._run([*self.unit.command("ExecStart"), *arguments], given)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run any command under the unit's restrictions."""
        return self._run(list(command))

    def _run(
        self, command: list[str], given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._launcher(command),
            cwd=ROOT,
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def _launcher(self, command: list[str]) -> list[str]:
        spec = Spec(
            unit=str(self._path),
            places=str(self.places.folder),
            command=command,
            user=self.user,
            group=self.group,
            binds=[(str(here), inside) for here, inside in self._binds.items()],
            denials=str(self._denials),
        )
        return [sys.executable, "-m", "tests.support.unit_sandbox", spec.to_json()]

    def _lay_out(self, settings: Mapping[str, str]) -> None:
        folder = self.places.folder
        self.places.root.mkdir(parents=True)
        self._denials.touch()
        (folder / "etc/gatehouse").mkdir(parents=True)
        file = self.places.environment_file(self.unit)
        file.touch(mode=0o600)
        file.write_text("".join(f"{n}={v}\n" for n, v in settings.items()))
        for here, _, mode in self.places.directories(self.unit):
            here.mkdir(parents=True)
            os.chown(here, self.user, self.group)
            here.chmod(mode)


@contextmanager
def machine_folder() -> Iterator[Path]:
    """Give a folder that other users can reach, for the length of the block.

    Running a unit needs root, systemd's lists and libseccomp. Without them a test is
    skipped, and in CI it fails: a part without a test run must not look green.
    """
    if missing := _missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI runs the units: {missing}")
        pytest.skip(missing)
    folder = Path(tempfile.mkdtemp(prefix="gatehouse-unit-"))
    # A gateway's user passes through here to the socket.
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def can_connect(path: int | Path, user: int, group: int) -> bool:
    """Return whether a process of this user and group may connect there."""
    script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", script, str(path)],
        user=user,
        group=group,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 or "PermissionError" in done.stderr, done.stderr
    return done.returncode == 0


def _missing() -> str:
    """Return the tools that this machine lacks to run a unit, empty when none."""
    if os.geteuid() != 0:
        return "running a unit needs root"
    if shutil.which("systemd-analyze") is None:
        return "systemd-analyze is needed: Debian package systemd"
    try:
        seccomp.load_library()
    except OSError:
        return "libseccomp.so.2 is needed: Debian package libseccomp2"
    return ""
