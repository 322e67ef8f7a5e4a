"""`doctor` finds the hole in every broken config, and none in the shipped ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deploy.demo.addresses import Addresses
from deploy.demo.installation import ROOT
from deploy.gateway_programs.registry import PROGRAMS
from tests.gateways.conftest import running
from tests.support.gateway_kinds import table as kinds
from tests.support.gateway_kinds.kind import replace_once
from tests.support.processes import free_port
from tests.support.stack import GatewayUnderTest, Login, Stack
from verifier.doctor.remedies import KINDS

pytestmark = pytest.mark.processes


class Broken(NamedTuple):
    """A config with one fault.

    Attributes:
        gateway: its name in the registry.
        file: the config.
        written: what is replaced; it stands there once.
        wrong: what it is replaced by.
        hole: what `doctor` must name.
        line: a part of the line that it must name.
        with_verifier: whether a verifier runs meanwhile.
    """

    gateway: str
    file: str
    written: str
    wrong: str
    hole: str
    line: str
    with_verifier: bool = True


BROKEN = (
    Broken(
        "caddy-2.11",
        "Caddyfile",
        "\t\trespond @tunnel 405\n",
        "",
        "tunnel",
        "respond @tunnel 405",
    ),
    Broken(
        "nginx",
        "gatehouse.conf",
        "        proxy_set_header X-Auth-Subject  $gatehouse_subject;\n",
        "",
        "identity",
        "proxy_set_header X-Auth-Subject",
    ),
    Broken(
        "nginx",
        "gatehouse.conf",
        "underscores_in_headers off;",
        "underscores_in_headers on;",
        "identity-alias",
        "underscores_in_headers off;",
    ),
    Broken(
        "nginx",
        "gatehouse.conf",
        '        proxy_set_header Authorization "";\n',
        "",
        "token-shared",
        'proxy_set_header Authorization "";',
    ),
    Broken(
        "nginx",
        "gatehouse.conf",
        "    location / {\n",
        "    location = /healthz { proxy_pass http://gatehouse_app; }\n"
        "    location / {\n",
        "open-path",
        "auth_request /_gatehouse;",
    ),
    Broken(
        "nginx",
        "gatehouse.conf",
        "        error_page 500 = @gatehouse_unavailable;\n",
        "",
        "unavailable",
        "error_page 500",
        with_verifier=False,
    ),
    Broken(
        "envoy",
        "envoy.yaml",
        "headers_with_underscores_action: DROP_HEADER",
        "headers_with_underscores_action: ALLOW",
        "identity-alias",
        "headers_with_underscores_action: DROP_HEADER",
    ),
    Broken(
        "envoy",
        "envoy.yaml",
        "patterns: [{ prefix: x-auth-, ignore_case: true }]",
        "patterns: [{ prefix: x-auth-decision, ignore_case: true }]",
        "identity-lost",
        "prefix: x-auth-",
    ),
    Broken(
        "envoy",
        "envoy.yaml",
        "status_on_error: { code: ServiceUnavailable }",
        "status_on_error: { code: Forbidden }",
        "unavailable",
        "status_on_error: { code: ServiceUnavailable }",
        with_verifier=False,
    ),
    Broken(
        "envoy-grpc",
        "envoy.yaml",
        "failure_mode_allow: false",
        "failure_mode_allow: true",
        "fail-open",
        "failure_mode_allow: false",
        with_verifier=False,
    ),
    Broken(
        "envoy-grpc",
        "envoy.yaml",
        "                - remove_on_match: "
        "{ key_matcher: { prefix: x-auth-, ignore_case: true } }\n",
        "",
        "foreign-identity",
        "prefix: x-auth-",
    ),
    Broken(
        "envoy-grpc",
        "envoy.yaml",
        "headers_with_underscores_action: DROP_HEADER",
        "headers_with_underscores_action: ALLOW",
        "identity-alias",
        "headers_with_underscores_action: DROP_HEADER",
    ),
    Broken(
        "caddy",
        "Caddyfile",
        "\t\trequest_header -*_*\n",
        "",
        "identity-alias",
        "request_header -*_*",
    ),
    Broken(
        "caddy-2.11",
        "Caddyfile",
        "\t\trequest_header -Authorization\n",
        "",
        "token-shared",
        "request_header -Authorization",
    ),
    Broken(
        "caddy-2.11",
        "Caddyfile",
        "\t\theader @undecided Retry-After 5\n",
        "",
        "unavailable",
        "header @undecided Retry-After 5",
        with_verifier=False,
    ),
    Broken(
        "traefik",
        "gatehouse.yml",
        "    application:\n",
        '    health:\n      rule: "Path(`/healthz`)"\n      priority: 50\n'
        "      service: app\n    application:\n",
        "open-path",
        "middlewares: [no-upgrade, gatehouse]",
    ),
    Broken(
        "traefik",
        "gatehouse.yml",
        "        middlewares: [check, decided, token-stays-at-the-gate]",
        "        middlewares: [check, decided]",
        "token-shared",
        "token-stays-at-the-gate",
    ),
    Broken(
        "apache",
        "gatehouse.lua",
        'name:find("[^a-z0-9-]")',
        'name == "_"',
        "identity-alias",
        'name:find("[^a-z0-9-]")',
    ),
    Broken(
        "apache",
        "gatehouse.conf",
        '    <Location "/">\n',
        '    <Location "/orders">\n',
        "open-path",
        '<Location "/">',
    ),
    Broken(
        "haproxy",
        "haproxy.cfg",
        "    http-request return status 503 hdr Retry-After 5 unless "
        "{ var(txn.gatehouse) -m str allow }\n",
        "",
        "fail-open",
        "var(txn.gatehouse)",
        with_verifier=False,
    ),
    Broken(
        "haproxy",
        "haproxy.cfg",
        "    http-request del-header ^x[^a-z0-9]auth([^a-z0-9]|$) -m reg\n",
        "    http-request del-header x-auth-subject\n",
        "identity-alias",
        "del-header ^x[^a-z0-9]auth",
    ),
    Broken(
        "haproxy",
        "haproxy.cfg",
        " /verify/haproxy\n",
        " /verify/haproxy if { path_beg /orders }\n"
        "    http-request set-var(txn.gatehouse) str(allow) unless { path_beg /orders }\n",
        "open-path",
        "lua.gatehouse_check",
    ),
    Broken(
        "envoy-native",
        "envoy.yaml",
        "                - remove_on_match: "
        "{ key_matcher: { prefix: x-auth-, ignore_case: true } }\n",
        "",
        "identity",
        "prefix: x-auth-",
    ),
    Broken(
        "envoy-native",
        "envoy.yaml",
        "                - remove: authorization\n",
        "",
        "token-shared",
        "- remove: authorization",
    ),
    Broken(
        "envoy-native",
        "envoy.yaml",
        "action: DENY",
        "action: LOG",
        "fail-open",
        "gatehouse_stale",
        with_verifier=False,
    ),
    Broken(
        "haproxy-native",
        "haproxy.cfg",
        "frontend gateway from gatehouse-default",
        "frontend gateway",
        "open",
        "from gatehouse-default",
    ),
    Broken(
        "haproxy-native",
        "haproxy.cfg",
        "    http-request del-header ^((x[^a-z0-9])?(remote",
        "    http-request del-header ^((remote",
        "foreign-identity",
        "remote[^a-z0-9]user$",
    ),
)


def diagnose(gateway: GatewayUnderTest, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the command as a user does; return its status and its report."""
    command = (sys.executable, "-m", "verifier", "doctor", "--json")
    # "caddy-2.11" is a version.
    name = gateway.name
    kind = name if name in KINDS else name.partition("-")[0]
    done = subprocess.run(
        [
            *(*command, "--kind", kind, "--timeout", "60"),
            *("--gateway", Addresses.url(gateway.port), *options),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def token_file(stack: Stack, session_login: Login, tmp_path_factory: Any) -> str:
    path: Path = tmp_path_factory.mktemp("doctor") / "token"
    path.write_text(session_login.access_token)
    return str(path)


def start_without_verifier(
    stack: Stack, name: str, label: str, edit: Callable[[Path], None]
) -> GatewayUnderTest:
    """Start a gateway that has no verifier to ask, or that is sent no news."""
    door = kinds.KINDS[name].check_door
    # Nothing listens there.
    ports = {door: 9, f"second_{door}": 9}
    if PROGRAMS[name].native:
        return stack.start_gateway(name, label, edit=edit, has_news=False)
    return stack.start_gateway(name, label, edit=edit, **ports)


def test_nothing_is_found_in_the_shipped_config(
    gateway: GatewayUnderTest, token_file: str
) -> None:
    status, report = diagnose(gateway, "--token-file", token_file)
    assert report["holes"] == []
    assert status == 0
    assert report["probes"] >= 70


@pytest.mark.parametrize(
    "broken", BROKEN, ids=lambda broken: f"{broken.gateway}-{broken.hole}"
)
def test_the_hole_of_a_broken_config_is_found(
    broken: Broken, stack: Stack, token_file: str
) -> None:
    running(broken.gateway, stack)

    def break_it(folder: Path) -> None:
        replace_once(folder / broken.file, broken.written, broken.wrong)
        if not broken.with_verifier:
            kinds.KINDS[broken.gateway].give_up_soon(folder)

    label = f"broken {broken.hole}"
    if broken.with_verifier:
        gateway = stack.start_gateway(broken.gateway, label, edit=break_it)
    else:
        gateway = start_without_verifier(stack, broken.gateway, label, break_it)
    options = () if broken.with_verifier else ("--verifier-stopped",)
    status, report = diagnose(gateway, "--token-file", token_file, *options)
    assert status == 1
    found = {hole["hole"]: hole for hole in report["holes"]}
    assert broken.hole in found, sorted(found)
    assert any(broken.line in line for line in found[broken.hole]["lines"])


OBEDIENT = (
    Broken(
        "nginx",
        "gatehouse.conf",
        "proxy_pass http://$gatehouse_allowed_app;",
        "proxy_pass http://gatehouse_app;",
        "open",
        "proxy_pass http://$gatehouse_allowed_app;",
    ),
    Broken(
        "envoy",
        "envoy.yaml",
        "action: ALLOW",
        "action: LOG",
        "open",
        "- name: envoy.filters.http.rbac",
    ),
    Broken(
        "caddy",
        "Caddyfile",
        "\t\theader X-Auth-Decision allow*\n",
        "",
        "open",
        "header X-Auth-Decision allow*",
    ),
    Broken(
        "traefik",
        "gatehouse.yml",
        "middlewares: [check, decided, token-stays-at-the-gate]",
        "middlewares: [check, token-stays-at-the-gate]",
        "open",
        "middlewares: [check, decided, token-stays-at-the-gate]",
    ),
)


@pytest.mark.parametrize("broken", OBEDIENT, ids=lambda broken: broken.gateway)
def test_gateway_that_obeys_another_program_is_found(
    broken: Broken, stack: Stack, token_file: str
) -> None:
    running(broken.gateway, stack)

    def break_it(folder: Path) -> None:
        replace_once(folder / broken.file, broken.written, broken.wrong)

    foreign = stack.addresses.app
    ports = {"verifier": foreign, "second_verifier": foreign}
    label = "obeys any program"
    misled = stack.start_gateway(broken.gateway, label, edit=break_it, **ports)
    status, report = diagnose(misled, "--token-file", token_file)
    assert status == 1
    found = {hole["hole"]: hole for hole in report["holes"]}
    assert broken.line in found[broken.hole]["lines"]


def test_envoy_that_should_fail_open_stays_closed(
    stack: Stack, token_file: str
) -> None:
    """Without a verifier there is no decision, and the filter rbac needs one."""
    running("envoy", stack)

    def open_it(folder: Path) -> None:
        written, wrong = "failure_mode_allow: false", "failure_mode_allow: true"
        replace_once(folder / "envoy.yaml", written, wrong)

    ports = {"verifier": 9, "second_verifier": 9}
    gateway = stack.start_gateway("envoy", "fails open", edit=open_it, **ports)
    status, report = diagnose(gateway, "--token-file", token_file, "--verifier-stopped")
    assert (status, report["holes"]) == (0, [])


def test_doctor_brings_the_application_that_it_needs(
    stack: Stack, token_file: str
) -> None:
    running("nginx", stack)
    port = free_port()
    gateway = stack.start_gateway("nginx", "echo", app=port)
    options = ("--token-file", token_file, "--echo", f"127.0.0.1:{port}")
    status, report = diagnose(gateway, *options)
    assert (status, report["holes"]) == (0, [])


def test_nothing_passes_without_a_verifier(
    gateway: GatewayUnderTest, stack: Stack, token_file: str
) -> None:
    edit = gateway.kind.give_up_soon
    away = start_without_verifier(stack, gateway.name, "away", edit)
    status, report = diagnose(away, "--token-file", token_file, "--verifier-stopped")
    assert report["holes"] == []
    assert status == 0
