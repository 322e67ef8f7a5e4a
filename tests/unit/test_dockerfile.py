"""The Dockerfile keeps its rules; no Docker engine is needed to see that."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.dockerfile import Instruction, context_rules, read_stages

ROOT = Path(__file__).resolve().parents[2]
#: Each image, and the program in it.
IMAGES = {
    "issuer": "issuer",
    "issuer-otel": "issuer",
    "verifier": "verifier",
    "verifier-grpc": "verifier",
    "verifier-native": "verifier",
    "verifier-otel": "verifier",
}
#: The files that each program's build copies from the repository.
COPIED = {
    "build": ["requirements/install"],
    "build-issuer": ["requirements/issuer.lock", "shared", "issuer"],
    "compile-verifier": [
        "requirements/compile.lock",
        "shared",
        "verifier",
        "deploy/compile.py",
    ],
    "build-verifier": ["requirements/verifier.lock"],
    "build-verifier-grpc": ["requirements/grpc.lock"],
    "build-verifier-native": ["requirements/native.lock"],
    "build-issuer-otel": ["requirements/otel.lock"],
    "build-verifier-otel": ["requirements/otel.lock"],
}

STAGES = read_stages()


def instructions(stage: str, word: str) -> list[str]:
    return [rest for name, rest in STAGES[stage] if name == word]


def whole(image: str) -> list[Instruction]:
    """Return the stages of the image: its stage and those it is built from."""
    result: list[Instruction] = []
    stage = image
    while stage in STAGES:
        result = STAGES[stage] + result
        stage = instructions(stage, "FROM")[0].split()[0]
    return result


@pytest.mark.parametrize("image", IMAGES)
def test_image_runs_as_an_unprivileged_numeric_user(image: str) -> None:
    users = [rest for word, rest in whole(image) if word == "USER"]
    assert users
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])
    assert all(word != "RUN" for word, _ in STAGES[image])


@pytest.mark.parametrize("image", IMAGES)
def test_image_has_only_its_own_pinned_packages_and_code(image: str) -> None:
    (other,) = set(IMAGES.values()) - {IMAGES[image]}
    build = STAGES[f"build-{image}"]
    lock = image.rpartition("-")[2]
    installs = [rest for word, rest in build if word == "RUN" and "install" in rest]
    assert installs == [
        f"sh /build/install /opt/gatehouse/bin/python /build/{lock}.lock"
    ]
    assert other not in str(build + whole(image)[len(whole("runtime")) :])


def copied_from_the_repository(stage: str) -> list[str]:
    sources = [rest.split()[0] for rest in instructions(stage, "COPY")]
    return [source for source in sources if not source.startswith("--from=")]


@pytest.mark.parametrize("stage", COPIED)
def test_each_stage_copies_only_its_sources(stage: str) -> None:
    assert copied_from_the_repository(stage) == COPIED[stage]


def test_the_verifiers_image_has_the_compiled_code() -> None:
    """Compiler and mypy stay in their stage: only /app leaves it."""
    copies = instructions("verifier-program", "COPY")
    assert copies == ["--from=compile-verifier /app /app"]
    (install,) = [
        run for run in instructions("compile-verifier", "RUN") if "venv" in run
    ]
    assert install.endswith(
        "sh /build/install /opt/compile/bin/python /build/compile.lock"
    )
    runs = instructions("compile-verifier", "RUN")
    assert any("compile.py --source /app /app" in run for run in runs)


@pytest.mark.parametrize("image", IMAGES)
def test_final_image_takes_no_build_tools_along(image: str) -> None:
    copies = [rest for word, rest in whole(image) if word == "COPY"]
    app = "compile-verifier" if IMAGES[image] == "verifier" else "build-issuer"
    assert set(copies) == {
        f"--from={app} /app /app",
        f"--from=build-{image} /opt/gatehouse /opt/gatehouse",
    }
    runs = [rest for word, rest in whole(image) if word == "RUN"]
    assert not any(re.search(r"apt-get|apk |gcc|\binstall\b", run) for run in runs)
    uninstalls = [run for run in runs if "pip uninstall" in run]
    assert len(uninstalls) == 1
    assert {"pip", "setuptools", "wheel"} <= set(uninstalls[0].split())


@pytest.mark.parametrize("image", IMAGES)
def test_image_starts_its_program_and_checks_the_operators_port(image: str) -> None:
    program = IMAGES[image]
    last = dict(whole(image))
    assert json.loads(last["ENTRYPOINT"]) == ["python", "-m", program]
    assert "CMD" not in last
    checks = [rest for word, rest in whole(image) if word == "HEALTHCHECK"]
    assert len(checks) == 1
    command = json.loads(checks[0].partition(" CMD ")[2])
    # R55: it reads the settings, so it follows a changed port.
    assert command == ["python", "-m", program, "health"]


@pytest.mark.parametrize("image", IMAGES)
def test_image_sets_no_secret_and_trusts_no_peer_by_default(image: str) -> None:
    """R1, R2: an image must not open anything that the program keeps shut."""
    for word, rest in whole(image):
        if word in {"ENV", "ARG"}:
            assert not re.search(r"TOKEN|KEY|PEPPER|PASSWORD|TRUSTED", rest)


def test_nothing_is_fetched_from_a_url() -> None:
    for stage in STAGES.values():
        assert all(word != "ADD" for word, _ in stage)
        assert "://" not in str(stage)


def test_every_stage_is_based_on_the_same_slim_python() -> None:
    bases = {instructions(stage, "FROM")[0].split()[0] for stage in STAGES}
    assert bases - set(STAGES) == {"python:3.11-slim"}


def test_build_context_has_only_copied_files() -> None:
    """A `.env` or var/ with secrets never reaches the build's context."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    allowed = set(context_rules()[0])
    copied = {path for stage in STAGES for path in copied_from_the_repository(stage)}
    assert allowed == copied


def test_the_issuers_image_serves_no_api_page_by_default() -> None:
    """A page that tries calls is for developers against the issuer."""
    (env,) = instructions("issuer-program", "ENV")
    assert "ISSUER_DOCS=false" in env.split()
