"""The gateways of HAProxy whose cost is compared."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from loadtests.bench.cpu import tree
from loadtests.bench.servers import Server, status
from loadtests.bench.setups import find
from loadtests.bench_native.cpu import (
    FEW,
    Around,
    Gateway,
    Starts,
    await_list,
    look,
    start_ours,
)
from loadtests.bench_native.haproxy_configs import (
    documented_haproxy,
    forget_signatures,
    jwt_haproxy,
    native_haproxy,
    unchecked_haproxy,
)
from loadtests.support.processes import wait_until


def _unchecked(name: str, around: Around, _many: int) -> Gateway:
    port, folder = around.servers.free_port(), around.folder(name)
    pid = _start(name, around, folder, unchecked_haproxy(folder, port), port)
    return Gateway(Server(port, (pid,)))


def _checked(
    name: str, around: Around, _many: int, *, write: Callable[..., list[Path]]
) -> Gateway:
    port, folder = around.servers.free_port(), around.folder(name)
    pid = _start(name, around, folder, write(folder, port, around), port)
    look(name, around, port, None)
    return Gateway(Server(port, (pid,)))


def _jwt(folder: Path, port: int, around: Around) -> list[Path]:
    return jwt_haproxy(folder, port, around.office.issuer, [around.office.jwk])


def _documented(folder: Path, port: int, around: Around) -> list[Path]:
    office = around.office
    return documented_haproxy(folder, port, office.issuer, office.public_pem)


def _native(name: str, around: Around, many: int, *, has_many: bool) -> Gateway:
    port, folder = around.servers.free_port(), around.folder(name)
    sid = around.source.add(name, many if has_many else FEW)
    settings = {
        "haproxy_master": f"unix:{_socket(folder)}",
        "haproxy_dir": folder / "haproxy",
        "max_staleness": 13,
    }
    # It writes the rules by which HAProxy starts.
    words = ["native", "haproxy"]
    native = start_ours(f"{name}-native", around, name, words, settings)
    files = native_haproxy(folder, port, threads=1)
    pid = _start(name, around, folder, files, port)
    await_list(name, around, port, sid)
    look(name, around, port, sid)
    return Gateway(Server(port, (pid, native)), native)


def _forgetful(name: str, around: Around, many: int) -> Gateway:
    gateway = _native(name, around, many, has_many=True)
    port, (master, _) = gateway.server.port, gateway.server.pids
    before = tree(master)
    forget_signatures(around.servers.folder / name)
    os.kill(master, signal.SIGUSR2)
    wait_until(lambda: not {*before[1:]} & {*tree(master)}, what=f"{name} is reloaded")
    good = around.token_header()
    wait_until(lambda: status(port, "/", good) == 200, what=f"{name} is open")
    return gateway


def _start(
    name: str, around: Around, folder: Path, files: Sequence[Path], port: int
) -> int:
    command = [find("haproxy") or "haproxy", "-W", "-S", f"{_socket(folder)},mode,600"]
    command += [part for file in files for part in ("-f", str(file))]
    return around.servers.start(name, command, lambda: status(port, "/") > 0)


def _socket(folder: Path) -> Path:
    return folder / "master.sock"


HAPROXY: Starts = {
    "haproxy-none": _unchecked,
    "haproxy-jwt": partial(_checked, write=_jwt),
    "haproxy-documented": partial(_checked, write=_documented),
    "haproxy-native-few": partial(_native, has_many=False),
    "haproxy-native-many": partial(_native, has_many=True),
    "haproxy-native-forgetful": _forgetful,
}
