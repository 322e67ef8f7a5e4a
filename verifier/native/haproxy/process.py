"""One HAProxy worker, whose maps are written over the master's command line."""

from __future__ import annotations

import asyncio
import math
import re
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from shared.feed import EntryKind
from shared.token_form import encode_header
from verifier.native.content import Content
from verifier.native.entries import LiveEntries, LiveEntry
from verifier.native.haproxy.directory import (
    LOADED,
    MARK,
    HaproxyDirectory,
    not_loaded,
    usable_keys,
)
from verifier.native.haproxy.map_lines import MapLines
from verifier.native.haproxy.master import (
    MasterConnection,
    MasterError,
    MasterGoneError,
    WorkerGoneError,
)
from verifier.native.haproxy.token_rules import WORD
from verifier.native.window import CLOSED, Window
from verifier.native.writer import ConnectionEndedError, NotSentError, WriteError

#: No token that passes has this generation, or a higher one.
_NEVER: Final = 10**15
_VERSION: Final = re.compile(r"New version created: ([0-9]+)")
#: A key that is one word of a command.
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:/+=~-]+")


class HaproxyProcess:
    """One HAProxy worker (`GatewayProcess`). It outlives reloads of the master.

    A command that was not answered may be carried out at any later time. So nothing is
    sent before that answer; and when it can never come, everything is sent again. Each
    command but one has no effect after that: HAProxy refuses to commit an older
    version. The one that raises a minimum in
    place would lower a newer one: after that, the worker is abandoned, and closes.

    Args:
        pid: its process id, as the master says.
        socket: of the master.
        directory: names the maps.

    Attributes:
        name: names it, and this following of it.
        mark: what it was started with; None while that is not known.
        raising: held while a command is carried out that must not come late.
        is_abandoned: it is never written into again.
        is_current: it takes new connections; no reload has replaced it.
        has_window: see `GatewayProcess`.
        trouble: see `GatewayProcess`. Nothing while it is not current: it drains.
    """

    def __init__(self, pid: int, socket: str, directory: HaproxyDirectory) -> None:
        self.name = f"haproxy {pid} {uuid.uuid4().hex[:12]}"
        self.mark: str | None = None
        self.raising = asyncio.Lock()
        self.is_abandoned = False
        self.is_current = True
        self.has_window, self.trouble = False, ""
        self._pid = pid
        self._socket = socket
        self._directory = directory
        self._maps = directory.maps
        self._connection: MasterConnection | None = None
        self._is_raising = False
        self._loaded = ""
        self._forget()

    def close(self) -> None:
        """End the connection; an answer that is owed may be to what comes late."""
        if self._is_raising:
            self.is_abandoned = True
        if self._connection is not None:
            self._connection.close()

    async def write(self, content: Content) -> None:
        """Write the content; return when the worker has carried out every command.

        Raises:
            WriteError: it was not taken, or that is not proven.
            ConnectionEndedError: the worker is gone, or left to its window.
        """
        # Before anything is awaited: the entries change.
        changes = self._changes(content)
        try:
            await self._connect()
            if changes is None:
                self._check_rules(await self._read_mark())
                self._loaded = await self._read(LOADED)
            window = self._window_of(content)
            if not window.is_open:
                # Before the entries: ours may be fewer than those that the process
                # before us wrote, as after a start from an older copy.
                await self._write_window(window)
            if changes is None:
                await self._fill(content.entries, content.revision)
            else:
                await self._add(changes, content.revision)
            await self._write_headers(content)
            # Asked once: the policies may change while it is written.
            self.has_window = self._has_present_rules
            if self.has_window:
                await self._write_window(window)
            self.trouble = self._find_trouble(content)
        except WorkerGoneError:
            raise ConnectionEndedError from None
        except MasterError as error:
            self._forget()
            raise WriteError(str(error)) from None
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """Write everything the next time: it is not known what the worker has."""
        self._revision: int | None = None
        self._count = 0
        self._pruned = 0
        self._minimums: dict[str, int] = {}
        self._headers: dict[str, str] | None = None
        self._window: str | None = None
        self._window_version = 0

    # --- the connection --------------------------------------------------------------

    async def _connect(self) -> None:
        """Connect, unless we are, and take the answer that is still owed.

        Raises:
            MasterError: there is no connection, or no answer.
            ConnectionEndedError: a command that must not come later may do so.
        """
        connection = self._connection
        if connection is not None and connection.owes:
            # However long: meanwhile the worker is sent no further window, so it is
            # waited for no longer than the last one lasts.
            try:
                await connection.answer(math.inf)
            except MasterGoneError:
                if self._is_raising:
                    self.is_abandoned = True
                    raise ConnectionEndedError from None
            else:
                # Also when a reload of ours has closed the connection meanwhile.
                self._is_raising = self.is_abandoned = False
                raise WriteError("an answer came late; everything is sent again")
        if connection is None or connection.is_ended:
            self.close()
            self._connection = None
            self._connection = await MasterConnection.open(self._socket)

    async def _ask(self, command: str, more_time: float = 0.0) -> str:
        if self._connection is None:
            raise MasterGoneError("there is no connection to the master")
        return await self._connection.ask(f"@!{self._pid} {command}", more_time)

    async def _do(self, command: str, more_time: float = 0.0) -> None:
        """Carry out a command that answers nothing.

        Args:
            command: the command.
            more_time: seconds that it may take beyond the usual.

        Raises:
            WriteError: it answers something.
        """
        if answer := await self._ask(command, more_time):
            what = " ".join(command.split()[:2])
            raise WriteError(f"HAProxy refused {what}: {answer[:200]}")

    async def _read_mark(self) -> str:
        self.mark = await self._read(MARK)
        return self.mark

    async def _read(self, variable: str) -> str:
        """Return a variable that its configuration has set; empty when it has not."""
        name, _, value = (await self._ask(f"show env {variable}")).partition("=")
        return value if name == variable else ""

    def _check_rules(self, mark: str) -> None:
        """Check that the worker decides by rules that this process wrote.

        Raises:
            NotSentError: by others.
        """
        if not self._directory.has_our_rules(mark):
            raise NotSentError(
                "HAProxy was started with other rules than those in "
                f"{self._directory.path}/gatehouse.cfg; reload it, and if that does "
                "not help, name this file with its -f"
            )

    @property
    def _has_present_rules(self) -> bool:
        """Whether the worker decides by the policies as they are now.

        One with those of before gets every revocation, and no further window: it closes
        no later than if we had died when the policies changed.
        """
        return self._directory.has_present_rules(self.mark or "")

    def _window_of(self, content: Content) -> Window:
        """Return the window; closed while the worker has loaded none of our keys.

        It would refuse good tokens as if they were bad (R38).
        """
        keys = usable_keys(content.keys)
        if keys and len(not_loaded(self._loaded, keys)) == len(keys):
            return CLOSED
        return content.window

    def _find_trouble(self, content: Content) -> str:
        """Return what keeps it closed, or a key from it; empty for nothing."""
        if not self.is_current:
            return ""
        if not self._has_present_rules:
            return (
                "HAProxy has the policies of before and is closed: it was not reloaded "
                "since they changed; its own log says why"
            )
        if not self._loaded:
            return (
                "HAProxy was started by a release before this one, and not reloaded "
                "since: it does not say which keys it has; its own log says why"
            )
        kids = not_loaded(self._loaded, content.keys)
        if not kids:
            return ""
        return (
            f"HAProxy has not loaded the key {', '.join(kids)}: it was not reloaded "
            "since; its own log says why"
        )

    # --- the maps --------------------------------------------------------------------

    def _changes(self, content: Content) -> Iterable[LiveEntry] | None:
        """Return what is new; None when everything is to be written."""
        entries = content.entries
        if self._revision is None:
            return None
        if 2 * (entries.pruned - self._pruned) > self._count:
            return None
        return entries.since(self._revision)

    async def _fill(self, entries: LiveEntries, revision: int) -> None:
        """Write all entries, beside the present ones, and then put them in force."""
        self._count, self._pruned, self._minimums = 0, entries.pruned, {}
        left = iter(entries)
        lists = {
            EntryKind.SID: await self._begin(self._maps.sessions),
            EntryKind.JTI: await self._begin(self._maps.tokens),
        }
        for entry in left:
            self._count += 1
            if not _concerns_tokens(entry):
                continue
            if entry.kind in lists:
                await lists[entry.kind].add(entry.key)
            else:
                self._raise_minimum(entry)
        for lines in lists.values():
            await lines.commit()
        await self._fill_minimums()
        self._revision = revision

    async def _fill_minimums(self) -> None:
        minimums = await self._begin(self._maps.minimums)
        for key, least in self._minimums.items():
            await minimums.add(key, str(least))
        await minimums.commit()

    async def _add(self, changes: Iterable[LiveEntry], revision: int) -> None:
        """Write further entries into the maps."""
        lists = {
            EntryKind.SID: MapLines(self._do, self._maps.sessions),
            EntryKind.JTI: MapLines(self._do, self._maps.tokens),
        }
        new: set[str] = set()
        raised: set[str] = set()
        for entry in changes:
            self._count += 1
            if not _concerns_tokens(entry):
                continue
            if entry.kind in lists:
                await lists[entry.kind].add(entry.key)
                continue
            is_known = entry.key in self._minimums
            if self._raise_minimum(entry) and entry.key not in new:
                (raised if is_known else new).add(entry.key)
        for lines in lists.values():
            await lines.flush()
        minimums = MapLines(self._do, self._maps.minimums)
        for key in new:
            await minimums.add(key, str(self._minimums[key]))
        await minimums.flush()
        await self._set_minimums(raised)
        self._revision = revision

    def _raise_minimum(self, entry: LiveEntry) -> bool:
        """Return whether the entry raises the minimum of its key.

        A client's entry concerns tokens whose subject is the client, so both kinds are
        looked for by the subject.
        """
        least = min(entry.minimum_generation, _NEVER)
        if self._minimums.get(entry.key, -1) >= least:
            return False
        self._minimums[entry.key] = least
        return True

    async def _set_minimums(self, keys: Collection[str]) -> None:
        """Raise minimums that the worker has: of two entries, the first would count."""
        if not all(map(_PLAIN.fullmatch, keys)):
            # A command would read such a key as something else.
            await self._fill_minimums()
            return
        for key in keys:
            async with self.raising:
                connection = self._connection
                if connection is None or connection.is_ended:
                    # It ended while we waited: this command was never sent.
                    raise MasterGoneError("the connection to the master has ended")
                self._is_raising = True
                least = self._minimums[key]
                try:
                    await self._do(f"set map {self._maps.minimums} {key} {least}")
                finally:
                    self._is_raising = connection.owes

    async def _write_headers(self, content: Content) -> None:
        """Write the headers of tokens that our keys have signed, if they change."""
        headers = {
            encode_header(key.kid): str(self._directory.key_path(key))
            for key in usable_keys(content.keys)
        }
        if headers == self._headers:
            return
        lines = await self._begin(self._maps.headers)
        for header, path in headers.items():
            await lines.add(header, path)
        await lines.commit()
        self._headers = headers

    async def _write_window(self, window: Window) -> None:
        """Write the window; a worker without ours is another one than was filled."""
        text = f"{window.opens_at}:{window.closes_at - 1}" if window.is_open else ""
        if self._window == text:
            return
        path = self._maps.window
        version = await self._prepare("acl", path)
        if version <= self._window_version:
            raise WriteError("HAProxy has another worker with the same process id")
        if text:
            await self._do(f"add acl @{version} {path} {text}")
        await self._do(f"commit acl @{version} {path}")
        self._window, self._window_version = text, version

    async def _begin(self, map_file: Path) -> MapLines:
        """Return the lines of a new version of a map, which is not in force yet.

        Raises:
            WriteError: HAProxy does not say which.
        """
        version = await self._prepare("map", map_file)
        return MapLines(self._do, map_file, str(version))

    async def _prepare(self, kind: str, path: Path) -> int:
        """Return the number of a new version, which is higher than those before it."""
        answer = await self._ask(f"prepare {kind} {path}")
        found = _VERSION.fullmatch(answer)
        if found is None:
            raise WriteError(f"HAProxy refused prepare {kind}: {answer[:200]}")
        return int(found[1])


def _concerns_tokens(entry: LiveEntry) -> bool:
    """Return whether a token that passes can have the key of the entry.

    A revoked key is none of those that `_write_headers` writes.
    """
    return entry.kind is not EntryKind.KID and bool(WORD.fullmatch(entry.key))
