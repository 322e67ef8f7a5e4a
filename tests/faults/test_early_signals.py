"""A reload signal before the program handles signals does not end it (R59).

`systemctl reload` and a renewed certificate's hook may follow a start at once, and
systemd restarts nothing that SIGHUP has ended. Settings come from a pipe here, so the
program waits for the test at the very begin.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.processes import Process, ProcessFactory, free_port, wait_until
from tests.support.programs import PROGRAMS, Program

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[2]
_MAIN = "import sys; from {}.__main__ import main; sys.exit(main())"


@pytest.mark.parametrize("is_command", [False, True], ids=["module", "command"])
@pytest.mark.parametrize("program", PROGRAMS, ids=["issuer", "verifier"])
def test_reload_at_process_start_does_not_end_the_program(
    factory: ProcessFactory, tmp_path: Path, program: Program, is_command: bool
) -> None:
    name = program.prefix.strip("_").lower()
    settings = program.env(
        BIND=f"127.0.0.1:{free_port()}", ADMIN_BIND=f"127.0.0.1:{free_port()}"
    )
    if name == "issuer":
        settings["ISSUER_DATABASE_URL"] = f"sqlite+aiosqlite:///{tmp_path / 'i.db'}"
    pipe = tmp_path / ".env"
    os.mkfifo(pipe)
    begin = ["-c", _MAIN.format(name)] if is_command else ["-m", name]
    process = factory.start(
        name,
        [sys.executable, *begin],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    with os.fdopen(open_beside(pipe, process), "w") as end:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR2)
        end.writelines(f"{key}={value}\n" for key, value in settings.items())
    # Written by one process that must have another in its place.
    process.wait_until(lambda: "worker.not_replaced" in process.log())
    assert process.terminate() == 0


def open_beside(pipe: Path, process: Process) -> int:
    """Return the pipe's writing end once the program reads from it."""
    opened: list[int] = []

    def is_read() -> bool:
        try:
            opened.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return process.exit_code is not None
        return True

    wait_until(is_read)
    return opened[0]
