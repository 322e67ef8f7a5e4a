"""Keys and revocations on disk, written before they are acknowledged.

A verifier that sends `after=N` promises to have every entry up to N, also after it was
killed and started again (docs/revocation.md). So entries are written before the
position moves. If a write fails, the copy is destroyed before anything more is
acknowledged: a copy that is behind would let the next process answer 200 for a token
confirmed as revoked.

There is no fsync. A completed `write(2)` outlives this process, however it ends. It may
be lost when the kernel crashes, but then the boot is another one: the copy's age does
not count, and its position is only what its records show.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

from shared.log import event
from verifier.disk.copy_file import CopyFile, Identity
from verifier.disk.copy_format import NEVER, RecordKind, boot_digest

_LOG: Final = logging.getLogger(__name__)
#: Rows in one record at most; a record is encoded, sealed and read as a whole.
ROWS_AT_ONCE: Final = 5_000
#: Bytes by which a copy may exceed twice the size of its live entries.
COMPACT_SLACK: Final = 16 * 1_048_576
#: Estimated bytes of a row before the first one is written.
_ROW_BYTES: Final = 100

CopyState = Literal["off", "kept", "lost"]
Rows = Sequence[Sequence[Any]]


class CopyError(Exception):
    """A copy that is behind could not be destroyed, and still counts as fresh."""


class CopyWriter(Protocol):
    """Stores entries of the feed and the JWKS."""

    def write_entries(self, entries: Rows) -> None:
        """Store entries, before they come into force."""

    def reached(self, epoch: str, position: int, asked_at: float | None) -> None:
        """Store a position, before it is acknowledged.

        Raises:
            CopyError: the position must not be acknowledged.
        """

    def keys_refreshed(self, body: bytes | None, asked_at: float) -> None:
        """Store a JWKS; None: the stored one is still right."""


class NoCopy:
    """A `CopyWriter` that stores nothing."""

    def write_entries(self, entries: Rows) -> None:
        """Implement `CopyWriter`."""

    def reached(self, epoch: str, position: int, asked_at: float | None) -> None:
        """Implement `CopyWriter`."""

    def keys_refreshed(self, body: bytes | None, asked_at: float) -> None:
        """Implement `CopyWriter`."""


class DiskCopy:
    """Keeps this worker's copy; continues without one when the disk fails.

    Args:
        identity: of this process and its issuer.
        max_staleness: seconds for which a complete answer counts.
        boottime: gives boot-time seconds.
        now: gives Unix seconds.
        has_gateways: this process writes into gateways that check tokens by themselves.

    Attributes:
        state: `off` without a directory, `kept`, or `lost` since the disk failed.
        error: why it was lost; empty otherwise.
        file: None when there is no copy.
    """

    def __init__(
        self,
        identity: Identity,
        max_staleness: float,
        boottime: Callable[[], float],
        now: Callable[[], float],
        *,
        has_gateways: bool = False,
    ) -> None:
        self.identity = identity
        self.state: CopyState = "off"
        self.error = ""
        self.file: CopyFile | None = None
        self._max_staleness = max_staleness
        self._boottime = boottime
        self._now = now
        self._has_gateways = has_gateways
        self._at: tuple[str, int] | None = None
        self._jwks = b""
        self._writer: dict[str, Any] = {}
        self._dangerous_until = NEVER
        self._least_size = 0
        self._row_bytes = self._rows = 0
        self._is_old_key = False

    @property
    def size(self) -> int:
        """Bytes of the file; 0 without one."""
        return 0 if self.file is None else self.file.length

    def rekey(self, key: bytes) -> None:
        """Seal the copy with another key; the next compaction rewrites it."""
        self.identity = self.identity._replace(key=key)
        self._is_old_key = True

    def adopt(
        self,
        file: CopyFile,
        *,
        at: tuple[str, int] | None = None,
        jwks: bytes = b"",
    ) -> None:
        """Use this file as the copy; a failed write destroys it from now on.

        Args:
            file: new, or taken over.
            at: epoch and position in the file.
            jwks: the body of the JWKS in the file.
        """
        self.file, self._at, self._jwks, self.state = file, at, jwks, "kept"

    def begin(self, replaces: Sequence[str], *, has_list: bool) -> None:
        """Become the writer of the adopted file.

        A writer with gateways leaves out who it is. They let requests pass until their
        window is over, also when it has ended, so its lease must run out by itself, and
        so must those its windows may rest on. A successor ends the leases of those
        that it finds named here, whatever kind and version of program it is.

        Args:
            replaces: ids of the processes it was taken over from.
            has_list: the entries in the file are a whole list, of any age.
        """
        self._writer = {
            "follower": "" if self._has_gateways else self.identity.follower,
            "replaces": [] if self._has_gateways else list(replaces),
            "has_list": has_list,
        }
        self._guarded(self._begin)

    def _begin(self, file: CopyFile) -> None:
        file.append(RecordKind.WRITER, self._writer)
        boot = boot_digest(self.identity.boot)
        if file.mark.boot == boot:
            # Our first request ends the lease of the one before us. From then on the
            # issuer waits by our bound, for our successor as well.
            until = file.mark.asked_at + self._max_staleness
            file.set_mark(fresh_until=min(file.mark.fresh_until, until))
        else:
            # Times by the clock of another boot mean nothing in this one.
            file.set_mark(
                boot=boot, asked_at=NEVER, fresh_until=NEVER, keys_asked_at=NEVER
            )

    def write_entries(self, entries: Rows) -> None:
        """Append entries, each a row as in the feed."""

        def write(file: CopyFile) -> None:
            before = file.length
            for start in range(0, len(entries), ROWS_AT_ONCE):
                file.append(
                    RecordKind.ENTRIES, list(entries[start : start + ROWS_AT_ONCE])
                )
            self._row_bytes += file.length - before
            self._rows += len(entries)

        self._guarded(write)

    def reached(self, epoch: str, position: int, asked_at: float | None) -> None:
        """Append the position, and set the age if the answer was complete.

        Args:
            epoch: the epoch of `position`.
            position: everything up to it has been written.
            asked_at: boot-time seconds at which a complete answer was asked for; None
                when the answer was not complete.

        Raises:
            CopyError: the position must not be acknowledged. The copy is behind, cannot
                be changed or removed on its disk, and still counts as fresh.
        """

        def write(file: CopyFile) -> None:
            if (epoch, position) != self._at:
                file.append(RecordKind.POSITION, {"epoch": epoch, "position": position})
                self._at = (epoch, position)
            if asked_at is None:
                file.set_mark()
                return
            file.set_mark(
                asked_at=max(asked_at, file.mark.asked_at),
                fresh_until=max(asked_at + self._max_staleness, file.mark.fresh_until),
            )

        self._guarded(write)
        if self._boottime() < self._dangerous_until:
            raise CopyError(
                f"a disk copy is behind and cannot be removed: {self.error}"
            )

    def keys_refreshed(self, body: bytes | None, asked_at: float) -> None:
        """Append the JWKS if it changed, and set when it was asked for."""

        def write(file: CopyFile) -> None:
            if body is not None and body != self._jwks:
                file.append(RecordKind.KEYS, {"jwks": body.decode()})
                self._jwks = body
            wall = self._now() - (self._boottime() - asked_at)
            file.set_mark(keys_asked_at=asked_at, keys_wall=wall)

        self._guarded(write)

    def is_bloated(self, live_entries: int) -> bool:
        """Return whether to rewrite the file: most of it has expired, or its key is
        old.

        Args:
            live_entries: entries in the index.
        """
        if self._is_old_key:
            return True
        row = self._row_bytes / self._rows if self._rows else _ROW_BYTES
        lives = max(int(live_entries * row), self._least_size)
        return self.size > 2 * lives + COMPACT_SLACK

    def move_to(self, new: CopyFile) -> None:
        """Continue in `new`, which has all live entries of the present file.

        Raises:
            OSError: when a write fails; the present file stays.
        """
        old = self.file
        if old is None:
            raise OSError("the copy was lost meanwhile")
        new.append(RecordKind.WRITER, self._writer)
        if self._at is not None:
            epoch, position = self._at
            new.append(RecordKind.POSITION, {"epoch": epoch, "position": position})
        if self._jwks:
            new.append(RecordKind.KEYS, {"jwks": self._jwks.decode()})
        times = old.mark._asdict()
        del times["length"], times["tag"]
        new.set_mark(**times)
        new.publish()
        self.file, self._least_size = new, new.length
        self._is_old_key = new.key != self.identity.key
        self._let_go(old, is_harmless=old.invalidate())

    def _guarded(self, work: Callable[[CopyFile], None]) -> None:
        if self.file is None:
            return
        try:
            work(self.file)
        except OSError as error:
            self.lose(error)

    def lose(self, error: Exception) -> None:
        """Destroy the copy, log that, and continue without one."""
        self.state, self.error = "lost", str(error)
        file, self.file = self.file, None
        is_gone = True
        if file is not None:
            is_gone = file.destroy()
            self._let_go(file, is_harmless=is_gone)
        event(
            _LOG,
            logging.ERROR,
            "copy.lost",
            setting="VERIFIER_STATE_DIR",
            error=str(error),
            is_removed=is_gone,
        )

    def _let_go(self, file: CopyFile, *, is_harmless: bool) -> None:
        """Close a file that is not ours any more; keep its lock while it could
        count.
        """
        if is_harmless:
            file.close()
        elif file.mark.boot == boot_digest(self.identity.boot):
            # Its lock stays held, so that no process takes it over while this one
            # lives.
            until = max(self._dangerous_until, file.mark.fresh_until)
            self._dangerous_until = until

    def void_age(self) -> bool:
        """Void the age, and close the file; return whether the age is void for certain.

        Entries and keys stay for the next process, which answers after the issuer has.
        """
        self._guarded(lambda file: file.set_mark(asked_at=NEVER, fresh_until=NEVER))
        self.close()
        return self._boottime() >= self._dangerous_until

    def close(self) -> None:
        """Close the file; the next process takes it over."""
        if self.file is not None:
            self.file.close()
            self.file = None
