"""The program that writes what is trusted into one gateway."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import socket
import ssl
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.gateway_programs.native import verifier_arguments, verifier_settings
from tests.support.processes import Process, ProcessFactory, free_port
from tests.support.raw_http import RawAnswer, bearer, read_answer, send


@dataclass(frozen=True, slots=True)
class NativeWriter:
    """A running writer.

    Attributes:
        process: the program.
        folder: where it and its gateway meet.
    """

    process: Process
    folder: str


def lets_pass(port: int, token: str, *, has_tls: bool = False) -> bool:
    """Return whether a gateway with this port lets a good token pass.

    The application behind it need not run: its absence is a 503 without Retry-After.
    """
    answer = _ask(port, token, has_tls=has_tls)
    return answer.status != 401 and answer.header("Retry-After") is None


def _ask(port: int, token: str, *, has_tls: bool) -> RawAnswer:
    name, value = bearer(token)
    head = f"GET / HTTP/1.1\r\nHost: a.test\r\n{name}: {value}\r\n\r\n"
    with contextlib.ExitStack() as opened:
        connection = socket.create_connection(("127.0.0.1", port), 20)
        opened.enter_context(connection)
        if has_tls:
            connection = opened.enter_context(_tls().wrap_socket(connection))
        connection.sendall(head.encode())
        return read_answer(connection, "GET")


def _tls() -> ssl.SSLContext:
    """Return a client's side that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def writer_settings(folder: str, admin: int) -> dict[str, str]:
    """Return the settings in which it differs from the stack's own verifier."""
    return {
        "VERIFIER_BIND": f"unix:{folder}/verifier.sock",
        "VERIFIER_ADMIN_BIND": f"127.0.0.1:{admin}",
        "VERIFIER_GRPC_BIND": "",
        "VERIFIER_STATE_DIR": "",
    }


def start_writer(
    kind: str,
    verifier_env: Mapping[str, str],
    factory: ProcessFactory,
    **settings: str,
) -> NativeWriter:
    """Start it; return when it has read keys and feed, and HAProxy's file is there.

    Args:
        kind: of the gateway, as `python -m verifier native` calls it.
        verifier_env: the environment of a verifier of the same issuer.
        factory: starts it.
        settings: further ones, by name.
    """
    # The paths of unix sockets are short.
    folder = tempfile.mkdtemp(prefix="gatehouse-native-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    admin = free_port()
    settings |= writer_settings(folder, admin) | verifier_settings(kind, folder)
    process = factory.start(
        f"native-{kind}",
        (sys.executable, "-m", "verifier", *verifier_arguments(kind)),
        env={**verifier_env, **settings},
        cwd=Path(folder),
        ready=lambda: send(admin, "GET", "/readyz").status == 200,
    )
    return NativeWriter(process, folder)
