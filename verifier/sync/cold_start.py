"""A start from the disk copies, before the issuer has answered.

The entries of every readable copy come into force. The age counts only if this process
has taken the copy over whole, where its writer left it and within the same boot
(docs/revocation.md, "Why that is enough"). Keys count for `keys_max_age`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import orjson

from shared.claims import CLOCK_ALLOWANCE
from shared.feed import MAX_REPLACED_FOLLOWERS, EntryKind, FeedEntry
from shared.jose.verification_keys import JwksError
from shared.log import event
from verifier.check.trust import Trust, parse_jwks
from verifier.disk.compaction import living_rows
from verifier.disk.copy_file import CopyFile, Identity
from verifier.disk.copy_format import (
    NEVER,
    CopyDamagedError,
    Mark,
    Record,
    RecordKind,
    RecordReader,
    boot_digest,
    read_mark,
)
from verifier.disk.disk_copy import DiskCopy
from verifier.disk.state_directory import FoundCopy, find_copies, open_directory
from verifier.sync.feed import FeedFollower

_LOG: Final = logging.getLogger(__name__)
_KINDS: Final = {kind.value: kind for kind in EntryKind}


class AgeLimits(NamedTuple):
    """How old revocations and keys may be, and the clocks.

    Attributes:
        max_staleness: of the revocations, seconds.
        keys_max_age: of the keys, seconds.
        boottime: gives boot-time seconds.
        now: gives Unix seconds.
    """

    max_staleness: float
    keys_max_age: float
    boottime: Callable[[], float]
    now: Callable[[], float]


@dataclass
class _Content:
    """The content of one copy.

    Attributes:
        found: the file.
        damage: why it is not whole; empty when it is.
        mark: None when it is not whole, or when a living writer was changing it.
        follower: the id of its last writer; empty when its lease outlives it, because
            it wrote into gateways (`DiskCopy.begin`).
        replaces: the ids of the processes that writer had replaced.
        at: epoch and position reached; None before the first.
        has_list: its entries are a whole list, of any age.
        jwks: the last keys.
        rows: the number of its entries.
        has_certain_end: its writer has certainly ended: same file, same boot, free
            lock.
        is_gone: the file was removed after its entries were copied to ours.
    """

    found: FoundCopy
    reader: RecordReader
    damage: str = ""
    mark: Mark | None = None
    follower: str = ""
    replaces: list[str] = field(default_factory=list)
    at: tuple[str, int] | None = None
    has_list: bool = False
    jwks: bytes = b""
    rows: int = 0
    has_certain_end: bool = False
    is_gone: bool = False


class ColdStart:
    """Puts the content of the disk copies in force, once, at the start.

    Args:
        state_dir: the configured directory; the copies are in our own one within it.
        copy: our own copy, not begun yet.
        workers: the number of processes that share the copies of ended processes.
        limits: how old revocations and keys may be.
    """

    def __init__(
        self, state_dir: Path, copy: DiskCopy, workers: int, limits: AgeLimits
    ) -> None:
        self._state_dir = self._directory = state_dir
        self._copy = copy
        self._identity: Identity = copy.identity
        self._workers = workers
        self._limits = limits

    async def run(self, trust: Trust, feed: FeedFollower) -> None:
        """Read the copies, take over our share of them, and begin our own.

        When the disk fails, the start continues without a copy and logs that.
        """
        try:
            self._directory = open_directory(self._state_dir)
            found = await find_copies(self._directory, self._identity, self._workers)
        except OSError as error:
            self._copy.lose(error)
            return
        contents = [await self._read(copy, trust) for copy in found]
        base = self._choose_base(contents)
        try:
            await self._begin(base, contents)
        except (OSError, CopyDamagedError) as error:
            self._copy.lose(error)
        for content in contents:
            # A file of ours that could not be removed stays locked until this process
            # ends.
            if content is not base and (content.is_gone or not content.found.is_ours):
                os.close(content.found.descriptor)
        self._bring_keys_in_force(contents, trust)
        # A position is written after the first whole list. Without a position this may
        # be half a list, which `on_stale = "allow"` must not take for an old one.
        if any(content.has_list for content in contents):
            trust.renew(NEVER)
        self._bring_age_in_force(base, trust, feed)
        if base is not None and base.at is not None:
            feed.resume(*base.at)
        feed.replaces = _ended(base, contents)
        self._tell(base, contents, trust)

    async def _read(self, found: FoundCopy, trust: Trust) -> _Content:
        """Put the entries of one copy in force, and return its other content."""
        reader = RecordReader(found.descriptor, self._identity.key)
        content = _Content(found, reader)
        end = os.fstat(found.descriptor).st_size
        mark, damage, tag_at_mark = None, "", b""
        try:
            mark = read_mark(found.descriptor, self._identity.key)
        except CopyDamagedError as error:
            damage = str(error)
        try:
            for record in reader.records(end):
                self._absorb(record, content, trust)
                if mark is not None and reader.offset == mark.length:
                    tag_at_mark = reader.tag
                await asyncio.sleep(0)
        except CopyDamagedError as error:
            damage = damage or str(error)
        # When the file was cut off after a record, the chain is whole, but acknowledged
        # records are missing. The mark holds the acknowledged length.
        if mark is not None and tag_at_mark != mark.tag:
            damage = damage or "the end does not fit the mark"
        self._judge(content, mark, damage)
        return content

    def _judge(self, content: _Content, mark: Mark | None, damage: str) -> None:
        found = content.found
        if not found.is_ours:
            # A living writer may be in the middle of a write: that is no damage.
            content.mark = mark
        elif damage:
            content.damage = damage
            event(_LOG, logging.ERROR, "copy.damaged", path=found.path, error=damage)
        elif mark is not None:
            content.mark = mark
            content.has_certain_end = found.is_original and self._is_of_this_boot(mark)

    def _absorb(self, record: Record, content: _Content, trust: Trust) -> None:
        if record.kind is RecordKind.ENTRIES:
            rows = living_rows(record.payload, int(self._limits.now()))
            content.rows += len(rows)
            trust.enforce(map(_entry, rows))
            return
        said: dict[str, Any] = orjson.loads(record.payload)
        if record.kind is RecordKind.WRITER:
            content.follower, content.replaces = said["follower"], said["replaces"]
            content.has_list |= said.get("has_list", False)
        elif record.kind is RecordKind.POSITION:
            content.at = (said["epoch"], said["position"])
            content.has_list = True
        elif record.kind is RecordKind.KEYS:
            content.jwks = said["jwks"].encode()

    def _choose_base(self, contents: list[_Content]) -> _Content | None:
        """Return the copy to continue: whole, ours, in its place, and the freshest."""
        usable = [
            content
            for content in contents
            if content.found.is_ours
            and content.found.is_original
            and content.mark is not None
        ]
        return max(usable, key=self._freshness, default=None)

    def _freshness(self, content: _Content) -> tuple[bool, float]:
        mark = content.mark
        if mark is None or not self._is_of_this_boot(mark):
            return (False, NEVER)
        return (True, mark.fresh_until)

    def _is_of_this_boot(self, mark: Mark) -> bool:
        boot = self._identity.boot
        return bool(boot) and mark.boot == boot_digest(boot)

    async def _begin(self, base: _Content | None, contents: list[_Content]) -> None:
        """Begin our own copy, and remove those of ours that it replaces.

        The order matters. Entries are in our file before their old file is removed. The
        old file is removed before its writer is named as replaced, to the issuer or in
        our file. Otherwise another process could take it over and rely on a row of the
        issuer that we end.

        Raises:
            OSError: when a write fails.
        """
        if base is None or base.mark is None:
            file = CopyFile.create(self._directory, str(uuid4()), self._identity)
            self._copy.adopt(file)
        else:
            found, reader = base.found, base.reader
            key = self._identity.key
            file = CopyFile(found.path, found.descriptor, key, reader, base.mark)
            self._copy.adopt(file, at=base.at, jwks=base.jwks)
        others = [c for c in contents if c is not base and c.found.is_ours]
        for content in others:
            await self._carry_over(content, file)
        if base is None:
            file.publish()
        for content in others:
            content.found.path.unlink(missing_ok=True)
            content.is_gone = self._invalidate(content)
        has_list = any(
            content.has_list for content in contents if content.found.is_ours
        )
        self._copy.begin(_ended(base, contents), has_list=has_list)

    def _invalidate(self, content: _Content) -> bool:
        """Void the age of a copy under any name it may still have."""
        if content.mark is None:
            return True  # a damaged copy has no age
        found, reader = content.found, content.reader
        key = self._identity.key
        file = CopyFile(found.path, found.descriptor, key, reader, content.mark)
        return file.invalidate()

    async def _carry_over(self, content: _Content, file: CopyFile) -> None:
        reader = RecordReader(content.found.descriptor, self._identity.key)
        for record in reader.records(content.reader.offset):
            if record.kind is RecordKind.ENTRIES:
                file.append_payload(RecordKind.ENTRIES, record.payload)
            await asyncio.sleep(0)

    def _bring_keys_in_force(self, contents: list[_Content], trust: Trust) -> None:
        best, best_until = b"", 0.0
        for content in contents:
            until = self._keys_until(content)
            if content.jwks and until > best_until:
                best, best_until = content.jwks, until
        if not best:
            return
        try:
            keys = parse_jwks(best)
        except JwksError as error:
            event(_LOG, logging.ERROR, "copy.keys_refused", error=str(error))
            return
        trust.trust_keys(self._identity.issuer, keys, best_until)
        # Store them in our own file, with their age by our clock.
        self._copy.keys_refreshed(best, best_until - self._limits.keys_max_age)

    def _keys_until(self, content: _Content) -> float:
        """Return until when a copy's keys may be used, in boot-time seconds.

        The boot-time seconds of another boot mean nothing here, so the wall clock is
        used then. No confirmation depends on that, and the feed withdraws a leaked key.
        """
        mark, limits = content.mark, self._limits
        if mark is None:
            return NEVER
        if self._is_of_this_boot(mark) and content.found.is_original:
            age = limits.boottime() - mark.keys_asked_at
        else:
            age = limits.now() - mark.keys_wall
        if age < -CLOCK_ALLOWANCE:
            # The request is in the future: the clock was ahead then, or is behind now.
            # The true age is not known (R53).
            return NEVER
        return limits.boottime() + limits.keys_max_age - max(0.0, age)

    def _bring_age_in_force(
        self, base: _Content | None, trust: Trust, feed: FeedFollower
    ) -> None:
        if base is None or base.mark is None or not self._is_of_this_boot(base.mark):
            return
        mark = base.mark
        if mark.asked_at > self._limits.boottime():
            # The clock went back, so it is not the same clock.
            return
        # The issuer waits for the old process by the bound that process had sent.
        if mark.asked_at > NEVER:
            until = mark.asked_at + self._limits.max_staleness
            trust.renew(min(mark.fresh_until, until))
            feed.status.succeeded(mark.asked_at)

    def _tell(
        self, base: _Content | None, contents: list[_Content], trust: Trust
    ) -> None:
        now = self._limits.boottime()
        event(
            _LOG,
            logging.INFO,
            "copy.read",
            files=len(contents),
            taken_over=sum(content.found.is_ours for content in contents),
            damaged=sum(bool(content.damage) for content in contents),
            entries=sum(content.rows for content in contents),
            position=base.at[1] if base and base.at else None,
            is_fresh=trust.snapshot.own.fresh_until > now,
        )


def _ended(base: _Content | None, contents: list[_Content]) -> tuple[str, ...]:
    """Return the ids of the processes we replace: their file is ours, or removed."""
    ids: dict[str, None] = {}
    for content in contents:
        if content.has_certain_end and (content is base or content.is_gone):
            ids |= dict.fromkeys([content.follower, *content.replaces])
    ids.pop("", None)
    return tuple(ids)[:MAX_REPLACED_FOLLOWERS]


def _entry(row: list[Any]) -> FeedEntry:
    seq, kind, key, minimum_generation, prune_at = row
    return FeedEntry(seq, _KINDS[kind], key, minimum_generation, prune_at)
