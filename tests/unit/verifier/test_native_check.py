"""What `check` says of gateways that check tokens by themselves."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from shared.checking.findings import Finding, Findings, Level
from tests.support.fake_haproxy import FakeHaproxy
from verifier.checking.native import list_native_checks
from verifier.settings import VerifierSettings

POLICIES = """
[policies.default]
required_scopes = ["orders:read"]

[policies.by-path]
[[policies.by-path.rules]]
path = "/orders"

[policies.plain]
"""


#: All that both kinds need.
WHOLE: Mapping[str, str] = {
    "envoy_bind": "unix:/run/xds.sock",
    "envoy_admin": "unix:/run/admin.sock",
    "haproxy_master": "unix:/run/master.sock",
    "haproxy_dir": "/run",
}
SETTINGS = "native.settings"


def look(
    tmp_path: Path, *, is_offline: bool = True, **settings: str | int
) -> list[Finding]:
    """Return the findings; unless offline, what runs elsewhere is asked."""
    file = tmp_path / "policies.toml"
    file.write_text(POLICIES)
    made = VerifierSettings(
        issuer_url="https://issuer.test",
        audience="api",
        feed_token="feed-token-of-32-characters-or-more",
        policy_file=str(file),
        **settings,
    )
    found = Findings()
    for check in list_native_checks(made, is_offline=is_offline):
        check.run(found)
    return list(found)


def findings_of(tmp_path: Path, **settings: str) -> list[tuple[Level, str]]:
    """Return level and text of each finding but those of needed settings."""
    found = look(tmp_path, **settings)
    return [(f.level, f.found) for f in found if f.check != SETTINGS]


def lacks_of(tmp_path: Path, **settings: str | int) -> list[Finding]:
    """Return what is said of needed settings."""
    return [found for found in look(tmp_path, **settings) if found.check == SETTINGS]


def master_findings(tmp_path: Path, path: Path) -> list[Finding]:
    """Return what is said of the master that should listen there."""
    master = f"unix:{path}"
    found = look(tmp_path, is_offline=False, haproxy_master=master)
    return [f for f in found if f.check == "native.haproxy"]


@pytest.fixture(autouse=True)
def _no_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of this machine out."""
    monkeypatch.chdir(tmp_path)


def test_where_no_gateway_is_native_nothing_is_said(tmp_path: Path) -> None:
    assert findings_of(tmp_path) == []


def test_every_policy_is_named_and_one_that_cannot_be_native_is_refused(
    tmp_path: Path,
) -> None:
    found = findings_of(
        tmp_path, envoy_bind="unix:/run/x.sock", native_policies="default,by-path,gone"
    )
    assert [level for level, _ in found] == [
        Level.ERROR,
        Level.OK,
        Level.ERROR,
        Level.OK,
    ]
    texts = [text for _, text in found]
    assert texts[0].startswith("policy by-path: cannot be native: rules: ")
    assert texts[1] == "policy default: can be checked by gateways"
    assert texts[2] == "policy gone: there is none of that name"
    assert texts[3] == "policy plain: could be native"


def test_policy_that_asks_the_verifier_may_be_any(tmp_path: Path) -> None:
    found = findings_of(tmp_path, envoy_bind="unix:/run/x.sock")
    assert {level for level, _ in found} == {Level.OK}


# --- what `native` would refuse -------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
def test_setting_that_native_needs_is_named_whichever_other_is_there(
    tmp_path: Path, name: str
) -> None:
    lacks = lacks_of(tmp_path, **{n: v for n, v in WHOLE.items() if n != name})
    (lack,) = lacks
    assert (lack.level, lack.concerns) == (Level.ERROR, f"VERIFIER_{name.upper()}")
    kind = name.partition("_")[0]
    assert lack.found == f"`native {kind}` needs it"


def test_whole_settings_are_said_to_be_enough(tmp_path: Path) -> None:
    (said,) = lacks_of(tmp_path, **WHOLE, max_staleness=13)
    assert said.level is Level.OK
    assert said.found == "`native envoy` and `native haproxy` would take the settings"


def test_several_workers_and_a_short_staleness_are_each_found_once(
    tmp_path: Path,
) -> None:
    lacks = lacks_of(tmp_path, **WHOLE, workers=4, max_staleness=12)
    assert [(lack.level, lack.concerns) for lack in lacks] == [
        (Level.ERROR, "VERIFIER_MAX_STALENESS"),
        (Level.ERROR, "VERIFIER_WORKERS"),
    ]
    assert "at least 13 s, and it is 12" in lacks[0].found
    assert lacks[0].remedy == "write VERIFIER_MAX_STALENESS=13 or more"
    assert "needs 1, and it is 4" in lacks[1].found


def test_verifier_without_a_native_gateway_may_have_several_workers(
    tmp_path: Path,
) -> None:
    assert look(tmp_path, workers=4, max_staleness=11) == []


# --- HAProxy's master -----------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_master_that_answers_is_shown_with_its_workers(
    tmp_path: Path, folder: Path
) -> None:
    async def story() -> None:
        haproxy = FakeHaproxy(folder / "master.sock", folder)
        await haproxy.start()
        (found,) = await asyncio.to_thread(master_findings, tmp_path, haproxy.socket)
        assert found.level is Level.OK
        assert found.found == "HAProxy's master 100 answers; it has 1 worker"
        haproxy.reload()
        haproxy.has_fault = True
        haproxy.reload()
        workers, failed = await asyncio.to_thread(
            master_findings, tmp_path, haproxy.socket
        )
        assert workers.found.endswith("it has 2 workers")
        assert failed.level is Level.WARNING
        assert "last reload failed" in failed.found
        await haproxy.stop()

    asyncio.run(story())


def test_missing_master_is_a_warning_that_says_how_to_start_it(
    tmp_path: Path, folder: Path
) -> None:
    path = folder / "master.sock"
    (found,) = master_findings(tmp_path, path)
    assert (found.level, found.concerns) == (Level.WARNING, "VERIFIER_HAPROXY_MASTER")
    assert found.found == f"{path}: No such file or directory"
    assert f"-W and -S {path},mode,600" in found.remedy


def test_socket_that_no_program_has_open_is_a_warning(
    tmp_path: Path, folder: Path
) -> None:
    path = folder / "master.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    (found,) = master_findings(tmp_path, path)
    assert found.level is Level.WARNING
    assert found.found == f"{path}: Connection refused"
