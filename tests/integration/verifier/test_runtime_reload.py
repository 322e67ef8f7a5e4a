"""`Runtime.reload` reaches every part of a worker as it is put together (R59, R65)."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared.configuration.reloading import Outcome
from shared.outgoing.authorities import Authorities
from shared.serving.server import Lifecycle
from tests.support.certificates import Authority
from tests.support.processes import eventually, free_port
from verifier.operators.decision_log import DecisionBoard
from verifier.operators.worker_board import WorkerBoard
from verifier.reloading.policy_file import read_policies
from verifier.runtime import Runtime, WorkerContext
from verifier.settings import VerifierSettings, load_settings

OLD, NEW = "o" * 40, "n" * 40
POLICIES = '[policies.late]\nrequired_scopes = ["admin"]\n'


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Files of a verifier without a reachable issuer."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text(OLD)
    (tmp_path / "policies.toml").write_text("# none yet")
    (tmp_path / "ca.pem").write_bytes(Authority().certificate)
    values = {
        "ISSUER_URL": f"http://127.0.0.1:{free_port()}",
        "AUDIENCE": "api",
        "FEED_TOKEN_FILE": "token",
        "POLICY_FILE": "policies.toml",
        "POLICY_WATCH": "0",
        "CA_FILE": "ca.pem",
        "STATE_DIR": "copies",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"VERIFIER_{name}", value)
    threshold = gc.get_threshold()
    yield tmp_path
    gc.set_threshold(*threshold)
    gc.unfreeze()


def runtime_of(settings: VerifierSettings, admin: socket.socket) -> Runtime:
    return Runtime(
        settings,
        read_policies(settings),
        WorkerContext(admin, WorkerBoard(1), 0, Lifecycle(), DecisionBoard(1)),
        Authorities("VERIFIER_CA_FILE", settings.ca_file),
    )


async def test_a_running_worker_takes_new_files(files: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as admin:
        runtime = runtime_of(load_settings(), admin)
        await runtime.reload()  # nothing runs yet
        operators = f"http://127.0.0.1:{admin.getsockname()[1]}"
        # Between the reading of the settings and the start of this worker.
        (files / "token").write_text(NEW)
        async with (
            runtime.lifespan() as port,
            httpx.AsyncClient(base_url=operators, trust_env=False) as client,
        ):
            assert runtime._settings.feed_token.get_secret_value() == NEW
            (files / "policies.toml").write_text(POLICIES)
            (files / "ca.pem").write_bytes(Authority().certificate)
            await runtime.reload()
            assert "late" in port.gate.policies.policies
            (files / "policies.toml").write_text("[")
            await runtime.reload()
            status = (await client.get("/status")).json()
            metrics = (await client.get("/metrics")).text
    assert status["policies"] == ["default", "late"]
    policy_file = status["policy_file"]
    assert policy_file["digest"] == hashlib.sha256(POLICIES.encode()).hexdigest()
    assert policy_file["loaded_at"] > 1_700_000_000
    assert "not TOML" in policy_file["last_error"]
    assert 'gatehouse_verifier_reloads_total{outcome="changed"} 1.0' in metrics
    assert 'gatehouse_verifier_reloads_total{outcome="kept"} 1.0' in metrics
    assert "gatehouse_verifier_policy_file_differs 1.0" in metrics


async def test_a_reload_while_a_start_reads_the_files_is_not_lost(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change during the reading was not in force until the next reload."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as admin:
        runtime = runtime_of(load_settings(), admin)
        read = runtime._files.renew

        def read_too_early() -> Outcome:
            outcome = read()
            (files / "policies.toml").write_text(POLICIES)
            asyncio.run_coroutine_threadsafe(runtime.reload(), loop).result()
            return outcome

        monkeypatch.setattr(runtime._files, "renew", read_too_early)
        async with runtime.lifespan() as port:

            async def is_in_force() -> bool:
                return "late" in port.gate.policies.policies

            await eventually(is_in_force)
