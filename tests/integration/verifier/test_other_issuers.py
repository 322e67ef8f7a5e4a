"""A running verifier accepts tokens of other issuers, whatever one of them does (R67).

Our own issuer is not there, and that of the test answers over HTTP.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.jose_keys import JoseKey, jose_key
from tests.support.other_issuer import ServedIssuer, next_key
from tests.support.processes import Process, ProcessFactory, free_port, wait_until
from tests.support.raw_http import RawAnswer, bearer, post_json, send

ROOT = Path(__file__).resolve().parents[3]
POLICIES = """
[policies.both]
issuers = ["a", "b"]
headers = { X-Auth-Issuer = "iss" }
[policies.b]
issuers = ["b"]
"""

pytestmark = pytest.mark.processes


class Site:
    """A verifier of two workers, and two issuers."""

    def __init__(self, folder: Path, a: ServedIssuer, b: ServedIssuer) -> None:
        self.folder, self.a, self.b = folder, a, b
        self.factory = ProcessFactory(folder)
        self.issuers = folder / "issuers.toml"
        self.issuers.write_text(a.entry() + b.entry())
        (folder / "policies.toml").write_text(POLICIES)
        self.port, self.admin = free_port(), free_port()

    def start(self) -> None:
        """Start the verifier, with nothing in its cache."""
        settings = {
            "ISSUER_URL": f"http://127.0.0.1:{free_port()}",
            "AUDIENCE": "api",
            "FEED_TOKEN": "f" * 40,
            "POLICY_FILE": str(self.folder / "policies.toml"),
            "POLICY_WATCH": "0",
            "ISSUERS_FILE": str(self.issuers),
            "STATE_DIR": str(self.folder / "copies"),
            "START_WAIT": "0",
            "WORKERS": "2",
            "BIND": f"127.0.0.1:{self.port}",
            "ADMIN_BIND": f"127.0.0.1:{self.admin}",
        }
        env = {f"VERIFIER_{name}": value for name, value in settings.items()}
        self.process: Process = self.factory.start(
            "verifier",
            (sys.executable, "-m", "verifier"),
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            cwd=self.folder,
            ready=lambda: self.statuses(self.b) == {200},
        )

    def check(self, issuer: ServedIssuer, policy: str = "both") -> RawAnswer:
        """Ask about a good token of an issuer, on a new connection."""
        token = issuer.token(int(time.time()), scope="read", azp="shop")
        return send(
            self.port,
            "GET",
            f"/verify/nginx/p/{policy}",
            [bearer(token.decode())],
        )

    def statuses(self, issuer: ServedIssuer, policy: str = "both") -> set[int]:
        """Return the answers of both workers; they take new connections in turn."""
        return {self.check(issuer, policy).status for _ in range(16)}

    def wait_for(self, issuer: ServedIssuer, status: int) -> None:
        wait_until(
            lambda: self.statuses(issuer) == {status}, what=f"{issuer.name}: {status}"
        )

    def status(self) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = send(self.admin, "GET", "/status").json()[
            "issuers"
        ]
        return found

    def keys(self) -> dict[str, float]:
        body = send(self.admin, "GET", "/metrics").body.decode()
        return {
            sample.labels["issuer"]: sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
            if sample.name == "gatehouse_verifier_issuer_keys"
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ServedIssuer("a") as a, ServedIssuer("b", "Ed25519") as b:
        made = Site(tmp_path_factory.mktemp("site"), a, b)
        try:
            made.start()
            yield made
        finally:
            made.factory.stop_all()


@pytest.fixture(autouse=True)
def whole(site: Site) -> None:
    """Put everything in order, in whatever order the tests run."""
    site.a.is_down = False
    if site.issuers.read_text() != site.a.entry() + site.b.entry():
        site.issuers.write_text(site.a.entry() + site.b.entry())
        site.process.send_signal(signal.SIGHUP)
    site.wait_for(site.a, 200)
    site.wait_for(site.b, 200)


def test_identity_is_that_of_the_issuer_of_the_token(site: Site) -> None:
    for issuer in (site.a, site.b):
        headers = dict(site.check(issuer).headers)
        assert headers["x-auth-issuer"] == issuer.url
        assert headers["x-auth-subject"] == "jane"
        assert headers["x-auth-client"] == "shop"
        assert headers["x-auth-scope"] == "read"
    assert site.statuses(site.a, "b") == {401}
    assert site.statuses(site.a, "default") == {503}


def test_status_and_metrics_know_issuers_by_name(site: Site) -> None:
    found = site.status()
    assert set(found) == {"a", "b"}
    assert found["a"]["issuer"] == site.a.url
    assert found["b"]["kids"] == ["key-Ed25519"]
    # A key that another test took away from `a` may still be there.
    wait_until(
        lambda: site.keys().get("b") == 1.0 and site.keys().get("a", 0.0) >= 1.0,
        what="both are counted",
    )


def test_refusal_is_explained_with_the_name_of_the_issuer(site: Site) -> None:
    token = site.a.token(int(time.time()), aud="another").decode()
    found: list[str] = []

    def is_logged() -> bool:
        # Other tests may have used up the lines of this second.
        headers = [bearer(token), ("X-Request-ID", "r1")]
        assert send(site.port, "GET", "/verify/nginx/p/both", headers).status == 401
        found[:] = [line for line in site.process.log().splitlines() if '"r1"' in line]
        return bool(found)

    wait_until(is_logged, what="a line of the refusal")
    line = found[0]
    logged = json.loads(line)
    assert (logged["reason"], logged["issuer"]) == ("audience_mismatch", "a")
    assert logged["kid"] == "key-ES256"
    asked = {"dialect": "nginx", "policy": "both", "token": token}
    explained = post_json(site.admin, "/explain", asked).json()
    assert (explained["issuer"], explained["kid"]) == ("a", "key-ES256")
    assert explained["reason"] == "audience_mismatch"
    assert explained["issuers"]["a"]["usable_for"] > 0


def test_new_key_is_asked_for_when_a_token_names_it(site: Site) -> None:
    """R19: the request that names it is refused, and has it fetched."""
    site.a.keys = [next_key("ES256"), *site.a.keys]
    try:
        site.wait_for(site.a, 200)
    finally:
        site.a.keys = site.a.keys[1:]
    site.wait_for(site.a, 200)


def test_issuer_that_is_away_costs_nothing(site: Site) -> None:
    site.a.is_down = True
    asked = len(site.a.asked)
    # With an unknown key, so that they ask; that of another test may be known still.
    key = next_key("ES256")
    site.a.keys = [JoseKey("ES256", {**key.jwk, "kid": "never"}, key.sign)]
    try:
        wait_until(
            lambda: site.statuses(site.a) == {401} and len(site.a.asked) > asked,
            what="the keys are asked for",
        )
        assert site.statuses(site.b) == {200}
    finally:
        site.a.keys = [jose_key("ES256")]
    assert site.statuses(site.a) == {200}, "its keys are good for as long as before"


def test_reload_ends_one_and_keeps_the_other(site: Site) -> None:
    moved = site.b.entry() + site.a.entry().replace('"orders"', '"bills"')
    site.issuers.write_text(moved)
    site.process.send_signal(signal.SIGHUP)
    site.wait_for(site.a, 401)
    assert site.statuses(site.b) == {200}
    # Without `b` the policies cannot be used, and both files stay as they were.
    site.issuers.write_text(site.a.entry())
    site.process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: site.process.log().count("there is no issuer") >= 2,
        what="the reload is refused by both workers",
    )
    assert site.statuses(site.b) == {200}
    assert site.statuses(site.a) == {401}


def test_start_while_an_issuer_is_away_has_its_keys(site: Site) -> None:
    site.process.terminate()
    site.a.is_down = True
    asked = len(site.b.asked)
    site.start()
    assert site.statuses(site.a) == {200}
    assert len(site.b.asked) > asked
