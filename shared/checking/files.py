"""Checks of files and directories that settings name.

They judge by what this user may do, so `check` runs as the user of the service.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path
from typing import Final

from cryptography import x509

from shared.checking.findings import Findings
from shared.configuration.secret_files import FILE_SUFFIX
from shared.configuration.settings import ProgramSettings, name_of
from shared.outgoing.authorities import AuthoritiesError, read_authorities

_DAY: Final = 86_400
#: Days before the end of a certificate from which it is a warning.
_SOON: Final = 30
_MAX_BYTES: Final = 4 * 1_048_576
#: Bytes of a disk below which it is a warning, and below which it is an error.
_LITTLE_ROOM: Final = 256 * 1_048_576
_NO_ROOM: Final = 16 * 1_048_576
_TOO_OPEN: Final = stat.S_IROTH | stat.S_IWGRP


def check_secret_files(settings: ProgramSettings, findings: Findings) -> None:
    """Check who else may read or change the files that hold secrets."""
    for field, path in settings.secret_files.items():
        _check_private(f"{name_of(type(settings), field)}{FILE_SUFFIX}", path, findings)
    file = settings.env_file
    if file is None:
        return
    if file.path.exists():
        _check_private(str(file.path), file.path, findings)
    else:
        findings.ok(
            "files.settings", str(file.path), "is not there; the environment is read"
        )


def _check_private(concerns: str, path: Path, findings: Findings) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        reason = error.strerror or "it cannot be looked at"
        findings.error("files.secret", concerns, f"{path}: {reason}", "put it back")
        return
    shown = f"{path} has mode {stat.S_IMODE(mode):04o}"
    if mode & stat.S_IWOTH:
        findings.error(
            "files.secret",
            concerns,
            f"{shown}: every user of this machine can change it",
            f"chmod o-rw {path}, and look at what is in it",
        )
    elif mode & _TOO_OPEN:
        # Docker and Kubernetes mount secrets so, where no other user is.
        findings.warn(
            "files.secret",
            concerns,
            f"{shown}: other users can read it, or its group can change it",
            f"chmod g-w,o-r {path}, unless no other user is on this machine",
        )
    else:
        findings.ok("files.secret", concerns, shown)


def check_authorities(setting: str, path: str, findings: Findings) -> None:
    """Check the file of authorities for outgoing TLS, and when they expire.

    Args:
        setting: the setting that names it.
        path: a PEM file; empty: the system's authorities.
        findings: gets what was found.
    """
    if not path:
        return
    try:
        read_authorities(path)
    except AuthoritiesError as error:
        findings.error(
            "files.authorities",
            setting,
            str(error),
            "name a PEM file with the certificates of the authorities",
        )
        return
    check_expiry(setting, path, findings)


def check_expiry(concerns: str, path: str, findings: Findings) -> None:
    """Check when the certificates in a PEM file expire.

    One that has expired is an error if no other is left, because an authority may be
    replaced by another in the same file.
    """
    try:
        certificates = _read_certificates(path)
    except (OSError, ValueError):
        findings.error(
            "files.certificate",
            concerns,
            f"{path} holds a certificate that cannot be read",
            "write it anew, in PEM",
        )
        return
    now = int(time.time())
    ends = sorted(int(one.not_valid_after_utc.timestamp()) for one in certificates)
    left = [end for end in ends if end > now]
    if not left:
        findings.error(
            "files.certificate",
            concerns,
            f"{path}: expired {_days(now - ends[-1])} ago",
            "replace it by a certificate that is valid",
        )
    elif len(left) < len(ends) or left[0] - now < _SOON * _DAY:
        what = "has expired" if len(left) < len(ends) else f"in {_days(left[0] - now)}"
        findings.warn(
            "files.certificate",
            concerns,
            f"{path}: the first of {len(ends)} certificates expires: {what}",
            "replace it before it is needed",
        )
    else:
        findings.ok(
            "files.certificate",
            concerns,
            f"{path}: valid for {_days(left[0] - now)}",
        )


def _read_certificates(path: str) -> list[x509.Certificate]:
    with open(path, "rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError("is too large")
    return x509.load_pem_x509_certificates(content)


def _days(seconds: int) -> str:
    days = seconds // _DAY
    return f"{days} day{'s' * (days != 1)}"


def check_directory(concerns: str, directory: Path, findings: Findings) -> None:
    """Check that files can be made in a directory, or that it can be made itself.

    It makes nothing: access(2) is asked, which knows this user's rights.
    """
    nearest = directory
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        findings.error(
            "files.directory",
            concerns,
            f"{nearest} is not a directory",
            "name another directory",
        )
    elif not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
        findings.error(
            "files.directory",
            concerns,
            f"user {os.geteuid()} may not write in {nearest}",
            f"chown it to the user of the service, or run check as that user: {nearest}",
        )
    else:
        check_room(concerns, nearest, findings)


def check_room(concerns: str, directory: Path, findings: Findings) -> None:
    """Check that the disk of a directory has room."""
    try:
        free = shutil.disk_usage(directory).free
        nodes = os.statvfs(directory)
    except OSError as error:
        findings.warn(
            "files.room",
            concerns,
            f"{directory}: {error.strerror}",
            "find out how much room its disk has",
        )
        return
    shown = f"{directory} has {free // 1_048_576} MB free"
    remedy = "make room on this disk, or name a directory on another"
    if free < _NO_ROOM:
        findings.error("files.room", concerns, shown, remedy)
    elif free < _LITTLE_ROOM:
        findings.warn("files.room", concerns, shown, remedy)
    elif nodes.f_files and nodes.f_favail < 100:
        findings.error("files.room", concerns, f"{directory} has no inodes", remedy)
    else:
        findings.ok("files.room", concerns, shown)
