"""The command `health`: ask the running program on this machine whether it works.

A container engine runs it every few seconds, so it imports neither the program nor
pydantic, which would take a second of a processor. It reads the one setting that it
needs, from the same places as the program.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import sys
from typing import Final

from shared.commands.command_line import add_env_file_option, env_file_of
from shared.configuration.addresses import UnixAddress, parse_bind
from shared.configuration.env_file import DEFAULT_ENV_FILE, EnvFile, read_env_file
from shared.distribution import invoked_as

NAME: Final = "health"
HELP: Final = "ask the running program whether it works; status 0 or 1"
#: The default operators' port of each program.
DEFAULT_BINDS: Final = {"issuer": "127.0.0.1:8100", "verifier": "127.0.0.1:9100"}
#: Seconds for each step of one question.
_TIMEOUT: Final = 2.0
#: Bytes of an answer that are read.
_MAX_BODY: Final = 2_000
#: The check of a program that listens on every address uses loopback.
_NEAREST: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  not bound to


class UnhealthyError(Exception):
    """The program does not work; the message names the request and the answer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "--ready",
        action="store_true",
        help="ask /readyz, whether it can serve requests now, instead of /healthz",
    )


def main(program: str, arguments: list[str]) -> int:
    """Ask the program and print one line.

    Args:
        program: `issuer` or `verifier`; the check uses its operators' address.
        arguments: the command's own.

    Returns:
        The exit status: 0 when the program works, 1 when it does not or when the
        setting is bad. Container engines know no other.
    """
    parser = argparse.ArgumentParser(prog=f"{invoked_as(program)} {NAME}")
    add_arguments(parser)
    add_env_file_option(parser)
    options = parser.parse_args(arguments)
    return run(program, is_ready_asked=options.ready, env_file=env_file_of(options))


def run(
    program: str, *, is_ready_asked: bool, env_file: EnvFile = DEFAULT_ENV_FILE
) -> int:
    """Do the same as `main`, with parsed arguments."""
    path = "/readyz" if is_ready_asked else "/healthz"
    setting = f"{program.upper()}_ADMIN_BIND"
    try:
        bind = read_setting(setting, env_file) or DEFAULT_BINDS[program]
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201  its answer
        return 1
    try:
        ask(bind, path)
    except UnhealthyError as error:
        print(f"{setting}={bind}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except ValueError as error:
        # Without the value: it may be a secret in the wrong setting (R35).
        print(f"{setting}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{setting}={bind}: {path} answers 200")  # noqa: T201
    return 0


def read_setting(name: str, env_file: EnvFile) -> str:
    """Return a setting from the environment or the file; empty without one.

    Names may be in any case, and the environment wins, as in the programs.

    Raises:
        ValueError: for a file that the program would refuse.
    """
    prefix = name.partition("_")[0] + "_"
    for given in (os.environ, read_env_file(env_file, prefix)):
        for key, value in given.items():
            if key.upper() == name and value:
                return value
    return ""


def ask(bind: str, path: str) -> bytes:
    """Ask the program that listens at an address; return the beginning of its answer.

    Args:
        bind: as in the setting, `HOST:PORT` or `unix:/PATH`.
        path: of its operators' port, such as `/healthz`.

    Raises:
        UnhealthyError: there is no answer, or it is not 200.
        ValueError: the address is not one to listen on.
    """
    connection = _connection(bind)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(_MAX_BODY)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise UnhealthyError(f"{path} is not answered: {reason}") from None
    finally:
        connection.close()
    if answer.status != 200:
        text = body.decode("utf-8", "replace").strip()
        raise UnhealthyError(f"{path} answers {answer.status}: {text}")
    return body


def _connection(bind: str) -> http.client.HTTPConnection:
    address = parse_bind(bind)
    if isinstance(address, UnixAddress):
        return _UnixConnection(address.path)
    host = _NEAREST.get(address.host, address.host)
    return http.client.HTTPConnection(host, address.port, timeout=_TIMEOUT)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the unix socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
