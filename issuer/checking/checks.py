"""The checks of the issuer, in their order."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from issuer.checking.database import check_database
from issuer.checking.signing_keys import check_publish_ahead
from issuer.settings.database_url import is_sqlite, parse_postgres_url
from issuer.settings.issuer_settings import IssuerSettings
from shared.checking.binds import check_binds
from shared.checking.examination import Check
from shared.checking.files import (
    check_authorities,
    check_directory,
    check_expiry,
    check_secret_files,
)
from shared.checking.findings import Findings
from shared.checking.limits import check_descriptors

_DATABASE: Final = "ISSUER_DATABASE_URL"
_OTHERS: Final = stat.S_IRWXO


def list_checks(settings: IssuerSettings, *, is_offline: bool) -> Iterator[Check]:
    """Yield what is checked.

    Args:
        settings: that can be used.
        is_offline: ask no other program.
    """
    yield Check("files", "files", partial(_check_files, settings))
    yield Check(
        "keys", "ISSUER_KEY_PUBLISH_AHEAD", partial(check_publish_ahead, settings)
    )
    binds = {"ISSUER_BIND": settings.bind, "ISSUER_ADMIN_BIND": settings.admin_bind}
    yield Check(
        "ports", "ISSUER_BIND", partial(check_binds, binds, "ISSUER_ADMIN_BIND")
    )
    yield Check(
        "limits",
        "ISSUER_MAX_CONNECTIONS",
        partial(check_descriptors, "ISSUER_MAX_CONNECTIONS", settings.max_connections),
    )
    if is_sqlite(settings.database_url):
        if not _has_file(settings):
            yield Check("database", _DATABASE, partial(_report_no_file, settings))
            return
    elif is_offline:
        return

    def run(findings: Findings) -> None:
        asyncio.run(check_database(settings, findings))

    yield Check("database", _DATABASE, run)


def _check_files(settings: IssuerSettings, findings: Findings) -> None:
    check_secret_files(settings, findings)
    check_authorities("ISSUER_CA_FILE", settings.ca_file, findings)
    if not is_sqlite(settings.database_url):
        tls = parse_postgres_url(settings.database_url).tls
        for parameter in ("sslrootcert", "sslcert"):
            if tls.get(parameter, "system") != "system":
                concerns = f"{_DATABASE} {parameter}"
                check_expiry(concerns, tls[parameter], findings)
        return
    path = _file_of(settings)
    check_directory(_DATABASE, path.parent, findings)
    if path.exists():
        _check_file(path, findings)


def _check_file(path: Path, findings: Findings) -> None:
    mode = path.stat().st_mode
    if mode & _OTHERS:
        findings.error(
            "files.database",
            _DATABASE,
            f"{path} has mode {stat.S_IMODE(mode):04o}: every user can read it, with "
            "password hashes and sealed keys",
            f"chmod 600 {path}*",
        )
    elif not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        findings.error(
            "files.database",
            _DATABASE,
            f"user {os.geteuid()} may not write {path}",
            f"chown it to the user of the service, or run check as that user: {path}",
        )
    else:
        findings.ok("files.database", _DATABASE, f"{path} may be written")


def _file_of(settings: IssuerSettings) -> Path:
    return Path(make_url(settings.database_url).database or "")


def _has_file(settings: IssuerSettings) -> bool:
    try:
        return _file_of(settings).stat().st_size > 0
    except OSError:
        return False


def _report_no_file(settings: IssuerSettings, findings: Findings) -> None:
    findings.warn(
        "database.file",
        _DATABASE,
        f"there is no database at {_file_of(settings)}",
        "for a new installation run `python -m issuer migrate`; if there was one, put "
        "it back first",
    )
