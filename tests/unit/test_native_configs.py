"""The configs of gateways that check tokens by themselves, beside those that ask."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.gateway_programs.program import CONFIGS
from deploy.gateway_programs.registry import PROGRAMS
from tests.support.gateway_kinds.table import KINDS

GATEWAYS = Path(__file__).resolve().parents[1] / "gateways"
#: Parts of Envoy's listener that are about the check.
CHECKING = {"http_filters", "local_reply_config", "route_config"}
APPS = ("gatehouse_app", "gatehouse_grpc_app")
#: Rules of HAProxy's frontend that are about a question to the verifier, its id and its
#: limit of 8 kB, and the removal of what `gatehouse.cfg` or one longer rule removes.
HAPROXY_CHECKING = (
    *("lua.", "gatehouse", "metadata", "X-Request-ID", "unique-id"),
    *("8192", "del-header ^"),
)


def envoy(kind: str) -> dict[str, Any]:
    loaded = yaml.safe_load((CONFIGS / kind / "envoy.yaml").read_text())
    resources: dict[str, Any] = loaded["static_resources"]
    return resources


def connection_manager(resources: dict[str, Any]) -> dict[str, Any]:
    (listener,) = resources["listeners"]
    (chain,) = listener["filter_chains"]
    (network_filter,) = chain["filters"]
    found: dict[str, Any] = network_filter["typed_config"]
    return found


def test_native_envoy_passes_requests_on_as_the_one_that_asks() -> None:
    """R64: so bodies, streams and gRPC are tested there alone."""
    asking, native = envoy("envoy"), envoy("envoy-native")
    ours, theirs = connection_manager(native), connection_manager(asking)
    assert {k: v for k, v in ours.items() if k not in CHECKING} == {
        k: v for k, v in theirs.items() if k not in CHECKING
    }
    routes = [m["route_config"]["virtual_hosts"][0]["routes"] for m in (ours, theirs)]
    # The first route of the other is for the metadata of a verifier.
    assert routes[0] == routes[1][1:]
    for name in APPS:
        clusters = [
            next(c for c in resources["clusters"] if c["name"] == name)
            for resources in (asking, native)
        ]
        assert clusters[0] == clusters[1]


def test_native_envoy_removes_what_the_one_that_asks_removes() -> None:
    """R11."""
    removed = []
    for kind in ("envoy", "envoy-native"):
        first = connection_manager(envoy(kind))["http_filters"][0]["typed_config"]
        mutations = first["mutations"]["request_mutations"]
        removed.append([m for m in mutations if "append" not in m])
    asking, native = removed
    assert len(asking) > 20
    assert all(mutation in native for mutation in asking)


def haproxy_lines(kind: str, section: str) -> set[str]:
    """Return the lines of a section without spaces that only make columns."""
    text = (CONFIGS / kind / "haproxy.cfg").read_text()
    found: set[str] = set()
    is_there = False
    for line in text.splitlines():
        if line[:1].strip() and not line.startswith("#"):
            is_there = line.split()[: len(section.split())] == section.split()
        elif is_there and line.strip() and not line.strip().startswith("#"):
            found.add(" ".join(line.split()))
    return found


@pytest.mark.parametrize(
    "section", ["backend gatehouse_app", "backend gatehouse_grpc_app"]
)
def test_native_haproxy_reaches_applications_as_the_one_that_asks(section: str) -> None:
    lines = haproxy_lines("haproxy-native", section)
    assert lines
    assert lines == haproxy_lines("haproxy", section)


def test_native_haproxy_passes_requests_on_as_the_one_that_asks() -> None:
    """R64, R11: what is in `defaults` of one may be in the frontend of the other."""
    asking, native = (
        haproxy_lines(kind, "frontend gateway") | haproxy_lines(kind, "defaults")
        for kind in ("haproxy", "haproxy-native")
    )
    missing = {
        line
        for line in asking - native
        if not any(word in line for word in HAPROXY_CHECKING)
    }
    assert missing == set()


@pytest.mark.parametrize(
    "name", [n for n, program in PROGRAMS.items() if program.native]
)
def test_what_is_left_out_of_the_common_suite_is_there(name: str) -> None:
    for left_out, why in KINDS[name].left_out.items():
        assert why
        assert (
            GATEWAYS / f"{left_out}.py"
        ).is_file() or left_out in names_of_gateway_tests()
    for seldom in KINDS[name].in_matrix_only:
        assert (GATEWAYS / f"{seldom}.py").is_file()


def names_of_gateway_tests() -> set[str]:
    """Return the names of all tests in tests/gateways."""
    trees = [ast.parse(path.read_text()) for path in GATEWAYS.glob("test_*.py")]
    return {
        node.name
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
