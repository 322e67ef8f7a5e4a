"""The issuer reads its secrets again without a restart, and verifiers follow (R59)."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from issuer.composition import compose
from issuer.feed.feed_credential import GRACE
from issuer.settings.issuer_settings import IssuerSettings, load_settings
from issuer.startup.reload import renewed
from shared.outgoing.authorities import Authorities
from tests.support.clock import FakeClock as VerifierClock
from tests.support.issuer_gate import IssuerGate
from tests.support.issuer_harness import (
    IssuerHarness,
    key_environment,
    running_issuer,
)
from verifier.disk.copy_file import Identity
from verifier.disk.copy_format import derive_key
from verifier.disk.disk_copy import DiskCopy
from verifier.reloading.files import Files
from verifier.reloading.policy_file import read_policies
from verifier.reloading.reload import ReloadedParts, Reloader, ReloadReport
from verifier.settings import load_settings as load_verifier_settings
from verifier.sync.fetch import FetchError

OLD, NEW = "o" * 40, "n" * 40


class Secrets:
    """The files of both programs, as an orchestrator mounts them."""

    def __init__(self, folder: Path) -> None:
        self.issuer = folder / "issuer-feed-token"
        self.verifier = folder / "verifier-feed-token"
        self.endpoints = folder / "caep.json"
        for path in (self.issuer, self.verifier):
            path.write_text(OLD)
        self.write_endpoints("a")

    def write_endpoints(self, *names: str) -> None:
        """Write the endpoints of these names."""
        entry = {"url": "http://127.0.0.1:9", "audience": "a", "token": "t" * 20}
        text = json.dumps([entry | {"name": name} for name in names])
        self.endpoints.write_text(text)


@pytest.fixture
def secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> Secrets:
    """Environment and files of both programs."""
    monkeypatch.chdir(tmp_path)
    secrets = Secrets(tmp_path)
    values = {
        "ISSUER_URL": "https://issuer.test",
        "ISSUER_AUDIENCE": "api",
        "ISSUER_DATABASE_URL": sqlite_url,
        "ISSUER_FEED_TOKEN_FILE": str(secrets.issuer),
        "ISSUER_CAEP_ENDPOINTS_FILE": str(secrets.endpoints),
        "ISSUER_HASH_WORKERS": "1",
        "VERIFIER_ISSUER_URL": "https://issuer.test",
        "VERIFIER_AUDIENCE": "api",
        "VERIFIER_FEED_TOKEN_FILE": str(secrets.verifier),
        **key_environment(),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return secrets


@pytest.fixture
async def reloadable(
    secrets: Secrets, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[IssuerHarness]:
    async with running_issuer(load_settings()) as running:
        caplog.set_level(logging.INFO)
        caplog.clear()
        yield running


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    found = [vars(r)["fields"] for r in caplog.records if r.getMessage() == name]
    caplog.clear()
    return found


async def read_status(issuer: IssuerHarness, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return (
        await issuer.client.get("/revocations/snapshot", headers=headers)
    ).status_code


def reloader_of(gate: IssuerGate) -> Reloader:
    """Return the reloader of this gate's files, as `Runtime` builds it."""
    clock = VerifierClock()
    settings = load_verifier_settings()
    key = derive_key(settings.feed_token.get_secret_value())
    identity = Identity(key, settings.issuer_url, gate.feed.source.follower_id, "boot")
    copy = DiskCopy(identity, 30, clock.monotonic, clock.now)
    authorities = Authorities("VERIFIER_CA_FILE", "")

    async def renew() -> bool:
        return authorities.renew()

    return Reloader(
        Files(settings, read_policies(settings), authorities),
        ReloadedParts(gate.gate, gate.feed, copy, renew, lambda issuers: None),
        ReloadReport(),
        now=clock.now,
        boottime=clock.monotonic,
    )


async def test_a_feed_token_is_replaced_while_a_verifier_follows(
    reloadable: IssuerHarness, secrets: Secrets
) -> None:
    """R59: first at the issuer, then at the verifier; it goes on in between and
    after.
    """
    gate = IssuerGate(reloadable)
    gate.feed.update_source(OLD, allows_stale=False)
    reloader = reloader_of(gate)
    await gate.feed.step()
    secrets.issuer.write_text(NEW)
    await reloadable.issuer.reloader.reload()
    await gate.feed.step()
    secrets.verifier.write_text(NEW)
    await reloader.reload()
    assert gate.feed.source.token == NEW
    await gate.feed.step()
    reloadable.clock.advance(GRACE)
    await gate.feed.step()
    assert gate.feed.status.failures == 0
    gate.feed.update_source(OLD, allows_stale=False)
    with pytest.raises(FetchError, match="401"):
        await gate.feed.step()


async def test_the_replaced_feed_token_ends_after_its_grace(
    reloadable: IssuerHarness, secrets: Secrets
) -> None:
    assert await read_status(reloadable, NEW) == 401
    secrets.issuer.write_text(NEW)
    await reloadable.issuer.reloader.reload()
    reloadable.clock.advance(GRACE - 1)
    # To read the same again prolongs nothing.
    await reloadable.issuer.reloader.reload()
    assert await read_status(reloadable, NEW) == 200
    assert await read_status(reloadable, OLD) == 200
    reloadable.clock.advance(1)
    assert await read_status(reloadable, NEW) == 200
    assert await read_status(reloadable, OLD) == 401


async def test_a_bad_secret_file_changes_nothing(
    reloadable: IssuerHarness, secrets: Secrets, caplog: pytest.LogCaptureFixture
) -> None:
    """R65: the old settings stay in force, and the log names the setting without the
    secret.
    """
    for spoil in (
        lambda: secrets.issuer.write_text("short"),
        lambda: secrets.issuer.write_text(""),
        secrets.issuer.unlink,
    ):
        spoil()
        await reloadable.issuer.reloader.reload()
        assert await read_status(reloadable, OLD) == 200
        assert "short" not in caplog.text
        records = list(caplog.records)
        kept = [vars(r)["fields"] for r in records if r.getMessage() == "reload.kept"]
        assert [fields["setting"] for fields in kept] == ["ISSUER_FEED_TOKEN_FILE"]
        assert events(caplog, "reload.done") == [
            {"changed": [], "kept": ["ISSUER_FEED_TOKEN_FILE"]}
        ]
    answer = await reloadable.operators.get("/metrics")
    assert 'gatehouse_issuer_reloads_total{outcome="kept"} 3.0' in answer.text


async def test_a_setting_that_needs_a_restart_is_named(
    reloadable: IssuerHarness,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keys are shared by all processes: each taking them at its own time would end
    sessions.
    """
    ring = key_environment()["ISSUER_REFRESH_KEYS"]
    monkeypatch.setenv("ISSUER_REFRESH_KEYS", f"r2:{'A' * 43},{ring}")
    monkeypatch.setenv("ISSUER_ACCESS_TTL", "300")
    await reloadable.issuer.reloader.reload()
    reasons = [
        vars(r)["fields"]["reason"]
        for r in caplog.records
        if r.getMessage() == "reload.kept"
    ]
    assert len(reasons) == 2
    assert all("restart" in reason for reason in reasons)
    assert events(caplog, "reload.done") == [
        {"changed": [], "kept": ["ISSUER_ACCESS_TTL", "ISSUER_REFRESH_KEYS"]}
    ]


async def test_new_endpoints_get_the_next_event(
    secrets: Secrets, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = compose(load_settings())
    try:
        caplog.set_level(logging.INFO)
        secrets.write_endpoints("a", "b")
        await issuer.reloader.reload()
        assert events(caplog, "reload.done") == [
            {"changed": ["ISSUER_CAEP_ENDPOINTS"], "kept": []}
        ]
        outbox, delivery = issuer.exports.event_outbox, issuer.exports.event_delivery
        assert outbox is not None
        assert delivery is not None
        assert [e.name for e in outbox._endpoints] == ["a", "b"]
        assert [e.name for e in delivery._endpoints] == ["a", "b"]
        assert delivery._logs.keys() == {"a", "b"}
        secrets.endpoints.write_text("[{}]")
        await issuer.reloader.reload()
        assert [e.name for e in outbox._endpoints] == ["a", "b"]
    finally:
        await issuer.close()


async def test_first_endpoints_need_a_restart(
    secrets: Secrets, caplog: pytest.LogCaptureFixture
) -> None:
    secrets.write_endpoints()
    issuer = compose(load_settings())
    try:
        caplog.set_level(logging.INFO)
        secrets.write_endpoints("a")
        await issuer.reloader.reload()
        assert events(caplog, "reload.done") == [
            {"changed": [], "kept": ["ISSUER_CAEP_ENDPOINTS"]}
        ]
    finally:
        await issuer.close()


def test_a_worker_that_starts_late_reads_the_files_anew(secrets: Secrets) -> None:
    """A parent may have read them long ago; a bad file leaves its values in force."""
    settings = load_settings()
    secrets.issuer.write_text(NEW)
    found: IssuerSettings = renewed(settings)
    assert found.feed_token.get_secret_value() == NEW
    secrets.issuer.write_text("short")
    assert renewed(found) is found
