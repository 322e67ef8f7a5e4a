"""Traces cost nothing while they are off, and a collector's trouble costs little."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from shared.tracing.exporting import FLUSH_SECONDS, start_spans
from tests.support.issuer_harness import FEED_TOKEN
from tests.support.processes import free_port

SETTINGS = {
    "VERIFIER_ISSUER_URL": "https://issuer.test",
    "VERIFIER_AUDIENCE": "api",
    "VERIFIER_FEED_TOKEN": FEED_TOKEN,
}


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("issuer.serve, issuer.app", "opentelemetry.sdk requests"),
        # FastAPI imports OpenTelemetry's interface, Starlette does not.
        ("verifier.serve, verifier.runtime", "opentelemetry requests"),
    ],
)
def test_a_program_that_is_not_traced_imports_none_of_it(
    modules: str, unwanted: str
) -> None:
    program = (
        f"import {modules}, sys; "
        f"sys.exit(str({{*'{unwanted} shared.tracing.exporting'.split()}} "
        "& {*sys.modules} or ''))"
    )
    environ = {n: text for n, text in os.environ.items() if not n.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.stderr == "\n"


def test_a_variable_that_cannot_be_in_force_stops_the_start() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "verifier"],
        check=False,
        env={**os.environ, **SETTINGS, "OTEL_TRACES_EXPORTER": "zipkin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "OTEL_TRACES_EXPORTER: must be otlp or none\n"


@pytest.fixture
def exporter_log() -> Iterator[None]:
    """Give OpenTelemetry its own log back.

    The SDK drops a line that equals its last one, for up to 20 s: that of the other
    case, too.
    """
    logger = logging.getLogger("opentelemetry")
    batches = logging.getLogger("opentelemetry.sdk._shared_internal")
    before = logger.handlers, logger.propagate, batches.filters
    batches.filters = []
    yield
    logger.handlers, logger.propagate, batches.filters = before


@pytest.mark.parametrize("collector", ["away", "silent"])
@pytest.mark.usefixtures("exporter_log")
def test_a_collector_in_trouble_delays_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, collector: str
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1] if collector == "silent" else free_port()
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        spans = start_spans("issuer")
        begun = time.monotonic()
        for _ in range(5_000):
            spans.note("gate.refused", [], {})
        assert time.monotonic() - begun < 10
        begun = time.monotonic()
        spans.close()
        assert time.monotonic() - begun < FLUSH_SECONDS + 1
    failures = [r for r in caplog.records if r.getMessage() == "tracing.failed"]
    assert 1 <= len(failures) <= 10
