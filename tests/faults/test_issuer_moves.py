"""The issuer's name moves and its authority changes while a verifier runs (R59).

A real process, the system's resolver, TLS; the issuer is the simulator.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.hosts_file import HostsFile
from tests.support.issuer_over_http import served
from tests.support.issuer_simulator import FEED_TOKEN
from tests.support.processes import (
    Process,
    ProcessFactory,
    free_port,
    is_listening,
    wait_until,
)
from tests.support.raw_http import bearer, send
from tests.support.tokens import AUDIENCE, ISSUER

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

NAME = "issuer.test"
#: The bound that R59 promises, seconds.
FOLLOWED_WITHIN = 60


class Moving:
    """A verifier, and an issuer that is served at two addresses under one name.

    Attributes:
        asked: targets of the requests, by address.
        authority: has signed the certificates of the issuer.
    """

    def __init__(self, folder: Path, factory: ProcessFactory, stack: ExitStack) -> None:
        self._folder = folder
        self._factory = factory
        self.hosts = HostsFile(folder / "hosts")
        self.port, self.admin, self._issuer_port = (free_port() for _ in range(3))
        self.ca_file = folder / "ca.pem"
        self.asked: dict[str, list[str]] = {"127.0.0.2": [], "127.0.0.3": []}
        self.sign_by(Authority())
        self.ca_file.write_bytes(self.authority.certificate)
        issuer = None
        for address, asked in self.asked.items():
            issuer, _ = stack.enter_context(
                served(
                    issuer,
                    address=(address, self._issuer_port),
                    tls=lambda: self._tls,
                    asked=asked,
                )
            )
        assert issuer is not None
        self.issuer = issuer

    def sign_by(self, authority: Authority) -> None:
        """Give the issuer a certificate of this authority."""
        self.authority, self._tls = authority, authority.serve(NAME)

    def move_to(self, address: str) -> None:
        """Make the issuer's name resolve to this address."""
        self.hosts.say({NAME: address})

    def start(self, ready: str, **settings: str) -> Process:
        """Start the verifier."""
        base = f"https://{NAME}:{self._issuer_port}"
        env = os.environ | {
            "VERIFIER_ISSUER_URL": ISSUER,
            "VERIFIER_AUDIENCE": AUDIENCE,
            "VERIFIER_JWKS_URL": f"{base}/.well-known/jwks.json",
            "VERIFIER_FEED_URL": f"{base}/revocations",
            "VERIFIER_FEED_TOKEN": FEED_TOKEN,
            "VERIFIER_CA_FILE": str(self.ca_file),
            "VERIFIER_BIND": f"127.0.0.1:{self.port}",
            "VERIFIER_ADMIN_BIND": f"127.0.0.1:{self.admin}",
            **settings,
        }
        return self._factory.start(
            "verifier",
            (*self.hosts.prefix, sys.executable, "-m", "verifier"),
            env=env,
            cwd=self._folder,
            ready=lambda: send(self.admin, "GET", ready).status == 200,
        )

    def feed(self) -> dict[str, Any]:
        """Return the feed's part of `/status`."""
        feed: dict[str, Any] = send(self.admin, "GET", "/status").json()["feed"]
        return feed

    def check(self) -> int:
        """Ask the gate about a good token."""
        headers = [bearer(self.issuer.mint().decode())]
        return send(self.port, "GET", "/verify/nginx", headers).status


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[Moving]:
    factory = ProcessFactory(tmp_path)
    with ExitStack() as stack:
        stack.callback(factory.stop_all)
        moving = Moving(tmp_path, factory, stack)
        yield moving
        factory.stop_all()


def lines_of(process: Process, event: str) -> list[dict[str, Any]]:
    """Return the log lines of that event."""
    lines = [json.loads(line) for line in process.log().splitlines() if line[:1] == "{"]
    return [line for line in lines if line["event"] == event]


def test_r59_a_new_address_is_used_though_the_old_one_still_answers(
    moving: Moving,
) -> None:
    moving.move_to("127.0.0.2")
    verifier = moving.start("/readyz")
    assert moving.check() == 200
    assert moving.asked["127.0.0.3"] == []
    moving.move_to("127.0.0.3")
    wait_until(
        lambda: any("revocations" in path for path in moving.asked["127.0.0.3"]),
        deadline=FOLLOWED_WITHIN,
        what="the feed is asked for at the new address",
    )
    before = len(moving.asked["127.0.0.2"])
    asked = len(moving.asked["127.0.0.3"])
    wait_until(lambda: len(moving.asked["127.0.0.3"]) >= asked + 2, deadline=30)
    # One request may have been under way, and no more go there.
    assert len(moving.asked["127.0.0.2"]) <= before + 1
    assert moving.check() == 200
    (line,) = lines_of(verifier, "connections.address_changed")
    assert line["host"] == NAME
    assert "127.0.0.2" in line["was"]
    assert lines_of(verifier, "sync.failed") == []


def test_r59_a_rotated_authority_is_used_and_a_bad_one_is_not(moving: Moving) -> None:
    moving.move_to("127.0.0.2")
    verifier = moving.start("/readyz", VERIFIER_WORKERS="2")
    moving.ca_file.write_text("-----BEGIN CERTIFICATE-----\nhalf a fi")
    wait_until(lambda: len(lines_of(verifier, "authorities.refused")) == 2, deadline=30)
    refused = lines_of(verifier, "authorities.refused")[0]
    assert refused["setting"] == "VERIFIER_CA_FILE"
    assert "damaged" in refused["error"]
    old, new = moving.authority, Authority("new")
    moving.ca_file.write_bytes(old.certificate + new.certificate)
    wait_until(lambda: len(lines_of(verifier, "authorities.changed")) == 2, deadline=30)
    moving.sign_by(new)
    moving.ca_file.write_bytes(new.certificate)
    wait_until(lambda: len(lines_of(verifier, "authorities.changed")) == 4, deadline=30)
    asked = len(moving.asked["127.0.0.2"])
    wait_until(lambda: len(moving.asked["127.0.0.2"]) > asked + 6, deadline=60)
    assert moving.check() == 200
    # Nothing failed on the way, and every connection is of the new authority.
    assert lines_of(verifier, "sync.failed") == []


def test_r59_failure_is_logged_once_with_its_setting(
    moving: Moving,
) -> None:
    """First the name, then the authority, each until it is corrected; no restart."""
    moving.ca_file.write_bytes(Authority("another").certificate)
    verifier = moving.start("/healthz")
    port = moving.port
    wait_until(lambda: lines_of(verifier, "sync.failed"), deadline=30)
    wait_until(lambda: (moving.feed()["last_failure"] or {}).get("kind"), deadline=30)
    assert moving.feed()["last_failure"]["kind"] == "no_such_host"
    assert is_listening(port)
    assert moving.check() == 503
    moving.move_to("127.0.0.2")

    def failure() -> dict[str, Any]:
        return moving.feed()["last_failure"] or {}

    wait_until(lambda: failure()["kind"] == "unknown_authority", deadline=60)
    assert failure()["setting"] == "VERIFIER_CA_FILE"
    assert failure()["url"].startswith(f"https://{NAME}:")
    moving.ca_file.write_bytes(moving.authority.certificate)
    wait_until(lambda: moving.check() == 200, deadline=60)
    wait_until(lambda: lines_of(verifier, "sync.failed_no_more"), deadline=30)
    assert moving.feed()["last_error"] == ""
    assert failure()["kind"] == "unknown_authority"
    shown = [
        (line["source"], line["kind"]) for line in lines_of(verifier, "sync.failed")
    ]
    for source in ("feed", "jwks"):
        # Each of the two once a minute at most, however often it was tried.
        assert 1 <= shown.count((source, "unknown_authority")) <= 3
        assert 1 <= shown.count((source, "no_such_host")) <= 3
    assert FEED_TOKEN not in verifier.log()
