"""Listening sockets of both programs, and what to do when one cannot be opened."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shared import log
from shared.configuration.addresses import Address, TcpAddress, UnixAddress, parse_bind
from shared.configuration.settings import SettingsError

_LOG: Final = logging.getLogger(__name__)
_BACKLOG: Final = 2_048
_EVERY_V6: Final = "::"

_NO_DIRECTORY: Final = "there is no such directory; make it, or choose another path"
_TCP_REASONS: Final = {
    errno.EADDRINUSE: "another program listens there; stop it or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address; write one of its own, or "
    "[::]:{port} for every address",
    errno.EAFNOSUPPORT: "this system has no IPv6; write an IPv4 address, or "
    "0.0.0.0:{port} for every address",
    errno.EACCES: "ports below 1024 need the capability CAP_NET_BIND_SERVICE; choose a "
    "higher port",
}
_UNIX_REASONS: Final = {
    errno.EADDRINUSE: "another program listens there; stop it or choose another path",
    errno.EEXIST: "a file that is no socket is there; remove it or choose another path",
    errno.ENOENT: _NO_DIRECTORY,
    errno.ENOTDIR: _NO_DIRECTORY,
    errno.EACCES: "this user may not make a file there; let it write into the directory, "
    "or choose another path",
    errno.EROFS: "the file system is read-only; mount a writable one there, or choose "
    "another path",
}


@contextlib.contextmanager
def listening(setting: str, bind: str) -> Iterator[socket.socket]:
    """Open a listening socket, and close it at the end of the context.

    The file of a unix socket is removed at the end. `[::]` also takes connections over
    IPv4 where the system allows it. For a host name the first IPv4 address is used, or
    else the first IPv6 address. A unix socket is open to the program's user and group,
    and replaces the file of a program that died. A warning is logged if every user can
    put another socket in its place.

    Args:
        setting: the setting that an error names.
        bind: `HOST:PORT` or `unix:/PATH`.

    Raises:
        SettingsError: the socket cannot be opened; the message has a remedy.
    """
    try:
        address = parse_bind(bind)
    except ValueError as error:
        raise SettingsError(f"{setting}: {error}") from None
    try:
        listener = _open(address)
    except OSError as error:
        reason = explain(address, error)
        raise SettingsError(f"{setting}: cannot listen on {bind}: {reason}") from None
    made = _identify(address)
    owner = os.getpid()
    if isinstance(address, UnixAddress):
        _warn_of_open_directory(setting, address.path)
    try:
        yield listener
    finally:
        listener.close()
        # A forked worker also leaves here, but the file belongs to its parent. A
        # program that has started since then has put its own file there.
        is_ours = os.getpid() == owner and _identify(address) == made
        if isinstance(address, UnixAddress) and is_ours:
            os.unlink(address.path)


@contextlib.contextmanager
def reserving(setting: str, bind: str) -> Iterator[str]:
    """Reserve an address for sockets that each worker opens itself.

    Some libraries take no open socket. With `SO_REUSEPORT` each worker can have one at
    the same TCP address, and the system spreads new connections over them. The socket
    that reserves the address does not listen, so it gets none of them; it keeps the
    address from programs of other users, and one that listens there is found at once.

    Of a unix socket only the path is examined. Its file is removed at the end of the
    context.

    Args:
        setting: the setting that an error names.
        bind: `HOST:PORT` or `unix:/PATH`.

    Yields:
        The address: numeric `HOST:PORT`, or `unix:/PATH`.

    Raises:
        SettingsError: the address cannot be used; the message has a remedy.
    """
    address = parse_bind(bind)
    try:
        reserved = _reserve(address)
    except OSError as error:
        reason = explain(address, error)
        raise SettingsError(f"{setting}: cannot listen on {bind}: {reason}") from None
    owner = os.getpid()
    try:
        yield _name(address, reserved)
    finally:
        if reserved is not None:
            reserved.close()
        elif isinstance(address, UnixAddress) and os.getpid() == owner:
            with contextlib.suppress(OSError):
                _remove_dead(address.path)


@contextlib.contextmanager
def closed_until_made(path: Path) -> Iterator[Path]:
    """Give a path at which grpcio can make a unix socket; then move it to `path`.

    grpcio makes the file with the mode that the process's mask leaves. It makes it in a
    closed directory, so that only our user and group can ever open it.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".g") as folder:
        made = Path(folder) / "s"
        yield made
        made.chmod(0o660)
        made.rename(path)


def _reserve(address: Address) -> socket.socket | None:
    """Return a bound TCP socket; None for a unix socket whose path is free."""
    if isinstance(address, UnixAddress):
        # Made and closed again: this finds what `_open_unix` would find.
        _open_unix(address.path).close()
        os.unlink(address.path)
        return None
    # It finds a program that listens there, also one with SO_REUSEPORT.
    with _open(address) as probe:
        family, place = probe.family, probe.getsockname()
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6 and address.host == _EVERY_V6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(place)
    except OSError:
        reserved.close()
        raise
    return reserved


def _name(address: Address, reserved: socket.socket | None) -> str:
    if isinstance(address, UnixAddress):
        return f"unix:{address.path}"
    if reserved is None:
        raise ValueError("a TCP address is reserved by a socket")
    host, port = reserved.getsockname()[:2]
    return (
        f"[{host}]:{port}" if reserved.family == socket.AF_INET6 else f"{host}:{port}"
    )


def _open(address: Address) -> socket.socket:
    if isinstance(address, UnixAddress):
        return _open_unix(address.path)
    if address.host == _EVERY_V6:
        return socket.create_server(
            (_EVERY_V6, address.port),
            family=socket.AF_INET6,
            backlog=_BACKLOG,
            dualstack_ipv6=socket.has_dualstack_ipv6(),
        )
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restarted program need not wait for the connections of the one before it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _open_unix(path: str) -> socket.socket:
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        # A unix peer is trusted (R1): the file's mode limits the access.
        os.chmod(path, 0o660)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_dead(path: str) -> None:
    """Remove the socket file of a program that died.

    Only a refused connection shows that the program died. If its queue is full, or if
    this user may not use the socket, the program is alive.

    Raises:
        OSError: EADDRINUSE when a program listens there, EEXIST when the file is not a
            socket.
    """
    try:
        # A link is not followed: `bind` does not follow it either.
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)


def _warn_of_open_directory(setting: str, path: str) -> None:
    """Log a warning if every user can make files beside the socket.

    Then every user can listen at its path, at the latest while this program does not
    run, and answer in its place: the gateway would obey. It is no error, because a
    volume of a pod has such a mode, and no user that is not of the pod.
    """
    directory = os.path.dirname(path)
    with contextlib.suppress(OSError):
        if os.stat(directory).st_mode & stat.S_IWOTH:
            advice = "every user can listen there instead; chmod o-w the directory"
            fields = {"setting": setting, "directory": directory, "advice": advice}
            log.event(_LOG, logging.WARNING, "listening.open_directory", **fields)


def _identify(address: Address) -> tuple[int, int, int] | None:
    """Return the identity of a file; its inode number alone may be reused."""
    if isinstance(address, TcpAddress):
        return None
    try:
        found = os.stat(address.path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def explain(address: Address, error: OSError) -> str:
    """Return why an address cannot be listened on, and behind `; ` what to do."""
    if isinstance(error, socket.gaierror):
        return "the name has no address; write an address of this machine"
    other = os.strerror(error.errno or 0)
    if isinstance(address, TcpAddress):
        return _TCP_REASONS.get(error.errno or 0, other).format(port=address.port)
    return _UNIX_REASONS.get(error.errno or 0, other)
