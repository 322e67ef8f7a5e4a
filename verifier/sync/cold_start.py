"""A start from the disk copies: what is known before the issuer has said a word.

Entries of every copy that can be read come into force. The age counts only from a copy
that this process has taken over whole, in the place where its writer left it and within
the same boot (docs/revocation.md, "Why that is enough"); keys obey `keys_max_age`.
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
from shared.log import event
from verifier.check.trust import JwksError, Trust, parse_jwks
from verifier.disk.compaction import living_rows
from verifier.disk.copy_file import CopyFile, Identity
from verifier.disk.copy_format import (
    NEVER,
    CopyDamagedError,
    Kind,
    Mark,
    Record,
    RecordReader,
    boot_digest,
    read_mark,
)
from verifier.disk.disk_copy import DiskCopy
from verifier.disk.state_directory import Found, find_copies, open_directory
from verifier.sync.sync import FeedFollower

_LOG: Final = logging.getLogger(__name__)
_KINDS: Final = {kind.value: kind for kind in EntryKind}


class Bounds(NamedTuple):
    """How old things may be, and how the time is told.

    Attributes:
        max_staleness: seconds, of the revocations.
        keys_max_age: seconds, of the keys.
        boottime: gives seconds of this boot.
        now: gives Unix seconds.
    """

    max_staleness: float
    keys_max_age: float
    boottime: Callable[[], float]
    now: Callable[[], float]


@dataclass
class _Content:
    """What was read from one copy.

    Attributes:
        found: the file.
        damage: why it is not whole; empty when it is.
        mark: None when it is not whole, or when a living writer was about to change it.
        follower: its last writer.
        replaces: whom that one had taken over from.
        at: epoch and position reached; None before the first.
        has_list: its entries are a whole list, of whatever age.
        jwks: the last keys.
        rows: how many entries it had.
        has_certain_end: its writer has ended for certain: same file, same boot, its lock.
        is_gone: the file was removed, its entries being in ours.
    """

    found: Found
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
    """Brings the trust in force that the disk copies hold, once, at the start.

    Args:
        state_dir: the directory that is configured; copies are in our own within it.
        copy: our own copy, not begun yet.
        workers: how many processes share the copies of those that have ended.
        bounds: how old things may be.
    """

    def __init__(
        self, state_dir: Path, copy: DiskCopy, workers: int, bounds: Bounds
    ) -> None:
        self._state_dir = self._directory = state_dir
        self._copy = copy
        self._identity: Identity = copy.identity
        self._workers = workers
        self._bounds = bounds

    async def run(self, trust: Trust, feed: FeedFollower) -> None:
        """Read the copies, take over our share of them, and begin our own.

        When the disk fails the start goes on without a copy, and says so.
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
            # A file of ours that could not be removed stays locked while we live.
            if content is not base and (content.is_gone or not content.found.is_ours):
                os.close(content.found.descriptor)
        self._bring_keys_in_force(contents, trust)
        # A position is written behind the first whole list: without one, this may be half
        # a list, which `on_stale = "allow"` must not take for an old one.
        if any(content.has_list for content in contents):
            trust.renew(NEVER)
        self._bring_age_in_force(base, trust, feed)
        if base is not None and base.at is not None:
            feed.resume(*base.at)
        feed.replaces = _ended(base, contents)
        self._tell(base, contents, trust)

    async def _read(self, found: Found, trust: Trust) -> _Content:
        """Bring the entries of one copy in force, and return what else it holds."""
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
        # Cut off behind a record, the chain is whole, but what was acknowledged is not
        # there; the mark says how far that went.
        if mark is not None and tag_at_mark != mark.tag:
            damage = damage or "the end does not fit the mark"
        self._judge(content, mark, damage)
        return content

    def _judge(self, content: _Content, mark: Mark | None, damage: str) -> None:
        found = content.found
        if not found.is_ours:
            # A living writer may be in the middle of a record or of the mark: no damage.
            content.mark = mark
        elif damage:
            content.damage = damage
            event(_LOG, logging.ERROR, "copy.damaged", path=found.path, error=damage)
        elif mark is not None:
            content.mark = mark
            content.has_certain_end = found.is_original and self._is_of_this_boot(mark)

    def _absorb(self, record: Record, content: _Content, trust: Trust) -> None:
        if record.kind is Kind.ENTRIES:
            rows = living_rows(record.payload, int(self._bounds.now()))
            content.rows += len(rows)
            trust.enforce(map(_entry, rows))
            return
        said: dict[str, Any] = orjson.loads(record.payload)
        if record.kind is Kind.WRITER:
            content.follower, content.replaces = said["follower"], said["replaces"]
            content.has_list |= said.get("has_list", False)
        elif record.kind is Kind.POSITION:
            content.at = (said["epoch"], said["position"])
            content.has_list = True
        elif record.kind is Kind.KEYS:
            content.jwks = said["jwks"].encode()

    def _choose_base(self, contents: list[_Content]) -> _Content | None:
        """Return the copy to go on in: whole, ours, in its place, and the freshest."""
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

        In this order: entries are in our file before the file they came from goes; that
        is gone before its writer is named as replaced, be it to the issuer or in our
        file. Else another process could take it over and rely on a row that we drop.

        Raises:
            OSError: when the disk does not take it.
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
            content.is_gone = self._disown(content)
        has_list = any(
            content.has_list for content in contents if content.found.is_ours
        )
        self._copy.begin(_ended(base, contents), has_list=has_list)

    def _disown(self, content: _Content) -> bool:
        """Void the age of a copy under any name it may still have."""
        if content.mark is None:
            return True  # what is damaged has none
        found, reader = content.found, content.reader
        key = self._identity.key
        file = CopyFile(found.path, found.descriptor, key, reader, content.mark)
        return file.disown()

    async def _carry_over(self, content: _Content, file: CopyFile) -> None:
        reader = RecordReader(content.found.descriptor, self._identity.key)
        for record in reader.records(content.reader.offset):
            if record.kind is Kind.ENTRIES:
                file.append_payload(Kind.ENTRIES, record.payload)
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
        # Into our own file, with the age they have by our clock.
        self._copy.keys_refreshed(best, best_until - self._bounds.keys_max_age)

    def _keys_until(self, content: _Content) -> float:
        """Return until when a copy's keys may be used, by our clock.

        Another boot's seconds mean nothing here. Then the wall clock must do: it is no
        part of any confirmation, and a key that leaked is withdrawn by the feed.
        """
        mark, bounds = content.mark, self._bounds
        if mark is None:
            return NEVER
        if self._is_of_this_boot(mark) and content.found.is_original:
            age = bounds.boottime() - mark.keys_asked_at
        else:
            age = bounds.now() - mark.keys_wall
        if age < -CLOCK_ALLOWANCE:
            # Asked for in the future: the clock was ahead then, or is behind now, and the
            # true age is not known (requirement R53).
            return NEVER
        return bounds.boottime() + bounds.keys_max_age - max(0.0, age)

    def _bring_age_in_force(
        self, base: _Content | None, trust: Trust, feed: FeedFollower
    ) -> None:
        if base is None or base.mark is None or not self._is_of_this_boot(base.mark):
            return
        mark = base.mark
        if mark.asked_at > self._bounds.boottime():
            # A clock that went back is not the clock we know.
            return
        # The issuer waits for the old process by the bound that process had told it.
        if mark.asked_at > NEVER:
            until = mark.asked_at + self._bounds.max_staleness
            trust.renew(min(mark.fresh_until, until))
            feed.status.succeeded(mark.asked_at)

    def _tell(
        self, base: _Content | None, contents: list[_Content], trust: Trust
    ) -> None:
        now = self._bounds.boottime()
        event(
            _LOG,
            logging.INFO,
            "copy.read",
            files=len(contents),
            taken_over=sum(content.found.is_ours for content in contents),
            damaged=sum(bool(content.damage) for content in contents),
            entries=sum(content.rows for content in contents),
            position=base.at[1] if base and base.at else None,
            is_fresh=trust.snapshot.fresh_until > now,
        )


def _ended(base: _Content | None, contents: list[_Content]) -> tuple[str, ...]:
    """Return the ids of those whose place we take: their file is ours, or gone."""
    ids: dict[str, None] = {}
    for content in contents:
        if content.has_certain_end and (content is base or content.is_gone):
            ids |= dict.fromkeys([content.follower, *content.replaces])
    ids.pop("", None)
    return tuple(ids)[:MAX_REPLACED_FOLLOWERS]


def _entry(row: list[Any]) -> FeedEntry:
    seq, kind, key, minimum_generation, prune_at = row
    return FeedEntry(seq, _KINDS[kind], key, minimum_generation, prune_at)
