"""What `check` says of gateways that check tokens by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from shared.checking.findings import Finding, Findings, Level
from shared.configuration.settings import SettingsError
from shared.listening import reserving
from tests.support.fake_haproxy import FakeHaproxy
from verifier.checking.checks import list_checks
from verifier.checking.native import list_native_checks
from verifier.native.envoy.names import JWT, RECENT, SETTLED
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
DIRECTORY = "native.haproxy"


def look(
    tmp_path: Path, *, is_offline: bool = True, **settings: str | int
) -> list[Finding]:
    """Return the findings; unless offline, what runs elsewhere is asked."""
    return run_checks(make_settings(tmp_path, **settings), is_offline=is_offline)


def run_checks(made: VerifierSettings, *, is_offline: bool = True) -> list[Finding]:
    """Return the findings of these settings."""
    found = Findings()
    for check in list_native_checks(made, is_offline=is_offline):
        check.run(found)
    return list(found)


@contextlib.contextmanager
def plain_user() -> Iterator[None]:
    """Be a user without rights while the context is open."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)


def make_settings(tmp_path: Path, **settings: str | int) -> VerifierSettings:
    """Return settings with the policies of this file."""
    file = tmp_path / "policies.toml"
    file.write_text(POLICIES)
    return VerifierSettings(
        issuer_url="https://issuer.test",
        audience="api",
        feed_token="feed-token-of-32-characters-or-more",
        policy_file=str(file),
        **settings,
    )


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


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


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


def test_short_leeway_is_said_of_its_setting_and_of_no_policy(tmp_path: Path) -> None:
    settings: dict[str, str | int] = dict(WHOLE) | {"leeway": 1}
    (lack,) = lacks_of(tmp_path, **settings)
    assert (lack.concerns, lack.remedy) == (
        "VERIFIER_LEEWAY",
        "write VERIFIER_LEEWAY=2 or more",
    )
    said = [f for f in look(tmp_path, **settings) if f.check == "native.policies"]
    assert said
    assert not any("LEEWAY" in f.found for f in said)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("envoy_admin", WHOLE["envoy_bind"], "the socket of VERIFIER_ENVOY_BIND"),
        ("envoy_bind", "unix:/run/b.sock", "the socket of VERIFIER_BIND"),
        ("haproxy_dir", "/run/a b", "needs a path of letters, digits"),
    ],
)
def test_setting_that_is_there_and_cannot_be_used_is_named(
    tmp_path: Path, name: str, value: str, found: str
) -> None:
    changes = {name: value, "bind": "unix:/run/b.sock"}
    (lack,) = lacks_of(tmp_path, **dict(WHOLE) | changes)
    assert (lack.level, lack.concerns) == (Level.ERROR, f"VERIFIER_{name.upper()}")
    assert found in lack.found
    assert lack.remedy


@pytest.mark.parametrize("is_open", [False, True], ids=["no directory", "taken"])
def test_xds_socket_is_judged_as_the_start_judges_it(
    tmp_path: Path, folder: Path, is_open: bool
) -> None:
    path = folder / ("xds.sock" if is_open else "none/xds.sock")
    made = make_settings(
        tmp_path,
        envoy_bind=f"unix:{path}",
        bind=f"unix:{folder}/b.sock",
        admin_bind=f"unix:{folder}/a.sock",
    )
    (ports,) = (c for c in list_checks(made, is_offline=True) if c.name == "ports")
    found = Findings()
    with socket.socket(socket.AF_UNIX) as other:
        if is_open:
            other.bind(str(path))
            other.listen()
        ports.run(found)
        start = reserving("VERIFIER_ENVOY_BIND", made.envoy_bind)
        with pytest.raises(SettingsError) as refused, start:
            pass
    (said,) = (
        f
        for f in found
        if f.concerns == "VERIFIER_ENVOY_BIND" and f.check == "ports.bind"
    )
    assert said.level is Level.ERROR
    assert str(refused.value) == f"{said.concerns}: {said.found}; {said.remedy}"


def test_directory_that_cannot_be_used_is_told_from_one_that_is_missing(
    tmp_path: Path, folder: Path
) -> None:
    file = folder / "hostname"
    file.write_text("")
    for path, reason in (
        (file, "Not a directory"),
        (folder / "a/b", "not a directory"),
    ):
        (said,) = (
            f for f in look(tmp_path, haproxy_dir=str(path)) if f.check == DIRECTORY
        )
        assert said.level is Level.ERROR
        assert said.found.startswith(f"cannot write into {path}: ")
        assert said.found.endswith(reason)
        assert said.remedy == "its parent must exist, and the directory be ours"


def test_directory_of_another_user_is_found(tmp_path: Path, folder: Path) -> None:
    folder.chmod(0o555)
    for path in (folder, folder / "haproxy"):
        made = make_settings(tmp_path, haproxy_dir=str(path))
        with plain_user():
            found = run_checks(made)
        (said,) = (f for f in found if f.check == DIRECTORY)
        assert said.found == f"cannot write into {path}: Permission denied"


# --- HAProxy's master -----------------------------------------------------------------


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
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert f"-W and -S {path},mode,600,user,{user}, " in found.remedy


def test_socket_that_no_program_has_open_is_a_warning(
    tmp_path: Path, folder: Path
) -> None:
    path = folder / "master.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    (found,) = master_findings(tmp_path, path)
    assert found.level is Level.WARNING
    assert found.found == f"{path}: Connection refused"


@pytest.mark.parametrize(
    ("mark", "written", "level", "found"),
    [
        ("r.k", "r.k", Level.OK, "HAProxy runs with "),
        ("r.k", "other.k", Level.WARNING, "with other rules or keys than "),
        ("r.k", "", Level.WARNING, "with other rules or keys than "),
        ("", "r.k", Level.WARNING, "has no rules of ours"),
    ],
    ids=["ours", "another directory", "nothing written", "no rules"],
)
def test_haproxy_with_other_rules_than_the_directory_is_a_warning(
    tmp_path: Path, folder: Path, mark: str, written: str, level: Level, found: str
) -> None:
    async def story() -> None:
        haproxy = FakeHaproxy(folder / "master.sock", folder)
        haproxy.current.mark = mark
        if written:
            line = f"global\n    setenv GATEHOUSE_NATIVE {written}\n"
            (folder / "gatehouse.cfg").write_text(line)
        await haproxy.start()
        said = await asyncio.to_thread(
            look,
            tmp_path,
            is_offline=False,
            haproxy_master=f"unix:{haproxy.socket}",
            haproxy_dir=str(folder),
        )
        (rules,) = (f for f in said if found in f.found)
        assert (rules.level, rules.concerns) == (level, "VERIFIER_HAPROXY_DIR")
        assert (str(folder / "gatehouse.cfg") in rules.found + rules.remedy) is True
        await haproxy.stop()

    asyncio.run(story())


def test_worker_that_does_not_say_its_rules_is_a_warning_of_its_own(
    tmp_path: Path, folder: Path
) -> None:
    async def story() -> None:
        haproxy = FakeHaproxy(folder / "master.sock", folder)
        haproxy.current.loses = "show env"
        await haproxy.start()
        master, worker = await asyncio.to_thread(
            master_findings, tmp_path, haproxy.socket
        )
        assert master.level is Level.OK
        assert worker.level is Level.WARNING
        assert "does not say its rules" in worker.found
        await haproxy.stop()

    asyncio.run(story())


# --- Envoy ----------------------------------------------------------------------------


def envoy_findings(tmp_path: Path, path: Path, policies: str) -> list[Finding]:
    """Return what is said of the Envoy whose admin interface should be there."""
    found = look(
        tmp_path,
        is_offline=False,
        envoy_admin=f"unix:{path}",
        native_policies=policies,
    )
    return [f for f in found if f.check == "native.envoy"]


async def ask_envoy(
    tmp_path: Path, folder: Path, names: list[str], policies: str
) -> list[Finding]:
    """Return what is said of an Envoy that asks for these filters."""
    start = "extension_config_discovery.http_filter."
    stats = [{"name": f"{start}{n}.config_reload", "value": 0} for n in names]
    body = json.dumps({"stats": stats}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    path = folder / "admin.sock"
    async with await asyncio.start_unix_server(serve, path):
        return await asyncio.to_thread(envoy_findings, tmp_path, path, policies)


OF_DEFAULT = [f"{JWT}default", f"{RECENT}default", SETTLED]


def test_policy_that_envoy_asks_for_and_the_list_lacks_is_an_error(
    tmp_path: Path, folder: Path
) -> None:
    shown, lacking = asyncio.run(ask_envoy(tmp_path, folder, OF_DEFAULT, "plain"))
    assert shown.level is Level.OK
    assert (lacking.level, lacking.concerns, lacking.found) == (
        Level.ERROR,
        "VERIFIER_NATIVE_POLICIES",
        "lacks what Envoy asks: default",
    )
    assert "add it to the list" in lacking.remedy


def test_envoy_that_asks_for_policies_of_the_list_is_shown(
    tmp_path: Path, folder: Path
) -> None:
    (shown,) = asyncio.run(ask_envoy(tmp_path, folder, OF_DEFAULT, "plain,default"))
    assert shown.level is Level.OK


@pytest.mark.parametrize("left_out", OF_DEFAULT)
def test_envoy_that_lacks_one_filter_is_a_warning(
    tmp_path: Path, folder: Path, left_out: str
) -> None:
    names = [name for name in OF_DEFAULT if name != left_out]
    shown, lacking = asyncio.run(ask_envoy(tmp_path, folder, names, "default"))
    assert shown.level is Level.OK
    assert lacking.level is Level.WARNING
    assert lacking.found == f"Envoy does not ask for {left_out}"


def test_why_envoy_cannot_be_asked_is_said(tmp_path: Path, folder: Path) -> None:
    (missing,) = envoy_findings(tmp_path, folder / "none", "default")
    assert "(No such file or directory)" in missing.found
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "left"))
    (refused,) = envoy_findings(tmp_path, folder / "left", "default")
    assert "(Connection refused)" in refused.found
