"""The authorities that TLS is checked against; they are read again when they change.

cert-manager or an operator may replace the file while the programs run. If the new file
is bad, the last good one stays in force (R59, R65).
"""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import stat
from collections.abc import Iterator
from typing import Final

from shared.log import event

_LOG: Final = logging.getLogger(__name__)
#: A bundle of every public authority is 0.3 MB.
MAX_FILE_BYTES: Final = 4 * 1_048_576
_BEGIN: Final = b"-----BEGIN "
_CERTIFICATES: Final = tuple(
    _BEGIN + kind + b"-----"
    for kind in (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE")
)
#: The first bytes of a DER file, the binary form: a long ASN.1 SEQUENCE.
_DER: Final = b"\x30\x82"


class AuthoritiesError(Exception):
    """A file of authorities cannot be used; the message does not show its content."""


class Authorities:
    """The authorities for outgoing TLS connections.

    Args:
        setting: the setting that names the file, for logs.
        path: a PEM file; empty: the system's authorities.

    Attributes:
        context: for connections from now on.
        error: why the file is not the one in force; empty when it is.

    Raises:
        AuthoritiesError: when the file cannot be used.
    """

    def __init__(self, setting: str, path: str) -> None:
        self._setting = setting
        self._path = path
        self._seen = self._look()
        self.error = ""
        self.context = read_authorities(path)

    def renew(self) -> bool:
        """Read the authorities again if they changed; return whether `context` is new.

        It reads files, so do not call it on an event loop. A file that became bad is
        logged once.
        """
        found = self._look()
        if found == self._seen:
            return False
        self._seen = found
        try:
            self.context = read_authorities(self._path)
        except AuthoritiesError as error:
            self.error = str(error)
            event(
                _LOG,
                logging.ERROR,
                "authorities.refused",
                setting=self._setting,
                path=self._path,
                error=f"{error}; the last good ones stay in force",
            )
            return False
        self.error = ""
        event(
            _LOG,
            logging.INFO,
            "authorities.changed",
            setting=self._setting,
            path=self._path,
            certificates=self.context.cert_store_stats()["x509"],
        )
        return True

    def _look(self) -> bytes:
        """Return a digest that differs when the authorities do."""
        digest = hashlib.sha256()
        if self._path:
            try:
                digest.update(_read(self._path))
            except AuthoritiesError as error:
                digest.update(str(error).encode())
            return digest.digest()
        for path in _system_paths():
            digest.update(f"{path} {_stamp(path)}\n".encode())
        return digest.digest()


def read_authorities(path: str) -> ssl.SSLContext:
    """Return a client's TLS context that trusts these authorities and no others.

    Args:
        path: a PEM file; empty: the system's authorities.

    Raises:
        AuthoritiesError: when the file is missing, unreadable, empty, not PEM, or holds
            no certificate.
    """
    if not path:
        return ssl.create_default_context()
    content = _read(path)
    if not content.strip():
        raise AuthoritiesError(f"{path} is empty")
    if content.startswith(_DER):
        raise AuthoritiesError(
            f"{path} is not PEM but DER; convert it: openssl x509 -inform der"
        )
    if _BEGIN not in content:
        raise AuthoritiesError(
            f"{path} is not PEM: no line -----BEGIN CERTIFICATE-----"
        )
    if not any(line in content for line in _CERTIFICATES):
        raise AuthoritiesError(f"{path} holds no certificate")
    try:
        context = ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError):
        raise AuthoritiesError(f"{path} holds a certificate that is damaged") from None
    return context


def _read(path: str) -> bytes:
    try:
        # A FIFO must not block the open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise AuthoritiesError(f"{path} is not a regular file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise AuthoritiesError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise AuthoritiesError(f"{path} is over {MAX_FILE_BYTES} bytes")
    return content


def _system_paths() -> Iterator[str]:
    """Yield the files and directories of the system's authorities, as OpenSSL has
    them.
    """
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, paths.capath):
        if path:
            yield path


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
