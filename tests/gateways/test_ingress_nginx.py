"""The Ingress of deploy/gateways/kubernetes, as nginx runs it (not the controller)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.demo.addresses import Addresses
from deploy.gateway_programs import registry
from tests.support.ingress_nginx import read_annotations, write_config
from tests.support.installed_gateways import require
from tests.support.processes import ProcessFactory, free_port, is_listening
from tests.support.raw_http import bearer, send
from tests.support.stack import Login, Stack
from verifier.doctor.examination import examine
from verifier.doctor.judge import Expectation, Finding, read_identity
from verifier.doctor.probe import Gateway
from verifier.doctor.scenarios import EVIL

pytestmark = pytest.mark.processes

Start = Callable[..., int]


@pytest.fixture(scope="module")
def start(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts nginx with annotations, and returns its port."""
    require("nginx")
    factory = ProcessFactory(tmp_path_factory.mktemp("ingress-logs"))

    def start_it(annotations: Mapping[str, str], **ports: int) -> int:
        addresses = replace(stack.addresses, gateway=free_port(), **ports)
        folder: Path = tmp_path_factory.mktemp("ingress")
        config = write_config(folder, addresses, annotations)
        binary = registry.find_binary("nginx")
        assert binary is not None
        command = (binary, "-p", folder, "-e", "stderr", "-c", config)
        port = addresses.gateway
        factory.start("nginx", command, ready=lambda: is_listening(port))
        return port

    try:
        yield start_it
    finally:
        factory.stop_all()


@pytest.fixture(scope="module")
def shipped(start: Start) -> int:
    return start(read_annotations())


def find_holes(
    port: int, login: Login, *, is_verifier_stopped: bool = False
) -> set[str]:
    token = login.access_token
    found = examine(
        Gateway.from_url(Addresses.url(port), timeout=60),
        Expectation(token, read_identity(token), "/orders"),
        is_verifier_stopped=is_verifier_stopped,
    )
    return {describe(finding) for finding in found.findings}


def describe(finding: Finding) -> str:
    return f"{finding.hole}: {finding.detail}"


def test_scenarios_pass_but_for_what_the_controller_always_writes(
    shipped: int, session_login: Login
) -> None:
    """The README lists them. `Upgrade` has no effect without `Connection: upgrade`."""
    assert find_holes(shipped, session_login) == {
        "upgrade: it received Upgrade: h2c or HTTP2-Settings",
        f"forwarding: it received x-original-forwarded-host: {EVIL}",
        "decision-id: 401 without it",
    }


def test_no_upgrade_can_be_asked_for(shipped: int, session_login: Login) -> None:
    asked = [("Connection", "Upgrade"), ("Upgrade", "h2c")]
    token = bearer(session_login.access_token)
    answer = send(shipped, "GET", "/orders", [token, *asked])
    assert answer.json()["headers"]["connection"] == "keep-alive"


def test_nothing_passes_without_a_verifier_but_the_status_is_500(
    start: Start, session_login: Login
) -> None:
    port = start(read_annotations(), verifier=9)
    found = find_holes(port, session_login, is_verifier_stopped=True)
    assert found == {"unavailable: 500 instead of 503"}


@pytest.mark.parametrize(
    ("annotation", "hole"),
    [("X-Auth-User,", "identity"), ("Authorization,", "token-shared")],
)
def test_name_that_is_not_listed_comes_from_the_client(
    annotation: str, hole: str, start: Start, session_login: Login
) -> None:
    annotations = read_annotations()
    listed = annotations["auth-response-headers"]
    assert annotation in listed
    annotations["auth-response-headers"] = listed.replace(annotation, "", 1)
    found = find_holes(start(annotations), session_login)
    assert hole in {finding.partition(":")[0] for finding in found}


def test_without_the_method_a_client_writes_the_path_that_is_checked(
    start: Start, shipped: int, session_login: Login
) -> None:
    """The controller sets X-Original-URI only with `auth-method`, and passes on a
    client's.
    """
    # The verifier refuses this one, if it sees it.
    sent = [bearer(session_login.access_token), ("X-Original-URI", "/a,/b")]
    assert send(shipped, "GET", "/orders", sent).status == 200
    annotations = read_annotations()
    del annotations["auth-method"]
    assert send(start(annotations), "GET", "/orders", sent).status == 401


def test_the_application_gets_the_host_that_is_checked(
    start: Start, shipped: int, session_login: Login
) -> None:
    """nginx takes `$host` from an absolute form, `$http_host` from the line Host."""
    sent = [bearer(session_login.access_token)]

    def seen_host(port: int) -> str:
        """Return the application's `Host`; the line `Host` is the listener's."""
        answer = send(port, "GET", "http://checked.test/orders", sent)
        return str(answer.json()["headers"]["host"])

    assert seen_host(shipped) == "checked.test"
    annotations = read_annotations()
    del annotations["upstream-vhost"]
    unchecked = start(annotations)
    assert seen_host(unchecked) == f"127.0.0.1:{unchecked}"


def test_answer_of_another_program_is_an_allow(start: Start, stack: Stack) -> None:
    """What the README warns of: these annotations cannot refuse it."""
    port = start(read_annotations(), verifier=stack.addresses.app)
    assert send(port, "GET", "/orders").status == 200
