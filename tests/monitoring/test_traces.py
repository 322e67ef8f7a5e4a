"""One request is one trace of gateway, verifier and issuer (docs/tracing.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.gateway_kinds.kind import replace_once
from tests.support.installed_gateways import require
from tests.support.otlp_receiver import ReceivedSpan, Receiver, receiving
from tests.support.processes import ProcessFactory, wait_until
from tests.support.raw_http import RawAnswer, bearer, post_json, send
from tests.support.stack import GatewayUnderTest, Login, Stack

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tracing.md"
POLICIES = """
[policies.default]
mode = "shadow"
required_scopes = ["none:has"]
"""
CLIENTS_SPAN = "b7ad6b7169203331"


class Traced(NamedTuple):
    """The running programs."""

    stack: Stack
    gateway: GatewayUnderTest
    receiver: Receiver
    login: Login


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """Envoy before the issuer, each request checked by two workers of a verifier."""
    require("envoy")
    folder = tmp_path_factory.mktemp("traced")
    policies = folder / "policies.toml"
    policies.write_text(POLICIES)
    factory = ProcessFactory(folder)
    try:
        with receiving(folder, factory) as receiver:
            stack = Stack.start(
                folder,
                factory,
                OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
                OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
                OTEL_BSP_SCHEDULE_DELAY="100",
                ISSUER_ACCESS_LOG="true",
                VERIFIER_POLICY_FILE=str(policies),
                VERIFIER_WORKERS="2",
            )
            gateway = stack.start_gateway(
                "envoy",
                "traced",
                edit=partial(trace_envoy, receiver.url),
                app=stack.addresses.issuer,
            )
            yield Traced(stack, gateway, receiver, stack.log_in())
            factory.stop_all()
    finally:
        factory.stop_all()


def trace_envoy(url: str, folder: Path) -> None:
    """Put the lines of the page into the shipped config."""
    listener, cluster = re.findall(
        r"^```yaml\n(.*?)^```", PAGE.read_text(), re.M | re.S
    )
    config = folder / "envoy.yaml"
    replace_once(
        config,
        "          stat_prefix: gateway\n",
        f"          stat_prefix: gateway\n{listener}",
    )
    replace_once(config, "  clusters:\n", f"  clusters:\n{cluster}")
    text = config.read_text().replace("4318", url.rpartition(":")[2])
    # Envoy's own pause is five seconds.
    quick = "tracing.opentelemetry.flush_interval_ms: 100"
    layer = f"layered_runtime: {{layers: [{{name: t, static_layer: {{{quick}}}}}]}}\n"
    config.write_text(layer + text)


def ask(traced: Traced, trace_id: str) -> RawAnswer:
    """Log in through the gateway, with a token and a client's own trace."""
    account = {
        "username": traced.stack.installation.admin_username,
        "password": traced.stack.installation.admin_password,
    }
    headers = [
        bearer(traced.login.access_token),
        ("Traceparent", f"00-{trace_id}-{CLIENTS_SPAN}-01"),
    ]
    return post_json(traced.gateway.port, "/auth/login", account, headers)


def wait_for_trace(traced: Traced, trace_id: str, *names: str) -> list[ReceivedSpan]:
    """Return the spans of a trace once these and all spans above them have come."""
    found: list[ReceivedSpan] = []

    def have_come() -> bool:
        spans = traced.receiver.spans()
        found[:] = [span for span in spans if span.trace_id == trace_id]
        known = {CLIENTS_SPAN, *(span.span_id for span in found)}
        is_whole = {span.parent_id for span in found} <= known
        return is_whole and {*names} <= {span.name for span in found}

    wait_until(have_come, what=f"the spans {names}")
    return found


def only(spans: list[ReceivedSpan], name: str, program: str) -> ReceivedSpan:
    (found,) = [s for s in spans if (s.name, s.program) == (name, program)]
    return found


def lines_with(log: str, text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if text in line]


def wait_for_lines(read_log: Callable[[], str], text: str) -> list[dict[str, Any]]:
    """Return the lines with a text once there are some: they follow the answer."""
    wait_until(lambda: lines_with(read_log(), text), what=f"a line with {text}")
    return lines_with(read_log(), text)


def test_one_request_is_one_trace(traced: Traced) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    answer = ask(traced, trace_id)
    assert answer.status == 200
    names = ("POST /auth/login", "gate.shadow_refused", "hash", "INSERT")
    spans = wait_for_trace(traced, trace_id, *names)
    by_id = {span.span_id: span for span in spans}

    entry = next(
        s for s in spans if s.program == "gateway" and s.parent_id == CLIENTS_SPAN
    )
    # The gateway has a span of its own for what it asks of each program.
    refusal = only(spans, "gate.shadow_refused", "gatehouse-verifier")
    asked = by_id[refusal.parent_id]
    assert (asked.program, asked.parent_id) == ("gateway", entry.span_id)
    served = only(spans, "POST /auth/login", "gatehouse-issuer")
    forwarded = by_id[served.parent_id]
    assert (forwarded.program, forwarded.parent_id) == ("gateway", entry.span_id)
    assert asked.span_id != forwarded.span_id
    # What the issuer does is below its own span.
    inner = [s for s in spans if s.program == "gatehouse-issuer" and s is not served]
    assert {s.parent_id for s in inner} == {served.span_id}
    assert {"hash", "SELECT", "INSERT"} <= {s.name for s in inner}

    assert served.kind == "SPAN_KIND_SERVER"
    assert served.attributes == {
        "http.request.method": "POST",
        "http.route": "/auth/login",
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
    }
    assert refusal.attributes["gatehouse.reason"] == "scope_insufficient"
    assert refusal.attributes["gatehouse.policy"] == "default"


def test_the_logs_have_the_ids_of_the_trace(traced: Traced) -> None:
    trace_id = "1bf7651916cd43dd8448eb211c80319c"
    answer = ask(traced, trace_id)
    request_id = answer.header("X-Request-Id")
    assert request_id
    stack = traced.stack
    (line,) = wait_for_lines(stack.issuer_log, trace_id)
    assert (line["event"], line["request_id"]) == ("request.answered", request_id)
    (refused,) = wait_for_lines(stack.verifier.log, trace_id)
    assert refused["request_id"] == request_id
    spans = wait_for_trace(traced, trace_id, "gate.shadow_refused")
    refusal = only(spans, "gate.shadow_refused", "gatehouse-verifier")
    assert refusal.attributes["gatehouse.request_id"] == request_id
    assert refusal.attributes["gatehouse.decision_id"] == refused["decision_id"]


def test_a_trace_that_is_not_sampled_is_in_the_logs_only(traced: Traced) -> None:
    unsampled = "2cf7651916cd43dd8448eb211c80319c"
    headers = [("Traceparent", f"00-{unsampled}-{CLIENTS_SPAN}-00")]
    address = traced.stack.addresses.issuer
    assert send(address, "GET", "/.well-known/jwks.json", headers).status == 200
    sampled = "3df7651916cd43dd8448eb211c80319c"
    headers = [("Traceparent", f"00-{sampled}-{CLIENTS_SPAN}-01")]
    assert send(address, "GET", "/.well-known/jwks.json", headers).status == 200
    wait_for_trace(traced, sampled, "GET /.well-known/jwks.json")
    assert wait_for_lines(traced.stack.issuer_log, unsampled)
    assert unsampled not in {span.trace_id for span in traced.receiver.spans()}


def test_each_worker_follows_the_issuer_in_traces_of_its_own(traced: Traced) -> None:
    """Two processes, each forked before its exporter began."""

    def find_joined() -> set[str]:
        """Return the workers with a span whose child is the issuer's."""
        spans = traced.receiver.spans()
        served = {
            span.parent_id
            for span in spans
            if (span.program, span.name) == ("gatehouse-issuer", "GET /revocations")
        }
        return {
            span.instance
            for span in spans
            if span.program == "gatehouse-verifier" and span.span_id in served
        }

    wait_until(lambda: len(find_joined()) == 2, what="spans of both workers")


def test_the_verifiers_own_requests_have_an_id_in_the_issuers_log(
    traced: Traced,
) -> None:
    lines = lines_with(traced.stack.verifier.log(), "keys.changed")
    assert lines
    for line in lines:
        asked = wait_for_lines(traced.stack.issuer_log, line["request_id"])
        assert [each["route"] for each in asked] == ["/.well-known/jwks.json"]
        assert {each["trace_id"] for each in asked} == {line["trace_id"]}


def test_no_span_has_a_secret_or_a_name(traced: Traced) -> None:
    """R35."""
    trace_id = "4ef7651916cd43dd8448eb211c80319c"
    assert ask(traced, trace_id).status == 200
    wait_for_trace(traced, trace_id, "POST /auth/login", "gate.shadow_refused")
    made = traced.stack.installation
    secrets = (
        made.admin_username,
        made.admin_password,
        made.issuer_env["ISSUER_FEED_TOKEN"],
        traced.login.access_token.rpartition(".")[2],
        traced.login.refresh_token,
    )
    for span in traced.receiver.spans():
        if span.program != "gateway":
            assert not [each for each in secrets if each in span.raw]
