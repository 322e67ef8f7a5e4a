"""Spans, exported with OpenTelemetry (decision 0032).

Import this module only where traces are asked for: it takes a tenth of a second and
10 MB. The exporter has a thread of its own and a bounded queue. What it cannot send is
dropped; no request waits for it or fails by it.

Attributes are counted out by the callers. No error text, header, path or query goes
into a span: they may hold tokens and names (R35).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.distribution import VERSION
from shared.outgoing.failure_log import FailureLog
from shared.tracing.ids import Headers, find_only

#: Seconds that the end of a process waits for the last spans.
FLUSH_SECONDS: Final = 2.0
#: Characters of the exporter's own messages, which may repeat a collector's answer.
_MESSAGE: Final = 200
#: Bytes of a header that carries a trace: what `tracestate` should have room for (W3C
#: Trace Context, section 3.3.1.5).
_CARRIED: Final = 512
_SERVER_ERROR: Final = 500
_LOG: Final = logging.getLogger(__name__)
_CARRIER: Final = TraceContextTextMapPropagator()

Attributes = Mapping[str, str | int | bool]


class _HeaderGetter(Getter[Headers]):
    """Reads headers that stand there once; a repeated one could be a client's."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        value = find_only(carrier, key.encode("ascii"))
        # A longer `tracestate` would be kept in every span of the request.
        is_taken = value and len(value) <= _CARRIED
        return [value.decode("latin-1")] if is_taken else None

    def keys(self, carrier: Headers) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_GETTER: Final = _HeaderGetter()


class OpenSpan:
    """A span that has not ended."""

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        """The id of its trace, 32 hexadecimal digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def name(self, name: str, attributes: Attributes) -> None:
        """Name the span once it is known what it is.

        Args:
            name: one of few.
            attributes: that were not known before.
        """
        self._span.update_name(name)
        self._span.set_attributes(attributes)

    def answered(self, status: int) -> None:
        """Note the status of the HTTP answer."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_ERROR:
            self.failed(str(status))

    def failed(self, error_type: str) -> None:
        """Note a failure.

        Args:
            error_type: one of few words; never the text of an error.
        """
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """End a span of `Spans.begin`; the others end with their block."""
        self._span.end()


class Spans:
    """Makes the spans of one process.

    Args:
        provider: samples and exports.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("gatehouse", VERSION)

    @contextmanager
    def server(
        self, name: str, headers: Headers, attributes: Attributes
    ) -> Iterator[OpenSpan]:
        """Open the span of a request that came in, below the caller's.

        Args:
            name: until it is known better.
            headers: of the request, names in lower case.
            attributes: of the span.
        """
        parent = _CARRIER.extract(headers, Context(), _GETTER)
        with self._open(name, SpanKind.SERVER, attributes, parent) as span:
            yield OpenSpan(span)

    @contextmanager
    def client(
        self, name: str, attributes: Attributes
    ) -> Iterator[tuple[OpenSpan, dict[str, str]]]:
        """Open the span of a request to another program; give its headers, too."""
        with self._open(name, SpanKind.CLIENT, attributes) as span:
            headers: dict[str, str] = {}
            _CARRIER.inject(headers)
            yield OpenSpan(span), headers

    @contextmanager
    def inner(self, name: str, attributes: Attributes) -> Iterator[None]:
        """Open the span of a part of the present request."""
        with self._open(name, SpanKind.INTERNAL, attributes):
            yield

    def begin(self, name: str, attributes: Attributes) -> OpenSpan | None:
        """Begin a span below the present one, or return None when there is none.

        For work that is not in one block. Call `end` when it is done.
        """
        if not get_current_span().is_recording():
            return None
        span = self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=dict(attributes)
        )
        return OpenSpan(span)

    def note(self, name: str, headers: Headers, attributes: Attributes) -> None:
        """Make a span of what has just happened in a request; it takes no time.

        Args:
            name: one of few.
            headers: of the request, names in lower case.
            attributes: of the span.
        """
        now = time.time_ns()
        parent = _CARRIER.extract(headers, Context(), _GETTER)
        span = self._tracer.start_span(
            name, parent, SpanKind.SERVER, dict(attributes), start_time=now
        )
        span.end(now)

    @contextmanager
    def _open(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        parent: Context | None = None,
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            parent,
            kind,
            dict(attributes),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                OpenSpan(span).failed(type(error).__name__)
                raise

    def close(self, patience: float = FLUSH_SECONDS) -> None:
        """Send the last spans, but wait no longer than `patience` seconds.

        Spans that end later are dropped. The SDK's own limit is half a minute, so it
        waits in a thread that nothing waits for.
        """
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(patience)


class _ExporterLog(logging.Handler):
    """Logs the SDK's warnings as events of ours, bounded in number and length."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._failures = FailureLog(_LOG, "tracing.failed", time.monotonic)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:
            text = str(record.msg)
        if record.exc_info and record.exc_info[0]:
            text += f" {record.exc_info[0].__name__}"
        shown = "".join(filter(str.isprintable, text))[:_MESSAGE]
        self._failures.failed((record.name, record.lineno), error=shown)


def start_spans(program: str) -> Spans:
    """Return the spans of this process, by the variables of the environment.

    Call it after a fork: the exporter has a thread.

    Args:
        program: `issuer` or `verifier`.
    """
    logger = logging.getLogger("opentelemetry")
    logger.handlers, logger.propagate = [_ExporterLog()], False
    session = requests.Session()
    # As for all our connections: no proxy, netrc or authorities of the environment.
    # The variables of OpenTelemetry name the authorities.
    session.trust_env = False
    return build_spans(program, BatchSpanProcessor(OTLPSpanExporter(session=session)))


def build_spans(program: str, processor: SpanProcessor) -> Spans:
    """Return spans that go to this processor."""
    provider = TracerProvider(
        resource=_describe(program),
        # `close` ends it, with a bound.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(processor)
    return Spans(provider)


def _describe(program: str) -> Resource:
    """Return what every span says of this process; the environment's words win."""
    ours = Resource(
        {"service.version": VERSION, "service.instance.id": str(uuid.uuid4())}
    ).merge(Resource.create())
    if str(ours.attributes["service.name"]).startswith("unknown_service"):
        ours = ours.merge(Resource({"service.name": f"gatehouse-{program}"}))
    return ours
