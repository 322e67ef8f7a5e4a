"""The checks of the verifier, in their order."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from shared.checking.binds import check_binds
from shared.checking.examination import Check
from shared.checking.files import check_authorities, check_room, check_secret_files
from shared.checking.findings import Findings
from shared.checking.limits import check_descriptors
from shared.checking.settings import add_settings_error
from shared.configuration.addresses import TcpAddress, parse_bind, unmap
from shared.configuration.settings import SettingsError
from shared.outgoing.authorities import Authorities, AuthoritiesError
from verifier.check.policy import KnownIssuer, PolicyBook
from verifier.checking.issuer import check_issuer
from verifier.checking.native import list_native_checks
from verifier.checking.other_issuers import ask_other_issuer
from verifier.disk.copy_file import SUFFIX
from verifier.disk.state_directory import (
    OWN_NAME,
    UnsafeDirectoryError,
    check_directory,
    check_writable,
)
from verifier.policies.warnings import find_warnings
from verifier.reloading.policy_file import read_policies
from verifier.settings import VerifierSettings

_POLICIES: Final = "VERIFIER_POLICY_FILE"
_ISSUERS: Final = "VERIFIER_ISSUERS_FILE"
_STATE: Final = "VERIFIER_STATE_DIR"
_PEERS: Final = "VERIFIER_TRUSTED_PEERS"
#: Addresses of one network above which it holds more than gateways.
_MANY: Final = 65_536
#: Seconds after which a disk copy says little about the revocations of now.
_OLD_COPY: Final = 86_400
#: Files of the directory that are looked at.
_MAX_COPIES: Final = 1_000


def list_checks(settings: VerifierSettings, *, is_offline: bool) -> Iterator[Check]:
    """Yield what is checked.

    Args:
        settings: that can be used.
        is_offline: ask no other program.
    """
    yield Check("files", "files", partial(_check_files, settings))
    yield Check("policies", _POLICIES, partial(_check_policies, settings))
    yield from list_native_checks(settings, is_offline=is_offline)
    yield Check("copies", _STATE, partial(_check_copies, settings))
    yield Check("peers", _PEERS, partial(_check_peers, settings))
    binds = {
        "VERIFIER_BIND": settings.bind,
        "VERIFIER_ADMIN_BIND": settings.admin_bind,
        "VERIFIER_GRPC_BIND": settings.grpc_bind,
        "VERIFIER_ENVOY_BIND": settings.envoy_bind,
    }
    used = {name: bind for name, bind in binds.items() if bind}
    yield Check(
        "ports", "VERIFIER_BIND", partial(check_binds, used, "VERIFIER_ADMIN_BIND")
    )
    yield Check(
        "limits",
        "VERIFIER_MAX_CONNECTIONS",
        partial(
            check_descriptors, "VERIFIER_MAX_CONNECTIONS", settings.max_connections
        ),
    )
    if not is_offline:

        def run(findings: Findings) -> None:
            asyncio.run(check_issuer(settings, findings))

        yield Check("issuer", "VERIFIER_ISSUER_URL", run)
        yield from _list_issuers(settings)


def _list_issuers(settings: VerifierSettings) -> Iterator[Check]:
    """Yield a check for each other issuer of the issuers file."""
    try:
        issuers = read_policies(settings).issuers
    except SettingsError:
        return  # reported by the check of policies
    for known in issuers:
        concerns = f"issuers.{known.terms.name}"
        yield Check("issuers", concerns, partial(_check_other_issuer, settings, known))


def _check_other_issuer(
    settings: VerifierSettings, known: KnownIssuer, findings: Findings
) -> None:
    try:
        authorities = Authorities("VERIFIER_CA_FILE", settings.ca_file)
    except AuthoritiesError:
        return  # reported by the check of files
    ask_other_issuer(known, authorities, findings, is_brief=True)


def _check_files(settings: VerifierSettings, findings: Findings) -> None:
    check_secret_files(settings, findings)
    check_authorities("VERIFIER_CA_FILE", settings.ca_file, findings)


def _check_policies(settings: VerifierSettings, findings: Findings) -> None:
    try:
        book = read_policies(settings)
    except SettingsError as error:
        add_settings_error(error, findings)
        return
    for name in book.policies:
        findings.ok("policies", _POLICIES, f"policy {name}: /verify/<dialect>/p/{name}")
    for known in book.issuers:
        findings.ok("policies", _ISSUERS, _describe_issuer(known, book))
    for warning in find_warnings(book.policies):
        findings.warn(
            "policies",
            _POLICIES,
            warning,
            "python -m verifier policy check --help says more",
        )


def _describe_issuer(known: KnownIssuer, book: PolicyBook) -> str:
    name = known.terms.name
    policies = [
        policy.name
        for policy in book.policies.values()
        if any(terms.name == name for terms in policy.token.issuers)
    ]
    accepted = f"accepted by {', '.join(policies)}" if policies else "in no policy"
    return f"issuer {name}: {known.terms.issuer}, {accepted}"


def _check_copies(settings: VerifierSettings, findings: Findings) -> None:
    """Check the directory of disk copies, and how old the newest copy is."""
    if not settings.state_dir:
        findings.warn(
            "copies.directory",
            _STATE,
            "is not set: a start needs the issuer",
            "name a directory on a local disk",
        )
        return
    state_dir = Path(settings.state_dir)
    remedy = "name a directory in which the user of the service may write"
    try:
        check_directory(state_dir)
        check_writable(state_dir)
    except UnsafeDirectoryError as error:
        fault, _, found_remedy = str(error).partition("; ")
        findings.error("copies.directory", _STATE, fault, found_remedy or remedy)
        return
    except OSError as error:
        # A system error repeats the path; use its text only.
        what = f"{state_dir}: {error.strerror}" if error.strerror else str(error)
        findings.error("copies.directory", _STATE, what, remedy)
        return
    nearest = state_dir
    while not nearest.exists():
        nearest = nearest.parent
    check_room(_STATE, nearest, findings)
    _check_age(state_dir / OWN_NAME, findings)


def _check_age(own: Path, findings: Findings) -> None:
    newest = 0.0
    try:
        with os.scandir(own) as entries:
            for entry, _ in zip(entries, range(_MAX_COPIES), strict=False):
                if entry.name.endswith(SUFFIX):
                    newest = max(newest, entry.stat(follow_symlinks=False).st_mtime)
    except OSError:
        newest = 0.0
    age = int(time.time() - newest)
    if not newest:
        findings.ok(
            "copies.age", _STATE, "there is no copy yet; the first start makes one"
        )
    elif age > _OLD_COPY:
        findings.warn(
            "copies.age",
            _STATE,
            f"the newest copy was written {age} s ago",
            "see that a verifier runs and reaches its issuer",
        )
    else:
        findings.ok("copies.age", _STATE, f"the newest copy was written {age} s ago")


def _check_peers(settings: VerifierSettings, findings: Findings) -> None:
    """Check that the gateways can ask, and that not half the network can."""
    networks = [ip_network(peer) for peer in settings.trusted_peers]
    for network in networks:
        if not network.is_loopback and network.num_addresses > _MANY:
            findings.warn(
                "peers.wide",
                _PEERS,
                f"{network} has {network.num_addresses} addresses, each trusted as a "
                "gateway",
                "name the gateways' own addresses",
            )
    binds = [parse_bind(bind) for bind in (settings.bind, settings.grpc_bind) if bind]
    is_only_local = all(network.is_loopback for network in networks)
    is_open = any(
        isinstance(bind, TcpAddress) and not _is_loopback(bind.host) for bind in binds
    )
    if is_open and is_only_local:
        findings.warn(
            "peers.trusted",
            _PEERS,
            "the port is open to other machines, and none of them is trusted",
            f"name the gateways in {_PEERS}, or listen on 127.0.0.1 or a unix socket",
        )
    else:
        findings.ok(
            "peers.trusted", _PEERS, ", ".join(settings.trusted_peers) or "none"
        )


def _is_loopback(host: str) -> bool:
    try:
        return unmap(ip_address(host.partition("%")[0])).is_loopback
    except ValueError:
        return host.lower() == "localhost"
