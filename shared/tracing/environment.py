"""Whether traces are asked for, by the variables that OpenTelemetry defines.

The SDK replaces a value that it cannot use by a default and goes on. Here it stops the
start, like one of our own settings (decision 0012).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

from shared.configuration.settings import SettingsError
from shared.distribution import install_line

PREFIX: Final = "OTEL_"
_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
_PROTOCOLS: Final = (
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
)
_SAMPLER: Final = "OTEL_TRACES_SAMPLER"
_SAMPLERS: Final = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
_COMPRESSIONS: Final = ("none", "gzip", "deflate")
_QUEUE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
_BATCH: Final = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
#: Least and most of each number. A span takes about 2 kB.
_WHOLE_NUMBERS: Final = {
    _QUEUE: (1, 100_000),
    _BATCH: (1, 100_000),
    "OTEL_BSP_SCHEDULE_DELAY": (1, 600_000),
    "OTEL_BSP_EXPORT_TIMEOUT": (1, 600_000),
}
_NUMBERS: Final = {
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": (0.001, 600.0),
    "OTEL_EXPORTER_OTLP_TIMEOUT": (0.001, 600.0),
    "OTEL_TRACES_SAMPLER_ARG": (0.0, 1.0),
}
#: The SDK's own, for the variables of the queue that are not set.
_DEFAULT_QUEUE: Final = 2_048
_DEFAULT_BATCH: Final = 512
#: The packages of the extra `otel`, by their modules.
_MODULES: Final = (
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter.otlp.proto.http",
)


def wants_traces(environ: Mapping[str, str]) -> bool:
    """Return whether spans are to be exported.

    They are when an endpoint or the exporter `otlp` is named, unless the exporter is
    `none` or `OTEL_SDK_DISABLED` is true.

    Raises:
        SettingsError: traces are asked for, and a variable cannot be in force or the
            extra is missing.
    """
    texts = {name: text.strip() for name, text in environ.items()}
    if texts.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = texts.get(_EXPORTER, "").lower()
    asked_by = _EXPORTER if exporter else _first_set(texts, _ENDPOINTS)
    if exporter == "none" or not asked_by:
        return False
    problems = [*_find_problems(texts)]
    if problems:
        raise SettingsError("\n".join(problems))
    missing = [name for name in _MODULES if not _is_installed(name)]
    if missing:
        raise SettingsError(
            f"{asked_by}: asks for traces, which need what is not installed here "
            f"({', '.join(missing)}); install the extra: "
            f"{install_line('issuer', 'otel')} (or [verifier,otel]), or in a clone: "
            "sh requirements/install PYTHON requirements/otel.lock, or unset it"
        )
    return True


def _first_set(texts: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((name for name in names if texts.get(name)), "")


def _find_problems(texts: Mapping[str, str]) -> Iterator[str]:
    if texts.get(_EXPORTER, "").lower() not in ("", "otlp"):
        yield f"{_EXPORTER}: must be otlp or none"
    protocol = _first_set(texts, _PROTOCOLS)
    if protocol and texts[protocol].lower() != "http/protobuf":
        yield f"{protocol}: must be http/protobuf, the one protocol that is spoken here"
    for name in _ENDPOINTS:
        if texts.get(name) and not _is_endpoint(texts[name]):
            yield (
                f"{name}: must be http://HOST:PORT or https://..., without user name, "
                "query or fragment; put credentials into OTEL_EXPORTER_OTLP_HEADERS"
            )
    yield from _find_wrong_words(texts)
    yield from _find_wrong_numbers(texts)


def _find_wrong_words(texts: Mapping[str, str]) -> Iterator[str]:
    allowed = {
        _SAMPLER: _SAMPLERS,
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": _COMPRESSIONS,
        "OTEL_EXPORTER_OTLP_COMPRESSION": _COMPRESSIONS,
    }
    for name, words in allowed.items():
        if texts.get(name, "").lower() not in ("", *words):
            yield f"{name}: must be one of {', '.join(words)}"


def _find_wrong_numbers(texts: Mapping[str, str]) -> Iterator[str]:
    for numbers, kind in ((_WHOLE_NUMBERS, int), (_NUMBERS, float)):
        for name, (least, most) in numbers.items():
            if texts.get(name) and not _is_between(texts[name], kind, least, most):
                whole = "whole " if kind is int else ""
                yield f"{name}: must be a {whole}number from {least} to {most}"
                return
    queue = int(texts.get(_QUEUE) or _DEFAULT_QUEUE)
    if int(texts.get(_BATCH) or _DEFAULT_BATCH) > queue:
        yield f"{_BATCH}: must not exceed {_QUEUE}, {queue}"


def _is_between(
    text: str, kind: type[int] | type[float], least: float, most: float
) -> bool:
    try:
        return text.isascii() and "_" not in text and least <= kind(text) <= most
    except ValueError:
        return False


def _is_endpoint(text: str) -> bool:
    try:
        parts = urlsplit(text)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return (
        has_port
        and text.isascii()
        and text.isprintable()
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and not ({"@", "?", "#", " "} & set(text))
    )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # Of a package inside a package that is missing.
        return False
