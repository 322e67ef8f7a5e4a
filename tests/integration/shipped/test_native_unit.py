"""The drop-ins of docs/native.md, on the verifier's unit, with real gateways.

HAProxy is started as Debian's unit starts it, by root, in a mount namespace that shows
it the directories of the unit's machine.
"""

from __future__ import annotations

import grp
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from deploy.gateway_programs.registry import find_binary
from shared.feed import EntryKind
from tests.support.installed_gateways import require
from tests.support.issuer_over_http import served
from tests.support.issuer_simulator import FEED_TOKEN, IssuerSimulator
from tests.support.native_tokens import our_token
from tests.support.plain_app import Connection, plain_app
from tests.support.processes import Process, ProcessFactory, free_port, wait_until
from tests.support.raw_http import bearer, send
from tests.support.tokens import AUDIENCE, ISSUER
from tests.support.unit_file import ROOT, UNITS, read_unit
from tests.support.unit_service import UnitService, can_connect

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
UNIT: Final = UNITS / "gatehouse-verifier.service"
GATEWAYS: Final = ROOT / "deploy/gateways"
#: As in the unit of Debian's package.
HAPROXY: Final = "/usr/sbin/haproxy -Ws -f $CONFIG -p $PIDFILE $EXTRAOPTS"
#: Neither root nor the unit's user.
OTHER: Final = 65_534
#: The user that Envoy runs as, and a group that stands for its own.
ENVOY_USER: Final = 61_000
GROUP: Final = "www-data"
Sources = tuple[IssuerSimulator, str]


class DropIns(NamedTuple):
    """The drop-ins of the page, in its order."""

    haproxy: str
    of_haproxy: str
    envoy: str


def drop_ins() -> DropIns:
    """Return the drop-ins as they are on the page."""
    _, _, text = (ROOT / "docs/native.md").read_text().partition("### With systemd\n")
    section, _, _ = text.partition("\n## ")
    return DropIns(*re.findall(r"```ini\n(.*?)```", section, re.DOTALL))


@pytest.fixture
def sources() -> Iterator[Sources]:
    with served() as (issuer, url):
        yield issuer, url


class NativeUnit:
    """The verifier's unit with a drop-in, and the port of a gateway."""

    def __init__(
        self,
        machine: Path,
        factory: ProcessFactory,
        sources: Sources,
        drop_in: str,
    ) -> None:
        self.machine = machine / "verifier"
        self.issuer, url = sources
        self.admin, self.gateway, self.app = free_port(), free_port(), free_port()
        unit = machine / UNIT.name
        unit.write_text(UNIT.read_text() + drop_in)
        settings = {
            "VERIFIER_ISSUER_URL": ISSUER,
            "VERIFIER_AUDIENCE": AUDIENCE,
            "VERIFIER_JWKS_URL": f"{url}/.well-known/jwks.json",
            "VERIFIER_FEED_URL": f"{url}/revocations",
            "VERIFIER_FEED_TOKEN": FEED_TOKEN,
            "VERIFIER_BIND": f"127.0.0.1:{free_port()}",
            "VERIFIER_ADMIN_BIND": f"127.0.0.1:{self.admin}",
        }
        # What a gateway makes in /run later is seen, too.
        binds = {self.machine / "run": "/run"}
        self.service = UnitService(unit, self.machine, factory, settings, binds)

    def start(self) -> Process:
        """Serve, as the unit does."""
        return self.service.start(
            lambda: send(self.admin, "GET", "/readyz").status == 200
        )

    def mint(self, **claims: str) -> str:
        """Return a token as our issuer writes it: HAProxy takes no other form."""
        return our_token(self.issuer.keys[0], **claims)

    def ask(self, token: str) -> int:
        """Ask the gateway."""
        headers = [bearer(token)]
        return send(self.gateway, "GET", "/", headers).status

    def check(self) -> str:
        """Return what `check` says when it is run as the unit is."""
        done = self.service.execute(
            *self.service.unit.command("ExecStart")[:3], "check"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def config(self, path: str, replaced: Mapping[str, str]) -> str:
        """Return a shipped config with our ports and with other texts."""
        text = (GATEWAYS / path).read_text()
        for before, after in replaced.items():
            assert before in text, before
            text = text.replace(before, after)
        return text


def answer(connection: Connection) -> None:
    while connection.head:
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.head = connection.read_head()


def start_haproxy(native: NativeUnit, factory: ProcessFactory, drop_in: str) -> None:
    """Start HAProxy by root, with the variables of the drop-in."""
    etc = native.machine / "etc/haproxy"
    etc.mkdir()
    config = native.config(
        "haproxy-native/haproxy.cfg",
        {
            "    bind 127.0.0.1:8080\n": f"    bind 127.0.0.1:{native.gateway}\n",
            "server app 127.0.0.1:8081 ": f"server app 127.0.0.1:{native.app} ",
            "# user haproxy": "user haproxy",
            "# group haproxy": "group haproxy",
        },
    )
    (etc / "haproxy.cfg").write_text(config)
    path = native.machine / "haproxy.conf"
    path.write_text(drop_in)
    given = dict(
        text.strip('"').split("=", 1)
        for text in read_unit(path).values("Service.Environment")
    )
    # This machine has no user of that name.
    given["EXTRAOPTS"], count = re.subn(
        r",user,gatehouse-verifier$", f",uid,{native.service.user}", given["EXTRAOPTS"]
    )
    assert count == 1
    mounts = "".join(
        f"mount --bind {native.machine}/{name} /{name} && "
        for name in ("etc/haproxy", "run", "var/lib")
    )
    # The shell splits a variable at its blanks, as systemd does.
    command = ["unshare", "-m", "sh", "-c", f"{mounts}exec {HAPROXY}"]
    environment = os.environ | given | {"PIDFILE": "/run/haproxy.pid"}
    factory.start(
        "haproxy",
        command,
        env=environment,
        ready=lambda: send(native.gateway, "GET", "/").status in {401, 503},
    )


def test_haproxy_of_root_is_written_into_and_outlives_restarts_of_native(
    machine: Path, processes: ProcessFactory, sources: Sources
) -> None:
    require("haproxy")
    texts = drop_ins()
    native = NativeUnit(machine, processes, sources, texts.haproxy)
    native.issuer.revoke(EntryKind.SID, "dead")
    process = native.start()
    configuration = native.service.state_directory / "haproxy/gatehouse.cfg"
    wait_until(configuration.exists, what="gatehouse.cfg")
    good, dead = native.mint(), native.mint(sid="dead")
    with plain_app(native.app, answer):
        start_haproxy(native, processes, texts.of_haproxy)
        wait_until(lambda: native.ask(good) == 200, what="a token passes")
        assert native.ask(dead) == 401
        socket = native.machine / "run/haproxy-master.sock"
        assert not can_connect(socket, OTHER, OTHER)
        # `ProtectProc=` lets it look at HAProxy's processes, which are root's.
        pid = (native.machine / "run/haproxy.pid").read_text().split()[0]
        assert native.service.execute("/bin/cat", f"/proc/{pid}/stat").returncode == 0
        for _ in range(2):
            assert "HAProxy runs with" in native.check()
            assert process.terminate(deadline=30) == 0, process.log()
            # No window has ended yet, and the socket and the directory are there.
            assert native.ask(good) == 200
            process = native.start()
            wait_until(lambda: native.ask(good) == 200, what="a token passes again")
            assert native.ask(dead) == 401
    assert native.service.unforeseen_denials() == []


def test_envoy_of_another_user_is_written_into(
    machine: Path, processes: ProcessFactory, sources: Sources
) -> None:
    require("envoy-native")
    # This machine has no group of that name.
    drop_in = drop_ins().envoy.replace("Group=envoy", f"Group={GROUP}")
    assert GROUP in drop_in
    native = NativeUnit(machine, processes, sources, drop_in)
    native.issuer.revoke(EntryKind.SID, "dead")
    process = native.start()
    good, dead = native.mint(), native.mint(sid="dead")
    with plain_app(native.app, answer):
        start_envoy(native, processes)
        wait_until(lambda: native.ask(good) == 200, what="a token passes")
        assert native.ask(dead) == 401
        for name in ("gatehouse/envoy-xds.sock", "envoy/admin.sock"):
            assert not can_connect(native.machine / "run" / name, OTHER, OTHER)
        assert "Envoy has 3 filters of ours" in native.check()
        assert process.terminate(deadline=30) == 0, process.log()
        assert native.ask(good) == 200
        native.start()
        native.issuer.revoke(EntryKind.SID, "later")
        late = native.mint(sid="later")
        wait_until(lambda: native.ask(late) == 401, what="a revocation is in force")
    assert native.service.unforeseen_denials() == []


def start_envoy(native: NativeUnit, factory: ProcessFactory) -> None:
    """Start Envoy as a user of its own, with the directory of its unit."""
    group = grp.getgrnam(GROUP).gr_gid
    directory = native.machine / "run/envoy"
    directory.mkdir(mode=0o750)
    os.chown(directory, ENVOY_USER, group)
    directory.chmod(0o750)
    config = native.machine / "envoy.yaml"
    text = native.config(
        "envoy-native/envoy.yaml",
        {
            "address: 127.0.0.1, port_value: 8080": "address: 127.0.0.1, "
            f"port_value: {native.gateway}",
            "address: 127.0.0.1, port_value: 8081": "address: 127.0.0.1, "
            f"port_value: {native.app}",
            "path: /run/gatehouse/envoy-admin.sock": "path: /run/envoy/admin.sock",
        },
    )
    config.write_text(text)
    binary = find_binary("envoy-native")
    assert binary is not None
    # The tree of the tests may be closed to other users.
    shutil.copy(binary, native.machine / "envoy")
    script = (
        f"mount --bind {native.machine}/run /run && "
        f"exec setpriv --reuid {ENVOY_USER} --regid {group} --clear-groups "
        f"{native.machine}/envoy --disable-hot-restart -c {config}"
    )
    factory.start(
        "envoy",
        ["unshare", "-m", "sh", "-c", script],
        ready=lambda: send(native.gateway, "GET", "/").status in {401, 503},
    )
