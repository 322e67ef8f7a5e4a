"""A listening socket is opened, or the message has the reason and a remedy."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.configuration.settings import SettingsError
from shared.listening import listening, reserving
from tests.support.processes import free_port

NOBODY = 65_534
FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user may write to, below ones that all may search."""
    with tempfile.TemporaryDirectory(prefix="tests-") as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


@contextmanager
def plain_user() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def refusal(bind: str) -> str:
    """Return why it cannot be listened on, for a user without rights."""
    with (
        plain_user(),
        pytest.raises(SettingsError) as caught,
        listening("GATE_BIND", bind),
    ):
        pass
    head = f"GATE_BIND: cannot listen on {bind}: "
    assert str(caught.value).startswith(head)
    return str(caught.value).removeprefix(head)


def connects(family: socket.AddressFamily, place: object) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        return probe.connect_ex(place) == 0  # type: ignore[arg-type]


def test_the_wildcard_of_ipv6_takes_ipv4_too() -> None:
    port = free_port()
    with listening("GATE_BIND", f"[::]:{port}"):
        assert connects(socket.AF_INET6, ("::1", port))
        assert connects(socket.AF_INET, ("127.0.0.1", port))
    assert not connects(socket.AF_INET6, ("::1", port))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_ipv4_is_listened_on_where_it_is_named(host: str) -> None:
    port = free_port()
    with listening("GATE_BIND", f"{host}:{port}"):
        assert connects(socket.AF_INET, ("127.0.0.1", port))
        assert not connects(socket.AF_INET6, ("::1", port))


def test_an_ipv6_address_is_listened_on_alone() -> None:
    port = free_port()
    with listening("GATE_BIND", f"[::1]:{port}"):
        assert connects(socket.AF_INET6, ("::1", port))
        assert not connects(socket.AF_INET, ("127.0.0.1", port))


def test_a_port_can_be_had_again_at_once() -> None:
    port = free_port()
    for _ in range(2):
        with (
            listening("GATE_BIND", f"127.0.0.1:{port}") as listener,
            socket.create_connection(("127.0.0.1", port)),
        ):
            listener.accept()[0].close()


def test_a_unix_socket_gets_the_group_of_its_directory_with_setgid(
    folder: Path,
) -> None:
    """docs/gateways.md: so a verifier without systemd gives it to the gateway."""
    others = set(os.getgroups()) if os.geteuid() else {65_534}
    group = max(others - {os.getegid()}, default=os.getegid())
    os.chown(folder, -1, group)
    folder.chmod(0o2750)
    with listening("GATE_BIND", f"unix:{folder}/x.sock"):
        found = (folder / "x.sock").stat()
    assert (found.st_gid, found.st_mode & 0o777) == (group, 0o660)


def test_a_unix_socket_is_for_its_group_and_removed_at_the_end(folder: Path) -> None:
    path = folder / "x.sock"
    for _ in range(2):
        with listening("GATE_BIND", f"unix:{path}"):
            assert path.stat().st_mode & 0o777 == 0o660
            assert connects(socket.AF_UNIX, str(path))
        assert not path.exists()


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o1777, True), (0o2750, False), (0o2770, False)]
)
def test_a_directory_that_every_user_may_write_to_is_named(
    folder: Path, mode: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Another user could answer in the program's place while it is stopped."""
    folder.chmod(mode)
    with listening("GATE_BIND", f"unix:{folder}/x.sock"):
        pass
    assert ("listening.open_directory" in caplog.messages) == warned


def test_the_file_of_a_dead_program_makes_way(folder: Path) -> None:
    path = folder / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening("GATE_BIND", f"unix:{path}"):
        assert connects(socket.AF_UNIX, str(path))


def test_the_file_of_a_program_started_since_is_left(folder: Path) -> None:
    path = folder / "x.sock"
    with listening("GATE_BIND", f"unix:{path}") as ours:
        ours.close()  # as a server does that stops
        other = socket.socket(socket.AF_UNIX)
        path.unlink()  # the file system may use its number again
        other.bind(str(path))
        other.listen()
    with other:
        assert connects(socket.AF_UNIX, str(path))


@pytest.mark.parametrize("backlog", [0, 5], ids=["full", "free"])
def test_the_socket_of_a_running_program_is_left(folder: Path, backlog: int) -> None:
    """A program with a full queue is not dead."""
    path = folder / "x.sock"
    with (
        socket.socket(socket.AF_UNIX) as running,
        socket.socket(socket.AF_UNIX) as waiting,
    ):
        running.bind(str(path))
        running.listen(backlog)
        waiting.connect(str(path))
        path.chmod(0o666)
        says = "another program listens there; stop it or choose another path"
        assert refusal(f"unix:{path}") == says
        path.chmod(0)
        assert refusal(f"unix:{path}") == says
        assert path.exists()


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert refusal(f"127.0.0.1:{taken.getsockname()[1]}") == (
            "another program listens there; stop it or choose another port"
        )


def test_an_address_of_another_machine_is_named() -> None:
    assert refusal("203.0.113.1:9999") == (
        "this machine has no such address; write one of its own, or [::]:9999 for every "
        "address"
    )


@pytest.mark.parametrize("host", ["host.invalid", "[fe80::1%no-such-if]"])
def test_a_name_without_an_address_is_named(host: str) -> None:
    assert refusal(f"{host}:9999") == (
        "the name has no address; write an address of this machine"
    )


@pytest.mark.skipif(
    FIRST_FREE_PORT.read_text().strip() == "0",
    reason="this system lets every user open every port",
)
def test_a_privileged_port_is_named() -> None:
    assert refusal("127.0.0.1:1") == (
        "ports below 1024 need the capability CAP_NET_BIND_SERVICE; choose a higher port"
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none/x.sock", "there is no such directory; make it, or choose another path"),
        ("file/x.sock", "there is no such directory; make it, or choose another path"),
        (
            "closed/x.sock",
            "this user may not make a file there; let it write into the directory, or "
            "choose another path",
        ),
        (
            "file",
            "a file that is no socket is there; remove it or choose another path",
        ),
        (
            "link",
            "a file that is no socket is there; remove it or choose another path",
        ),
    ],
)
def test_a_path_that_cannot_be_had_is_named(folder: Path, name: str, says: str) -> None:
    (folder / "file").write_text("")
    (folder / "closed").mkdir(mode=0o755)
    (folder / "link").symlink_to("nothing")
    assert refusal(f"unix:{folder}/{name}") == says
    assert (folder / "file").exists()


def test_a_file_that_somebody_removed_is_not_missed(folder: Path) -> None:
    path = folder / "x.sock"
    with listening("GATE_BIND", f"unix:{path}"):
        path.unlink()
    assert not path.exists()


def test_an_invalid_address_is_named() -> None:
    with (
        pytest.raises(SettingsError, match=r"^GATE_BIND: '::1' has no port"),
        listening("GATE_BIND", "::1"),
    ):
        pass


# --- addresses that are only reserved -----------------------------------------------


def test_sockets_of_workers_open_at_a_reserved_address() -> None:
    number = free_port()
    with reserving("GATE_BIND", f"localhost:{number}") as reserved:
        assert reserved == f"127.0.0.1:{number}"
        # Nothing listens there yet.
        assert not connects(socket.AF_INET, ("127.0.0.1", number))
        with (
            socket.create_server(("127.0.0.1", number), reuse_port=True),
            socket.create_server(("127.0.0.1", number), reuse_port=True),
        ):
            assert connects(socket.AF_INET, ("127.0.0.1", number))


def test_every_address_is_reserved_for_both_families() -> None:
    with reserving("GATE_BIND", f"[::]:{free_port()}") as reserved:
        assert reserved.startswith("[::]:")


@pytest.mark.parametrize("reuse", [False, True])
def test_an_address_is_not_reserved_where_a_program_listens(reuse: bool) -> None:
    """Also one that would share it."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=reuse) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        with (
            pytest.raises(SettingsError, match="another program listens there"),
            reserving("GATE_BIND", bind),
        ):
            pass


def test_a_path_is_reserved_and_its_file_removed(folder: Path) -> None:
    path = folder / "grpc.sock"
    with reserving("GATE_BIND", f"unix:{path}") as reserved:
        assert reserved == f"unix:{path}"
        assert not path.exists()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    assert not path.exists()


def test_a_path_that_a_program_uses_is_not_reserved(folder: Path) -> None:
    path = folder / "grpc.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with (
            pytest.raises(SettingsError, match="another program listens there"),
            reserving("GATE_BIND", f"unix:{path}"),
        ):
            pass
        assert path.exists()
