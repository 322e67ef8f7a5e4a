"""What `check` says of gateways that check tokens by themselves."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import re
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from shared.checking.binds import is_running
from shared.checking.examination import Check
from shared.checking.findings import Findings
from shared.configuration.settings import SettingsError
from verifier.native.envoy.names import missing_names, policies_in
from verifier.native.gateways import UNIX, check_kind
from verifier.native.haproxy.directory import CONFIGURATION, MARK
from verifier.native.haproxy.master import MasterConnection, MasterError, Processes
from verifier.native.haproxy.sole_writer import SecondWriterError, check_sole_writer
from verifier.native.needs import NO_POLICY_REMEDY, find_lacks, wanted_kinds
from verifier.native.terms import MIN_LEEWAY, InexpressibleError, native_terms
from verifier.native.writer import WriteError
from verifier.reloading.policy_file import read_policies
from verifier.settings import VerifierSettings

_POLICIES: Final = "VERIFIER_NATIVE_POLICIES"
_ADMIN: Final = "VERIFIER_ENVOY_ADMIN"
_MASTER: Final = "VERIFIER_HAPROXY_MASTER"
_DIRECTORY: Final = "VERIFIER_HAPROXY_DIR"
_SETENV: Final = re.compile(rf"^\s*setenv {MARK} (\S+)$", re.MULTILINE)
#: Bytes of `gatehouse.cfg` that are read: its mark is at its beginning.
_BEGINNING: Final = 65_536
#: What an Envoy lacks whose listener is another one.
_TAKE_OVER: Final = "take the listener's filters over from deploy/gateways/envoy-native"


def list_native_checks(
    settings: VerifierSettings, *, is_offline: bool
) -> Iterator[Check]:
    """Yield what is checked where a gateway is to check tokens; nothing elsewhere.

    Args:
        settings: that can be used.
        is_offline: ask no other program.
    """
    kinds = wanted_kinds(settings)
    if not kinds:
        return
    yield Check("native", "native", partial(_check_needs, settings, kinds))
    yield Check("native", _POLICIES, partial(_check_policies, settings))
    if settings.haproxy_dir:
        yield Check("native", _DIRECTORY, partial(_check_directory, settings))
    if settings.haproxy_master and not is_offline:
        yield Check("native", _MASTER, partial(_check_master, settings))
    if settings.envoy_admin and not is_offline:
        yield Check("native", _ADMIN, partial(_check_envoy, settings))


def _check_needs(
    settings: VerifierSettings, kinds: tuple[str, ...], findings: Findings
) -> None:
    """Report all that `native` would refuse at its start, but policies."""
    # Of two kinds, both may lack the same.
    lacks = dict.fromkeys(lack for kind in kinds for lack in find_lacks(settings, kind))
    for concerns, found, remedy in lacks:
        findings.error("native.settings", concerns, found, remedy)
    if not lacks:
        shown = " and ".join(f"`native {kind}`" for kind in kinds)
        findings.ok("native.settings", "native", f"{shown} would take the settings")


def _check_policies(settings: VerifierSettings, findings: Findings) -> None:
    # What is wrong with the leeway is said of VERIFIER_LEEWAY, not of every policy.
    leeway = max(settings.leeway, MIN_LEEWAY)
    try:
        book = read_policies(settings.model_copy(update={"leeway": leeway}))
    except SettingsError:
        return  # reported by the check of policies
    for name in sorted({*settings.native_policies, *book.policies}):
        is_native = name in settings.native_policies
        policy = book.policies.get(name)
        if policy is None:
            findings.error(
                "native.policies",
                _POLICIES,
                f"policy {name}: there is none of that name",
                NO_POLICY_REMEDY,
            )
            continue
        try:
            terms = native_terms(policy)
            for kind in wanted_kinds(settings):
                check_kind(kind, {name: terms})
        except InexpressibleError as error:
            if is_native:
                findings.error(
                    "native.policies",
                    _POLICIES,
                    str(error),
                    "let its gateway ask the verifier (/verify/<dialect>), and take it "
                    "out of the list",
                )
            else:
                findings.ok("native.policies", _POLICIES, str(error))
        else:
            kind = "can be checked by gateways" if is_native else "could be native"
            findings.ok("native.policies", _POLICIES, f"policy {name}: {kind}")


def _check_directory(settings: VerifierSettings, findings: Findings) -> None:
    directory = Path(settings.haproxy_dir)
    try:
        check_sole_writer(directory)
        _check_access(directory)
    except SecondWriterError as error:
        found, _, remedy = str(error).partition("; ")
        if is_running("verifier", settings.admin_bind):
            found = f"a `native haproxy` writes into {directory}, and the program runs"
            findings.ok("native.haproxy", _DIRECTORY, found)
        else:
            findings.error("native.haproxy", _DIRECTORY, found, remedy)
    except OSError as error:
        findings.error(
            "native.haproxy",
            _DIRECTORY,
            f"cannot write into {directory}: {error.strerror or error}",
            "its parent must exist, and the directory be ours",
        )
    else:
        found = f"no other process writes into {directory}"
        findings.ok("native.haproxy", _DIRECTORY, found)


def _check_access(directory: Path) -> None:
    """Check that this user may make files in a directory, or make it.

    Raises:
        PermissionError: it may not.
    """
    place = directory if directory.exists() else directory.parent
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _check_master(settings: VerifierSettings, findings: Findings) -> None:
    path = settings.haproxy_master.removeprefix(UNIX)

    async def look() -> tuple[Processes, bool, set[str] | MasterError]:
        connection = await MasterConnection.open(path)
        try:
            processes = await connection.processes()
            has_failed_reload = connection.has_failed_reload
            marks = await _read_marks(connection, processes)
        finally:
            connection.close()
        return processes, has_failed_reload, marks

    try:
        processes, has_failed_reload, marks = asyncio.run(look())
    except MasterError as error:
        found = str(error)
        findings.warn(
            "native.haproxy",
            _MASTER,
            found if found.startswith(path) else f"{path}: {found}",
            f"start HAProxy with -W and -S {path},mode,600,user,{_user()}, the user of "
            "`native`; a `stats socket` is another one",
        )
        return
    count = len(processes.current) + len(processes.old)
    found = f"HAProxy's master {processes.master} answers; it has {count} worker"
    findings.ok("native.haproxy", _MASTER, found if count == 1 else f"{found}s")
    if has_failed_reload:
        findings.warn(
            "native.haproxy",
            _MASTER,
            "HAProxy's last reload failed: it goes on with the configuration of before, "
            "closed if that has other policies than the present ones",
            "see HAProxy's log, check the file with haproxy -c, and reload",
        )
    if isinstance(marks, MasterError):
        findings.warn(
            "native.haproxy",
            _MASTER,
            f"a worker of HAProxy does not say its rules: {marks}",
            "check again; if it stays so, look whether the worker is stopped",
        )
    elif settings.haproxy_dir:
        _compare_marks(Path(settings.haproxy_dir), marks, findings)


def _user() -> str:
    """Return the name of this user: `check` is run as that of the service."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "USER"


async def _read_marks(
    connection: MasterConnection, processes: Processes
) -> set[str] | MasterError:
    """Return the marks that the current workers were started with, "" for none.

    The error of a worker that does not answer is returned: the master did answer.
    """
    marks = set()
    for pid in processes.current:
        try:
            shown = await connection.ask(f"@!{pid} show env {MARK}")
        except MasterError as error:
            return error
        name, _, mark = shown.partition("=")
        marks.add(mark if name == MARK else "")
    return marks


def _compare_marks(directory: Path, marks: Collection[str], findings: Findings) -> None:
    """Warn when HAProxy was started with other rules than those in the directory."""
    path = directory / CONFIGURATION
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = _SETENV.search(file.read(_BEGINNING))
    except OSError:
        found = None  # of the directory itself, more was said before
    written = found[1] if found else ""
    if not any(marks):
        if marks:
            findings.warn(
                "native.haproxy",
                _DIRECTORY,
                "the running HAProxy has no rules of ours",
                f"start it with -f {path} before its own configuration",
            )
    elif set(marks) != {written}:
        findings.warn(
            "native.haproxy",
            _DIRECTORY,
            f"the running HAProxy was started with other rules or keys than {path} has",
            "reload HAProxy; if that does not help, name this file with its -f, or "
            "write the directory that it reads into VERIFIER_HAPROXY_DIR",
        )
    else:
        findings.ok("native.haproxy", _DIRECTORY, f"HAProxy runs with {path}")


def _check_envoy(settings: VerifierSettings, findings: Findings) -> None:
    from verifier.native.envoy.admin import EnvoyAdmin

    async def look() -> list[str]:
        path = settings.envoy_admin.removeprefix(UNIX)
        async with EnvoyAdmin(path) as admin:
            return sorted(await admin.read())

    try:
        filters = asyncio.run(look())
    except WriteError as error:
        findings.warn(
            "native.envoy",
            _ADMIN,
            str(error),
            "start Envoy with the config of deploy/gateways/envoy-native",
        )
        return
    if not filters:
        found = "this Envoy asks for none of our filters"
        findings.warn("native.envoy", _ADMIN, found, _TAKE_OVER)
        return
    found = f"Envoy has {len(filters)} filters of ours: {', '.join(filters)}"
    findings.ok("native.envoy", _ADMIN, found)
    if missing := missing_names(filters):
        found = f"Envoy does not ask for {', '.join(sorted(missing))}"
        findings.warn("native.envoy", _ADMIN, found, _TAKE_OVER)
    unknown = policies_in(filters) - set(settings.native_policies)
    if unknown:
        asked = ", ".join(sorted(unknown))
        findings.error(
            "native.envoy",
            _POLICIES,
            f"lacks what Envoy asks: {asked}",
            "add it to the list, or write a policy of the list behind the last dot of "
            "gatehouse.jwt. and gatehouse.recent. in Envoy's config",
        )
