"""`make up` as a process, in a folder of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.demo.installation import ROOT, plain_environment, read_env
from tests.support.gateway_kinds.table import KINDS
from tests.support.processes import Process, ProcessFactory

IS_UP = "gatehouse is up"


class MakeUp:
    """A running `make up`.

    Attributes:
        process: make itself.
        var: the folder it works in.
    """

    def __init__(
        self,
        factory: ProcessFactory,
        var: Path,
        gateway: str | None = None,
        policy_file: Path | None = None,
    ) -> None:
        self.var = var
        var.mkdir(parents=True, exist_ok=True)
        env = plain_environment() | {"GATEHOUSE_VAR": str(var)}
        # A make that runs these tests must not count as the parent of this one.
        for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
            env.pop(name, None)
        if gateway is not None:
            env["GATEHOUSE_UP_GATEWAY"] = gateway
        if policy_file is not None:
            env["GATEHOUSE_UP_POLICY_FILE"] = str(policy_file)
        # The environment these tests run in is ready; -o keeps make from setting it up
        # again under their feet.
        here = sys.prefix
        command = ("make", "-o", f"{here}/.ready", f"UP_VENV={here}", "up")
        self.process: Process = factory.start("make-up", command, env=env, cwd=ROOT)

    def wait_until_up(self) -> dict[str, str]:
        """Return demo.env once everything runs.

        Raises:
            NotInTimeError: when it ends or is not up in time.
        """
        self.process.wait_until(
            lambda: IS_UP in self.process.log().splitlines(),
            what=IS_UP,
        )
        return self.demo_env()

    def demo_env(self) -> dict[str, str]:
        """Return the names and values of demo.env."""
        return read_env(self.var / "demo.env")

    @property
    def children(self) -> dict[str, int]:
        """The pids of the programs that run under it, by name."""
        found: dict[str, int] = {}
        signs = _SIGNS | {name: kind.process_sign for name, kind in KINDS.items()}
        for pid in self.process.family() - {self.process.pid}:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            line = b" ".join(words).decode()
            for name, sign in signs.items():
                if sign in line:
                    found.setdefault(name, pid)
        return found


_SIGNS = {
    "issuer": "-m issuer",
    "verifier": "-m verifier",
    "app": "deploy.demo.app:app",
    "up": "deploy.demo.up",
}
