"""R55: the units have their restrictions, here and by systemd's own judgement.

The first tests show that the stand-in for systemd denies and sees it: without them a
program that passes under it would show nothing.
"""

from __future__ import annotations

import errno
import json
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import ProcessFactory
from tests.support.unit_file import UNITS, expand, shipped
from tests.support.unit_service import UnitService

PROGRAMS = ["issuer", "verifier"]
SIGSYS = 128 + 31
#: Exposure by `systemd-analyze security`, in tenths; a service without restrictions has
#: 96.
WORST_EXPOSURE = 15

pytestmark = pytest.mark.processes


def service_of(unit: Path, machine: Path, processes: ProcessFactory) -> UnitService:
    return UnitService(unit, machine / "machine", processes, {})


def run_python(service: UnitService, script: str) -> tuple[int, str]:
    """Run a line of Python under the unit; return its status and output."""
    python = service.unit.command("ExecStart")[0]
    done = service.execute(python, "-c", script)
    return done.returncode, done.stdout + done.stderr


def test_a_filter_without_an_error_ends_the_program(
    machine: Path, processes: ProcessFactory, tmp_path: Path
) -> None:
    """The unit as it was: SIGSYS, and the call that caused it is written down."""
    unit = tmp_path / "gatehouse-issuer.service"
    lines = (UNITS / unit.name).read_text().splitlines(keepends=True)
    later = ("SystemCallErrorNumber", "SystemCallFilter=setpriority")
    unit.write_text("".join(line for line in lines if not line.startswith(later)))
    service = service_of(unit, machine, processes)
    status, _ = run_python(service, "import os; os.setpriority(0, 0, 5)")
    assert status == SIGSYS
    (denial,) = service.denials()
    assert denial.startswith("setpriority(")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("name", "script", "error"),
    [
        ("chown", "os.chown('.', 1, 1)", errno.EPERM),
        ("sched_setaffinity", "os.sched_setaffinity(0, {0})", errno.EPERM),
        ("socket", "socket.socket(socket.AF_NETLINK)", errno.EAFNOSUPPORT),
        ("socket", "socket.socket(socket.AF_PACKET)", errno.EAFNOSUPPORT),
        ("mmap", "mmap.mmap(-1, 4096, prot=7)", errno.EPERM),
        ("unshare", "libc(libc.unshare(0x10000000))", errno.EPERM),
        ("clone", "libc(libc.syscall(56, 0x10000011, 0, 0, 0, 0))", errno.EPERM),
        ("ptrace", "libc(libc.ptrace(0, 0, 0, 0))", errno.EPERM),
        ("personality", "libc(libc.personality(8))", errno.EPERM),
        ("chmod", "open('x', 'w'); os.chmod('x', 0o4755)", errno.EPERM),
        ("openat", "os.open('x', os.O_CREAT | os.O_WRONLY, 0o4755)", errno.EPERM),
    ],
)
def test_a_denied_call_is_an_error_and_is_seen(
    program: str,
    name: str,
    script: str,
    error: int,
    machine: Path,
    processes: ProcessFactory,
) -> None:
    unit = UNITS / f"gatehouse-{program}.service"
    service = service_of(unit, machine, processes)
    status, shown = run_python(service, _CATCHING.format(script=script))
    assert (status, shown) == (0, f"{error}\n")
    # ctypes alone asks for memory that is written and executed.
    assert name in {denial.partition("(")[0] for denial in service.denials()}


_CATCHING = """
import ctypes, mmap, os, socket
class Library(ctypes.CDLL):
    def __call__(self, result):
        if result < 0:
            raise OSError(ctypes.get_errno(), "denied")
libc = Library(None, use_errno=True)
try:
    {script}
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_can_be_written_but_the_units_own_directories(
    program: str, machine: Path, processes: ProcessFactory
) -> None:
    unit = UNITS / f"gatehouse-{program}.service"
    service = service_of(unit, machine, processes)
    places = [
        *("/", "/etc/gatehouse", "/opt/gatehouse", "/usr", "/var/lib", "/run"),
        *("/root", "/home", "/tmp", f"/var/lib/gatehouse-{program}"),
        f"/run/gatehouse-{program}",
    ]
    script = (
        "import json, os, sys\n"
        "def may(place):\n"
        "    try: open(place + '/x', 'w').close()\n"
        "    except OSError: return False\n"
        "    return True\n"
        f"print(json.dumps([p for p in {places} if may(p)]))"
    )
    status, shown = run_python(service, script)
    assert status == 0, shown
    assert json.loads(shown) == places[-3:]
    status, shown = run_python(
        service, "import os; print(os.getresuid(), os.listdir())"
    )
    assert shown == f"{(service.user,) * 3} ['x']\n"
    _, shown = run_python(service, "print(open('/proc/self/status').read())")
    assert "CapBnd:\t0000000000000000" in shown
    assert "NoNewPrivs:\t1" in shown


def test_a_key_that_is_not_done_here_is_not_passed_over(
    machine: Path, processes: ProcessFactory, tmp_path: Path
) -> None:
    """A restriction that no test applies must not look tested."""
    unit = tmp_path / "gatehouse-issuer.service"
    text = (UNITS / unit.name).read_text()
    unit.write_text(text.replace("[Install]", "ProcSubset=pid\n[Install]"))
    status, shown = run_python(service_of(unit, machine, processes), "print(1)")
    assert status != 0
    assert "not done here: ProcSubset" in shown


@pytest.mark.parametrize("program", PROGRAMS)
def test_filter_is_an_allowed_list_that_answers_with_an_error(program: str) -> None:
    unit = shipped(program)
    assert unit.value("Service.SystemCallErrorNumber") == "EPERM"
    allowed = unit.allowed_calls()
    assert {"read", "openat", "execve"} <= allowed
    assert not allowed & (expand("@privileged") - expand("@default"))
    beyond = {"setpriority"} if program == "issuer" else set()
    assert allowed & expand("@resources") == beyond


@pytest.mark.parametrize("program", PROGRAMS)
def test_systemd_finds_no_fault_in_the_unit(program: str, tmp_path: Path) -> None:
    """The command's path is that of an installation: here any program stands for it."""
    unit = tmp_path / f"gatehouse-{program}.service"
    text = (UNITS / unit.name).read_text()
    unit.write_text(text.replace("/opt/gatehouse/.venv/bin/python", "/usr/bin/env"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    shown = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, shown) == (0, [])


@pytest.mark.parametrize("program", PROGRAMS)
def test_systemd_finds_the_unit_little_exposed(program: str) -> None:
    judged = subprocess.run(
        [
            *("systemd-analyze", "security", "--offline=true", "--no-pager"),
            f"--threshold={WORST_EXPOSURE}",
            UNITS / f"gatehouse-{program}.service",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr
