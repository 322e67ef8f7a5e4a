"""OTEL_ variables: in force, or the start stops and names the variable."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shared.configuration.env_file import EnvFile
from shared.configuration.settings import SettingsError
from shared.distribution import install_line
from shared.tracing.environment import wants_traces
from verifier.settings import load_settings

URL = "http://127.0.0.1:4318"
ASKED = {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "gate"},
        {"OTEL_METRICS_EXPORTER": "otlp"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_TRACES_EXPORTER": "none"},
        ASKED | {"OTEL_TRACES_EXPORTER": "none"},
        ASKED | {"OTEL_SDK_DISABLED": "True"},
        # Off, so nothing has to be in force.
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_SAMPLER": "never"},
    ],
)
def test_traces_are_off(environ: dict[str, str]) -> None:
    assert not wants_traces(environ)


@pytest.mark.parametrize(
    "environ",
    [
        ASKED,
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{URL}/v1/traces"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://otlp.example.com"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        ASKED | {"OTEL_SDK_DISABLED": "false"},
        ASKED | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        ASKED | {"OTEL_TRACES_SAMPLER": "traceidratio"},
        ASKED | {"OTEL_TRACES_SAMPLER_ARG": "0.25"},
        ASKED | {"OTEL_BSP_MAX_QUEUE_SIZE": "512"},
        # For another program.
        ASKED | {"OTEL_PYTHON_LOG_FORMAT": "x", "OTEL_LOGS_EXPORTER": "console"},
    ],
)
def test_traces_are_on(environ: dict[str, str]) -> None:
    assert wants_traces(environ)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_EXPORTER", "otlp,console"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://host:99999"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://hunter2:hunter2@host"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://host/?key=hunter2"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1_000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100001"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
    ],
)
def test_a_value_that_would_not_be_in_force_is_refused(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: must ") as refused:
        wants_traces(ASKED | {name: text})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "module", ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"]
)
def test_without_the_extra_the_start_stops(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    for name in [n for n in sys.modules if n.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    # As the import system has a package that is not there.
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError) as refused:
        wants_traces(ASKED)
    assert str(refused.value).startswith("OTEL_EXPORTER_OTLP_ENDPOINT: ")
    assert install_line("issuer", "otel") in str(refused.value)
    assert "[verifier,otel]" in str(refused.value)
    assert not wants_traces({})


@pytest.mark.parametrize("in_environment", [False, True])
def test_a_variable_in_the_env_file_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_environment: bool
) -> None:
    """It would not be in force: the SDK reads the environment."""
    file = tmp_path / ".env"
    file.write_text(
        "VERIFIER_ISSUER_URL=https://issuer.test\nVERIFIER_AUDIENCE=api\n"
        f"VERIFIER_FEED_TOKEN={'t' * 40}\nOTEL_EXPORTER_OTLP_ENDPOINT={URL}\n"
    )
    if in_environment:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", URL)
        assert load_settings(EnvFile(file)).audience == "api"
        return
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with pytest.raises(SettingsError, match="ENDPOINT: stands in"):
        load_settings(EnvFile(file))
