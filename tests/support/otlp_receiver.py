"""A receiver of OTLP over HTTP: what programs export, decoded and kept.

It decodes with the messages of `opentelemetry-proto`, the definition of the protocol.
With `GATEHOUSE_TEST_OTELCOL=PATH` the OpenTelemetry Collector at that path receives in
its place, and writes what it understood to a file (docs/decisions/0032-traces.md).
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

from tests.support.processes import ProcessFactory, free_port, is_listening

COLLECTOR = os.environ.get("GATEHOUSE_TEST_OTELCOL", "")


class ReceivedSpan(NamedTuple):
    """A span as it arrived.

    Attributes:
        program: its `service.name`.
        instance: its `service.instance.id`.
        name: of the span.
        trace_id: in hexadecimal digits, as the other ids.
        span_id: its own.
        parent_id: empty for none.
        kind: such as `SPAN_KIND_SERVER`.
        is_error: its status.
        attributes: by name.
        raw: all of it.
    """

    program: str
    instance: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    is_error: bool
    attributes: dict[str, Any]
    raw: str


class Receiver(Protocol):
    """Where programs export to."""

    @property
    def url(self) -> str:
        """The value of `OTEL_EXPORTER_OTLP_ENDPOINT`."""

    def spans(self) -> list[ReceivedSpan]:
        """Return all spans that have arrived."""


class _OwnReceiver:
    """Decodes in this process."""

    def __init__(self) -> None:
        self._spans: list[ReceivedSpan] = []
        self.problems: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = b"".join(self._pieces())
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                status = owner._take(self.path, self.headers["Content-Type"], body)
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _pieces(self) -> Iterator[bytes]:
                if "Content-Length" in self.headers:
                    yield self.rfile.read(int(self.headers["Content-Length"]))
                    return
                # Envoy sends chunks.
                while size := int(self.rfile.readline(), 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> list[ReceivedSpan]:
        assert self.problems == []
        return list(self._spans)

    def _take(self, path: str, kind: str, body: bytes) -> int:
        if (path, kind) != ("/v1/traces", "application/x-protobuf"):
            self.problems.append(f"{path}: {kind}")
            return 404
        message = MessageToDict(ExportTraceServiceRequest.FromString(body))
        # Protobuf's JSON has the ids in base64, OTLP's in hexadecimal digits.
        self._spans += read_spans(message, lambda text: base64.b64decode(text).hex())
        return 200


class _Collector:
    """Reads the file that the OpenTelemetry Collector writes."""

    def __init__(self, port: int, file: Path) -> None:
        self._port = port
        self._file = file

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def spans(self) -> list[ReceivedSpan]:
        text = self._file.read_text() if self._file.exists() else ""
        lines = [line for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        return [s for line in lines for s in read_spans(json.loads(line), str)]


def read_spans(message: dict[str, Any], read_id: Any) -> Iterator[ReceivedSpan]:
    """Yield the spans of a message in OTLP's JSON form."""
    kinds = dict(enumerate(["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT"]))
    for of_program in message["resourceSpans"]:
        described = _attributes(of_program["resource"])
        for of_scope in of_program["scopeSpans"]:
            for span in of_scope["spans"]:
                kind = span.get("kind", 0)
                yield ReceivedSpan(
                    program=described["service.name"],
                    instance=described.get("service.instance.id", ""),
                    name=span["name"],
                    trace_id=read_id(span["traceId"]),
                    span_id=read_id(span["spanId"]),
                    parent_id=read_id(span.get("parentSpanId", "")),
                    kind=kind if isinstance(kind, str) else f"SPAN_KIND_{kinds[kind]}",
                    is_error=span.get("status", {}).get("code", 0)
                    in (2, "STATUS_CODE_ERROR"),
                    attributes=_attributes(span),
                    raw=json.dumps(of_program),
                )


def _attributes(described: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for each in described.get("attributes", []):
        ((kind, value),) = each["value"].items()
        found[each["key"]] = int(value) if kind == "intValue" else value
    return found


@contextmanager
def receiving(folder: Path, factory: ProcessFactory) -> Iterator[Receiver]:
    """Receive while the block runs.

    Args:
        folder: for files.
        factory: starts the Collector, where one is named.
    """
    if COLLECTOR:
        yield _start_collector(folder, factory)
        return
    receiver = _OwnReceiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


def _start_collector(folder: Path, factory: ProcessFactory) -> _Collector:
    port, file = free_port(), folder / "spans.jsonl"
    config = folder / "collector.json"
    config.write_text(
        json.dumps(
            {
                "receivers": {
                    "otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}
                },
                "exporters": {"file": {"path": str(file), "flush_interval": "100ms"}},
                "service": {
                    "pipelines": {
                        "traces": {"receivers": ["otlp"], "exporters": ["file"]}
                    },
                    "telemetry": {"metrics": {"level": "none"}},
                },
            }
        )
    )
    command = (COLLECTOR, "--config", f"file:{config}")
    factory.start("collector", command, ready=lambda: is_listening(port))
    return _Collector(port, file)
