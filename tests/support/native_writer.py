"""The program that writes what is trusted into one gateway."""

from __future__ import annotations

import atexit
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.gateway_programs.native import verifier_arguments, verifier_settings
from tests.support.processes import Process, ProcessFactory, free_port
from tests.support.raw_http import send

_PROVEN = r'^gatehouse_verifier_native_writes_total\{outcome="proven"\} [1-9]'


@dataclass(frozen=True, slots=True)
class NativeWriter:
    """A running writer.

    Attributes:
        process: the program.
        folder: where it and its gateway meet.
        admin: its operators' port.
    """

    process: Process
    folder: str
    admin: int

    def has_written(self) -> bool:
        """Return whether all of the gateway has what is trusted."""
        counted = send(self.admin, "GET", "/metrics").body.decode()
        return re.search(_PROVEN, counted, re.MULTILINE) is not None


def writer_settings(folder: str, admin: int) -> dict[str, str]:
    """Return the settings in which it differs from the stack's own verifier."""
    return {
        "VERIFIER_BIND": f"unix:{folder}/verifier.sock",
        "VERIFIER_ADMIN_BIND": f"127.0.0.1:{admin}",
        "VERIFIER_GRPC_BIND": "",
        "VERIFIER_STATE_DIR": "",
    }


def start_writer(
    kind: str, verifier_env: Mapping[str, str], factory: ProcessFactory
) -> NativeWriter:
    """Start it; return when it has read keys and feed, and HAProxy's file is there.

    Args:
        kind: of the gateway, as `python -m verifier native` calls it.
        verifier_env: the environment of a verifier of the same issuer.
        factory: starts it.
    """
    # The paths of unix sockets are short.
    folder = tempfile.mkdtemp(prefix="gatehouse-native-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    admin = free_port()
    settings = writer_settings(folder, admin) | verifier_settings(kind, folder)
    process = factory.start(
        f"native-{kind}",
        (sys.executable, "-m", "verifier", *verifier_arguments(kind)),
        env={**verifier_env, **settings},
        cwd=Path(folder),
        ready=lambda: send(admin, "GET", "/readyz").status == 200,
    )
    return NativeWriter(process, folder, admin)
