"""What `check` says of gateways that check tokens by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from shared.checking.binds import is_running
from shared.checking.examination import Check
from shared.checking.findings import Findings
from shared.configuration.settings import SettingsError
from verifier.native.gateways import UNIX, check_kind
from verifier.native.haproxy.master import MasterConnection, MasterError, Processes
from verifier.native.haproxy.sole_writer import SecondWriterError, check_sole_writer
from verifier.native.needs import find_lacks, wanted_kinds
from verifier.native.terms import InexpressibleError, native_terms
from verifier.native.writer import WriteError
from verifier.reloading.policy_file import read_policies
from verifier.settings import VerifierSettings

_POLICIES: Final = "VERIFIER_NATIVE_POLICIES"
_ADMIN: Final = "VERIFIER_ENVOY_ADMIN"
_MASTER: Final = "VERIFIER_HAPROXY_MASTER"
_DIRECTORY: Final = "VERIFIER_HAPROXY_DIR"


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
    try:
        book = read_policies(settings)
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
                "take it out of the list, or write it",
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
    except SecondWriterError as error:
        found, _, remedy = str(error).partition("; ")
        if is_running("verifier", settings.admin_bind):
            found = f"a `native haproxy` writes into {directory}, and the program runs"
            findings.ok("native.haproxy", _DIRECTORY, found)
        else:
            findings.error("native.haproxy", _DIRECTORY, found, remedy)
    except OSError as error:
        findings.error(
            "native.haproxy", _DIRECTORY, str(error), "name a directory of our own"
        )
    else:
        found = f"no other process writes into {directory}"
        findings.ok("native.haproxy", _DIRECTORY, found)


def _check_master(settings: VerifierSettings, findings: Findings) -> None:
    path = settings.haproxy_master.removeprefix(UNIX)

    async def look() -> tuple[Processes, bool]:
        connection = await MasterConnection.open(path)
        try:
            processes = await connection.processes()
        finally:
            connection.close()
        return processes, connection.has_failed_reload

    try:
        processes, has_failed_reload = asyncio.run(look())
    except MasterError as error:
        found = str(error)
        findings.warn(
            "native.haproxy",
            _MASTER,
            found if found.startswith(path) else f"{path}: {found}",
            f"start HAProxy with -W and -S {path},mode,600, and let this user open that "
            "socket (deploy/gateways/haproxy-native); a `stats socket` is another one",
        )
        return
    count = len(processes.current) + len(processes.old)
    found = f"HAProxy's master {processes.master} answers; it has {count} worker"
    findings.ok("native.haproxy", _MASTER, found if count == 1 else f"{found}s")
    if has_failed_reload:
        findings.warn(
            "native.haproxy",
            _MASTER,
            "HAProxy's last reload failed: it goes on with the configuration of before",
            "see HAProxy's log, check the file with haproxy -c, and reload",
        )


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
    if filters:
        found = f"Envoy has {len(filters)} filters of ours: {', '.join(filters)}"
        findings.ok("native.envoy", _ADMIN, found)
    else:
        findings.warn(
            "native.envoy",
            _ADMIN,
            "this Envoy asks for none of our filters",
            "take the listener's filters over from deploy/gateways/envoy-native",
        )
