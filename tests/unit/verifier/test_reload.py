"""Files are read again without a restart, and never make things worse (R59, R65)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from shared.configuration.settings import SettingsError
from shared.feed import FOLLOWER_ON_STALE_HEADER
from tests.support.gatehouse_verifier import started
from tests.support.reloading import ReloadableVerifier
from verifier.disk.copy_format import derive_key
from verifier.operators.metrics import VerifierMetrics
from verifier.settings import VerifierSettings
from verifier.sync.fetch import Fetched, FetchError

PLAIN = "[policies.plain]\n"
STRICT = '[policies.default]\nrequired_scopes = ["admin"]\n[policies.other]\n'
STALE = '[policies.lax]\non_stale = "allow"\n'
BAD = {
    "not TOML": "[policies",
    "unknown field": '[policies.default]\nrequired_scope = ["admin"]\n',
    "no UTF-8": "\udcff",
    "gone": None,
    "empty": "\n",
    "deep": "x = " + "[" * 100_000,
}


@pytest.fixture
async def reloadable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> ReloadableVerifier:
    made = ReloadableVerifier(await started(), tmp_path, PLAIN)
    caplog.set_level(logging.INFO)
    caplog.clear()
    return made


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [vars(r)["fields"] for r in caplog.records if r.getMessage() == name]


def metric(reloadable: ReloadableVerifier, name: str) -> float:
    metrics = VerifierMetrics(
        reloadable.verifier.parts,
        reloadable.verifier.clock.monotonic,
        reloads=reloadable.report,
    )
    (line,) = [
        line
        for line in metrics.render().decode().splitlines()
        if line.startswith(f"gatehouse_verifier_{name} ")
    ]
    return float(line.split()[-1])


async def test_new_policies_are_in_force_for_the_next_request(
    reloadable: ReloadableVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    verifier = reloadable.verifier
    token = verifier.issuer.mint()
    assert verifier.check(token).status == 200
    assert verifier.check(token, target=b"/verify/nginx/p/other").status == 503
    verifier.clock.advance(7)
    await reloadable.reload_with(STRICT)
    assert verifier.check(token).status == 403
    assert verifier.check(token, target=b"/verify/nginx/p/other").status == 200
    assert verifier.check(token, target=b"/verify/nginx/p/plain").status == 503
    assert events(caplog, "reload.done") == [
        {"changed": ["VERIFIER_POLICY_FILE"], "kept": []}
    ]
    digest = hashlib.sha256(STRICT.encode()).hexdigest()
    assert verifier.gate.policies.digest == digest
    assert reloadable.report.loaded_at == verifier.clock.now()
    assert reloadable.report.outcomes == {"changed": 1}
    assert metric(reloadable, 'reloads_total{outcome="changed"}') == 1
    assert metric(reloadable, "policy_file_differs") == 0


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
async def test_a_bad_policy_file_leaves_the_last_good_one_in_force_and_is_logged(
    reloadable: ReloadableVerifier,
    caplog: pytest.LogCaptureFixture,
    text: str | None,
) -> None:
    """R65 (oathkeeper 217)."""
    verifier = reloadable.verifier
    token = verifier.issuer.mint()
    await reloadable.reload_with(STRICT)
    before = verifier.gate.policies
    caplog.clear()
    if text is not None and "\udcff" in text:
        reloadable.policy_file.write_bytes(b"\xff")
        await reloadable.reloader.reload()
    else:
        await reloadable.reload_with(text)
    assert verifier.gate.policies is before
    assert verifier.check(token).status == 403
    (kept,) = events(caplog, "reload.kept")
    assert kept["setting"] == "VERIFIER_POLICY_FILE"
    assert kept["reason"]
    assert events(caplog, "reload.done") == [
        {"changed": [], "kept": ["VERIFIER_POLICY_FILE"]}
    ]
    assert reloadable.report.policy_error == kept["reason"]
    assert metric(reloadable, "policy_file_differs") == 1
    assert metric(reloadable, 'reloads_total{outcome="kept"}') == 1
    await reloadable.reload_with(PLAIN)
    assert verifier.check(token).status == 200
    assert reloadable.report.policy_error == ""
    assert metric(reloadable, "policy_file_differs") == 0


async def test_a_pipe_in_place_of_a_file_holds_nothing_up(
    reloadable: ReloadableVerifier,
) -> None:
    reloadable.policy_file.unlink()
    os.mkfifo(reloadable.policy_file)
    async with asyncio.timeout(60):
        await reloadable.reloader.reload()
    assert "regular file" in reloadable.report.policy_error


async def test_facts_stay_where_the_token_policy_did_not_change(
    reloadable: ReloadableVerifier,
) -> None:
    """A reload must not have every token's signature checked again at once."""
    verifier = reloadable.verifier
    token = verifier.issuer.mint()
    office = '[policies.office]\naudience = "office"\n'
    await reloadable.reload_with(PLAIN + office)
    caches = dict(verifier.gate.caches)
    assert len(caches) == 2
    verifier.check(token)
    verifier.check(token, target=b"/verify/nginx/p/office")
    misses = sum(cache.counts.misses for cache in caches.values())
    metrics = VerifierMetrics(verifier.parts, verifier.clock.monotonic)
    metrics.flush()
    await reloadable.reload_with(STRICT)
    (kept,) = verifier.gate.caches.values()
    assert kept is caches[reloadable.files.policies.find("default").token]
    assert len(kept) == 1
    # The counts of the dropped cache still count: a counter never falls.
    counted = verifier.gate.past.misses + kept.counts.misses
    assert counted == misses == 2
    metrics.flush()


async def test_an_empty_cache_is_kept_as_well(reloadable: ReloadableVerifier) -> None:
    gate = reloadable.verifier.gate
    (cache,) = gate.caches.values()
    assert len(cache) == 0
    await reloadable.reload_with(STRICT)
    assert list(gate.caches.values()) == [cache]


async def test_a_new_feed_token_is_shown_and_seals_the_copy(
    reloadable: ReloadableVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    """R59."""
    assert isinstance(reloadable.settings, VerifierSettings)
    token = "t" * 40
    reloadable.settings = reloadable.settings.model_copy(
        update={"feed_token": SecretStr(token)}
    )
    await reloadable.reloader.reload()
    verifier = reloadable.verifier
    assert verifier.feed.source.token == token
    assert verifier.copy.identity.key == derive_key(token)
    assert events(caplog, "reload.done") == [
        {"changed": ["VERIFIER_FEED_TOKEN"], "kept": []}
    ]
    assert token not in caplog.text


async def test_a_setting_that_needs_a_restart_is_named(
    reloadable: ReloadableVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(reloadable.settings, VerifierSettings)
    reloadable.settings = reloadable.settings.model_copy(update={"workers": 4})
    await reloadable.reload_with(STRICT)
    (kept,) = events(caplog, "reload.kept")
    assert kept["setting"] == "VERIFIER_WORKERS"
    assert "restart" in kept["reason"]
    assert events(caplog, "reload.done") == [
        {"changed": ["VERIFIER_POLICY_FILE"], "kept": ["VERIFIER_WORKERS"]}
    ]
    assert reloadable.files.settings.workers == 1


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (
            SettingsError("VERIFIER_FEED_TOKEN_FILE: is gone"),
            "VERIFIER_FEED_TOKEN_FILE",
        ),
        (SettingsError("no name"), "settings"),
        (RuntimeError("secret"), "settings"),
    ],
)
async def test_settings_that_cannot_be_read_keep_nothing_else_back(
    reloadable: ReloadableVerifier,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    name: str,
) -> None:
    reloadable.settings = error
    await reloadable.reload_with(STRICT)
    (kept,) = events(caplog, "reload.kept")
    assert kept["setting"] == name
    assert "secret" not in caplog.text
    assert reloadable.verifier.check(reloadable.verifier.issuer.mint()).status == 403


async def test_new_authorities_are_named(
    reloadable: ReloadableVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    reloadable.authorities_renewed = True
    await reloadable.reloader.reload()
    assert events(caplog, "reload.done") == [
        {"changed": ["VERIFIER_CA_FILE"], "kept": []}
    ]
    reloadable.authorities_renewed = False
    reloadable.files.authorities.error = "it is empty"
    await reloadable.reloader.reload()
    assert events(caplog, "reload.kept")[-1]["setting"] == "VERIFIER_CA_FILE"


# --- on_stale = "allow" --------------------------------------------------------------


async def test_the_issuer_hears_of_stale_answers_before_there_are_any(
    reloadable: ReloadableVerifier,
) -> None:
    """`confirmed` names followers that may use an old list: it must be known before."""
    verifier = reloadable.verifier
    said: list[bool] = []
    fetch = verifier.issuer.fetch

    async def listen(url: str, headers: Mapping[str, str], *rest: Any) -> Fetched:
        said.append(FOLLOWER_ON_STALE_HEADER in headers)
        return await fetch(url, headers, *rest)

    verifier.feed._fetch = listen

    async def sleep(seconds: float) -> None:
        assert "lax" not in verifier.gate.policies.policies
        await ReloadableVerifier.sleep(reloadable, seconds)
        await verifier.feed.step()

    reloadable.reloader._sleep = sleep
    assert not verifier.feed.source.allows_stale
    await reloadable.reload_with(STALE)
    assert said
    assert all(said)
    assert "lax" in verifier.gate.policies.policies
    await reloadable.reload_with(PLAIN)
    assert not verifier.feed.source.allows_stale


async def test_policies_with_stale_answers_wait_for_an_issuer_that_is_away(
    reloadable: ReloadableVerifier,
) -> None:
    verifier = reloadable.verifier
    await reloadable.reload_with(STALE)
    assert "plain" in verifier.gate.policies.policies
    assert "reload again" in reloadable.report.policy_error
    assert not verifier.feed.source.allows_stale
    assert 100 < reloadable.slept < 200


# --- calls at the same time ----------------------------------------------------------


async def test_calls_at_the_same_time_are_few_readings(
    reloadable: ReloadableVerifier,
) -> None:
    """The last call uses the files written before it."""
    calls = [asyncio.create_task(reloadable.reloader.reload()) for _ in range(50)]
    await asyncio.sleep(0)
    reloadable.policy_file.write_text(STRICT)
    await asyncio.gather(*calls, reloadable.reloader.reload())
    await reloadable.reloader.reload()
    assert reloadable.verifier.gate.policies.find("other")
    assert sum(reloadable.report.outcomes.values()) <= 3


async def test_a_fault_of_ours_ends_nothing(
    reloadable: ReloadableVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FetchError("a fault", "other", url="")

    monkeypatch.setattr(reloadable.files, "take", fail)
    await reloadable.reload_with(STRICT)
    assert reloadable.report.outcomes == {"kept": 1}
    monkeypatch.undo()
    await reloadable.reload_with(STRICT)
    assert reloadable.verifier.gate.policies.find("other")
