"""The last keys of another issuer, on disk, for a start without that issuer.

A file is an HMAC-SHA256 tag, then one JSON object: whose keys, the JWKS, and when it
was asked for. The key is derived from the feed token, so only a verifier of our issuer
can have written it. All workers write the same file, by a rename. Nothing is
acknowledged by what is in it, so a lost file costs the next start its keys and nothing
more. Keys of a file are as old as they are: they end when those of the process that
fetched them would.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson

from shared.claims import CLOCK_ALLOWANCE
from shared.log import event
from verifier.disk.copy_file import NEW_SUFFIX, Identity
from verifier.disk.copy_format import boot_digest

_LOG: Final = logging.getLogger(__name__)
_VERSION: Final = 1
_TAG_BYTES: Final = 32
#: A JWKS of the largest size, each byte escaped, and the rest.
MAX_FILE_BYTES: Final = 2 * 1_048_576
#: Seconds after which a file is of an issuer that is not configured any more: longer
#: than any `VERIFIER_KEYS_MAX_AGE`.
OLD_AFTER: Final = 32 * 86_400
_PREFIX: Final = "issuer-"
_SUFFIX: Final = ".keys"
#: A planted FIFO must not block us, and a planted link must not be followed.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class _UnusableFileError(Exception):
    """A file that does not count; the message has the reason."""


class KeysFile:
    """The file of one issuer; what the disk does never raises.

    Args:
        directory: our own directory of disk copies.
        owner: whose keys: the `iss`, and the configured address.
        identity: returns who seals it; the key follows the feed token.
        boottime: gives boot-time seconds.
        now: gives Unix seconds.
    """

    def __init__(
        self,
        directory: Path,
        owner: str,
        identity: Callable[[], Identity],
        boottime: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        digest = hashlib.sha256(owner.encode()).hexdigest()
        self.path = directory / f"{_PREFIX}{digest[:32]}{_SUFFIX}"
        self._owner = owner
        self._identity = identity
        self._boottime = boottime
        self._now = now
        self._jwks = b""
        self._is_failing = False

    def keys_refreshed(self, body: bytes | None, asked_at: float) -> None:
        """Store a JWKS and when it was asked for.

        Args:
            body: of the answer; None: the stored one is still right.
            asked_at: boot-time seconds.
        """
        self._jwks = self._jwks if body is None else body
        if not self._jwks:
            return
        identity = self._identity()
        content = orjson.dumps(
            {
                "version": _VERSION,
                "owner": self._owner,
                "boot": boot_digest(identity.boot).hex(),
                "asked_at": asked_at,
                "wall": self._now() - (self._boottime() - asked_at),
                "jwks": self._jwks.decode(),
            }
        )
        try:
            self._write(_seal(identity.key, content) + content)
        except OSError as error:
            if not self._is_failing:
                event(
                    _LOG,
                    logging.ERROR,
                    "copy.keys_not_written",
                    setting="VERIFIER_STATE_DIR",
                    path=self.path,
                    error=error.strerror or str(error),
                )
            self._is_failing = True
        else:
            self._is_failing = False

    def read(self) -> tuple[bytes, float] | None:
        """Return the JWKS, and the boot-time seconds at which it was asked for.

        Returns:
            None when there is no file that counts.
        """
        try:
            content = self._open(self._read())
        except FileNotFoundError:
            return None
        except (OSError, _UnusableFileError) as error:
            reason = getattr(error, "strerror", "") or str(error)
            event(
                _LOG,
                logging.WARNING,
                "copy.keys_not_read",
                path=self.path,
                error=reason,
            )
            return None
        self._jwks = content["jwks"].encode()
        return self._jwks, self._boottime() - max(0.0, self._age_of(content))

    def _open(self, data: bytes) -> dict[str, Any]:
        """Return the content of a sealed file.

        Raises:
            _UnusableFileError: it is not ours, or its age is not known.
        """
        identity, tag, content = self._identity(), data[:_TAG_BYTES], data[_TAG_BYTES:]
        # The key follows the feed token: a file of an earlier token does not count.
        if not hmac.compare_digest(tag, _seal(identity.key, content)):
            raise _UnusableFileError("it is damaged, or of another feed token")
        found: dict[str, Any] = orjson.loads(content)
        if (found["version"], found["owner"]) != (_VERSION, self._owner):
            raise _UnusableFileError("it is of another version or issuer")
        if self._age_of(found) < -CLOCK_ALLOWANCE:
            # The clock was ahead then, or is behind now: the true age is not known.
            raise _UnusableFileError("it was written in the future")
        return found

    def _age_of(self, found: dict[str, Any]) -> float:
        """Return the seconds since the keys were asked for.

        Boot-time seconds of another boot mean nothing in this one.
        """
        boot = self._identity().boot
        if boot and found["boot"] == boot_digest(boot).hex():
            return self._boottime() - float(found["asked_at"])
        return self._now() - float(found["wall"])

    def _read(self) -> bytes:
        descriptor = os.open(self.path, _READ)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise PermissionError(0, "it is not a file of ours")
            if status.st_size > MAX_FILE_BYTES:
                raise OSError(0, f"it is over {MAX_FILE_BYTES} bytes")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)

    def _write(self, data: bytes) -> None:
        descriptor, name = tempfile.mkstemp(
            suffix=NEW_SUFFIX, prefix=_PREFIX, dir=self.path.parent
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                # A worker that starts removes unfinished files that are not locked.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.write(data)
                file.flush()
                os.rename(name, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def remove_old_files(directory: Path, now: float) -> None:
    """Remove the files of issuers that were not followed for a long time.

    Args:
        directory: our own directory of disk copies.
        now: Unix seconds.
    """
    for path in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            if now - os.lstat(path).st_mtime > OLD_AFTER:
                path.unlink()


def _seal(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, b"gatehouse keys of another issuer\n" + content, "sha256")
