"""Spans: their parents, their fields, and what a collector that hangs costs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.tracing.exporting import Spans, _ExporterLog, build_spans

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HEADERS = [(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())]


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(memory: InMemorySpanExporter) -> Spans:
    return build_spans("issuer", SimpleSpanProcessor(memory))


def test_a_request_is_below_its_caller_and_its_parts_below_it(
    spans: Spans, memory: InMemorySpanExporter
) -> None:
    with spans.server("GET", HEADERS, {"a": 1}) as request:
        assert request.trace_id == TRACE
        with spans.inner("hash", {}), spans.client("POST /x", {}) as (_, carried):
            pass
        request.name("GET /x", {"b": True})
        request.answered(503)
    asked, inner, served = memory.get_finished_spans()
    assert served.parent is not None
    assert f"{served.parent.span_id:016x}" == PARENT
    assert served.name == "GET /x"
    assert served.attributes == {
        "a": 1,
        "b": True,
        "http.response.status_code": 503,
        "error.type": "503",
    }
    assert not served.status.is_ok
    assert inner.parent == served.context
    assert asked.parent == inner.context
    assert asked.context is not None
    assert carried["traceparent"] == f"00-{TRACE}-{asked.context.span_id:016x}-01"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [*HEADERS, *HEADERS],
        [(b"traceparent", b"\xff")],
        [(b"traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01")],
    ],
)
def test_without_one_valid_traceparent_a_trace_begins(
    spans: Spans, memory: InMemorySpanExporter, headers: list[tuple[bytes, bytes]]
) -> None:
    with spans.server("GET", headers, {}) as request:
        assert int(request.trace_id, 16)
        assert request.trace_id != TRACE
    spans.note("gate.refused", headers, {})
    assert [span.parent for span in memory.get_finished_spans()] == [None, None]


@given(traceparent=st.binary(max_size=80), tracestate=st.binary(max_size=600))
def test_no_header_fails_a_request(traceparent: bytes, tracestate: bytes) -> None:
    spans = build_spans("issuer", SimpleSpanProcessor(InMemorySpanExporter()))
    for parent in (traceparent, HEADERS[0][1]):
        headers = [(b"traceparent", parent), (b"tracestate", tracestate)]
        with spans.server("GET", headers, {}) as request:
            assert len(request.trace_id) == 32


@pytest.mark.parametrize(("size", "is_taken"), [(512, True), (513, False)])
def test_a_long_tracestate_of_a_client_is_not_kept_in_each_span(
    spans: Spans, memory: InMemorySpanExporter, size: int, is_taken: bool
) -> None:
    """A collector that is away would leave 16 kB in each place of the queue."""
    members = ",".join(f"v{number}={'x' * 120}" for number in range(4))
    state = members.ljust(size, "x").encode()
    spans.note("gate.refused", [*HEADERS, (b"tracestate", state)], {})
    (span,) = memory.get_finished_spans()
    assert span.context is not None
    assert bool(span.context.trace_state) == is_taken
    assert f"{span.context.trace_id:032x}" == TRACE


def test_a_refusal_is_a_moment_below_the_gateways_span(
    spans: Spans, memory: InMemorySpanExporter
) -> None:
    spans.note("gate.refused", HEADERS, {"gatehouse.reason": "expired"})
    (span,) = memory.get_finished_spans()
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.start_time == span.end_time


def test_an_error_leaves_its_class_and_not_its_text(
    spans: Spans, memory: InMemorySpanExporter
) -> None:
    """R35."""
    with pytest.raises(ValueError, match="hunter2"), spans.inner("hash", {}):
        raise ValueError("hunter2")
    (span,) = memory.get_finished_spans()
    assert span.attributes == {"error.type": "ValueError"}
    assert "hunter2" not in span.to_json()


def test_work_of_no_request_has_no_span(
    spans: Spans, memory: InMemorySpanExporter
) -> None:
    assert spans.begin("SELECT", {}) is None
    with spans.server("GET", [], {}):
        begun = spans.begin("SELECT", {})
        assert begun is not None
        begun.end()
    assert [span.name for span in memory.get_finished_spans()] == ["SELECT", "GET"]


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(memory: InMemorySpanExporter) -> object:
        build_spans("issuer", SimpleSpanProcessor(memory)).note("x", [], {})
        return memory.get_finished_spans()[0].resource.attributes["service.name"]

    assert name(InMemorySpanExporter()) == "gatehouse-issuer"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=pass-office")
    assert name(InMemorySpanExporter()) == "pass-office"


class _Hanging(SpanExporter):
    """A collector that takes spans and never answers."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        self.let_go.wait()
        return SpanExportResult.SUCCESS


def test_a_collector_that_hangs_holds_up_nothing() -> None:
    exporter = _Hanging()
    processor = BatchSpanProcessor(
        exporter, max_queue_size=100, max_export_batch_size=10
    )
    spans = build_spans("issuer", processor)
    begun = time.monotonic()
    for _ in range(10_000):
        spans.note("gate.refused", [], {})
    assert len(processor._batch_processor._queue) <= 100
    spans.close(patience=0.1)
    assert time.monotonic() - begun < 20
    exporter.let_go.set()


def test_the_exporters_messages_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    handler = _ExporterLog()
    for _ in range(100):
        for line in range(50):
            record = logging.LogRecord(
                "opentelemetry.x", logging.ERROR, "", line, "%s", ("a\n" * 999,), None
            )
            handler.handle(record)
    assert 1 <= len(caplog.records) <= 10
    for kept in caplog.records:
        assert kept.getMessage() == "tracing.failed"
        assert vars(kept)["fields"]["error"] == "a" * 200
