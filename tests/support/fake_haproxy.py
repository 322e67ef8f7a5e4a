"""A HAProxy without traffic: a master's command line, and workers that have maps."""

from __future__ import annotations

import asyncio
import itertools
import re
from pathlib import Path

from verifier.native.haproxy.directory import LOADED, MARK

_PROMPT = b"master> "
_PROMPT_FAILED = b"master[ReloadFailed]> "
_NO_WORKER = "Can't find the target PID matching the prefix\n"


class FakeMap:
    """A map with versions: of two entries for a key, the first counts."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.versions: dict[int, list[tuple[str, str]]] = {}
        self.count = 0
        self.committed = 0

    def find(self, key: str) -> str | None:
        """Return the value that a request sees."""
        return next((value for name, value in self.lines if name == key), None)


class FakeWorker:
    """One worker.

    Attributes:
        mark: what it was started with.
        loaded: the keys that it was started with, as it says them.
        commands: the first line of each, in their order.
        refuses: a command that begins so is answered with an error.
        loses: a command that begins so is lost, and the connection ends.
        runs: it is not stopped.
        commit_seconds: how long it takes to put a map in force.
    """

    def __init__(self, pid: int, mark: str, loaded: str) -> None:
        self.pid = pid
        self.mark = mark
        self.loaded = loaded
        self.maps: dict[str, FakeMap] = {}
        self.commands: list[str] = []
        self.refuses = ""
        self.loses = ""
        self.commit_seconds = 0.0
        self.runs = asyncio.Event()
        self.runs.set()

    def map(self, name: str) -> FakeMap:
        """Return the map of that name, without its folder and end."""
        return self.maps.setdefault(name, FakeMap())

    def find(self, name: str, key: str) -> str | None:
        """Return what a request finds."""
        return self.map(name).find(key)

    @property
    def window(self) -> str | None:
        """The range of seconds; empty where it is closed, None where none was set."""
        found = self.map("window")
        return "".join(key for key, _ in found.lines) if found.committed else None

    def carry_out(self, command: str, payload: list[str]) -> str:
        """Return the answer to a command."""
        self.commands.append(command)
        if self.refuses and command.startswith(self.refuses):
            return "no room for it."
        # A semicolon ends a command, though not in a payload.
        words = command.partition(";")[0].split(" ")
        match words:
            case ["show", "env", name]:
                value = self.loaded if name == LOADED else self.mark
                return f"{name}={value}" if value else "Variable not found"
            case ["prepare", "map" | "acl", path]:
                found = self.map(Path(path).stem)
                found.count += 1
                found.versions[found.count] = []
                return f"New version created: {found.count}"
            case ["commit", "map" | "acl", version, path]:
                return self._commit(self.map(Path(path).stem), int(version[1:]))
            case ["set", "map", path, key, value] if not key.startswith("#"):
                return self._set(self.map(Path(path).stem), key, value)
            case ["add", "map", *place, path, "<<"]:
                return self._add(self.map(Path(path).stem), place, payload)
            case ["add", "acl", version, path, text]:
                return self._add(self.map(Path(path).stem), [version], [text])
        return "Unknown command."

    @staticmethod
    def _commit(found: FakeMap, version: int) -> str:
        if not found.committed < version <= found.count:
            return "Version number out of range."
        found.lines = found.versions.pop(version)
        found.committed = version
        return ""

    @staticmethod
    def _set(found: FakeMap, key: str, value: str) -> str:
        if found.find(key) is None:
            return "entry not found."
        found.lines = [(k, value if k == key else v) for k, v in found.lines]
        return ""

    @staticmethod
    def _add(found: FakeMap, place: list[str], payload: list[str]) -> str:
        lines = found.versions[int(place[0][1:])] if place else found.lines
        for line in payload:
            key, _, value = line.partition(" ")
            lines.append((key, value))
        return ""


class FakeHaproxy:
    """The master and its workers.

    Args:
        socket: where the master listens.
        directory: the one that Gatehouse writes; a new worker starts by it.

    Attributes:
        master: process id of the master.
        current: the worker that accepts connections.
        old: workers that were replaced.
        reloads: how often it was asked to reload.
        has_fault: its configuration has a mistake, so that a reload fails.
        prompt: ends each answer; it says whether the last reload failed.
    """

    def __init__(self, socket: Path, directory: Path) -> None:
        self.socket = socket
        self._directory = directory
        self.master = 100
        self._pids = itertools.count(101)
        self.current = self.new_worker()
        self.old: list[FakeWorker] = []
        self.reloads = 0
        self.has_fault = False
        self.prompt = _PROMPT
        self._server: asyncio.Server | None = None
        self._streams: set[asyncio.StreamWriter] = set()

    def new_worker(self, pid: int = 0) -> FakeWorker:
        """Return a worker with empty maps, started by the configuration as it is."""
        configuration = self._directory / "gatehouse.cfg"
        text = configuration.read_text() if configuration.exists() else ""
        set_by_it = dict(re.findall(r"^    setenv (\S+) (\S+)$", text, re.MULTILINE))
        return FakeWorker(
            pid or next(self._pids), set_by_it.get(MARK, ""), set_by_it.get(LOADED, "")
        )

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.socket)

    async def stop(self) -> None:
        """Listen no more, and end all connections."""
        if self._server is not None:
            self._server.close()
        self.end_connections()
        # Both ends close in the next turns of the event loop.
        for _ in range(5):
            await asyncio.sleep(0)

    def end_connections(self) -> None:
        """End all connections, as a reload does."""
        for stream in tuple(self._streams):
            stream.close()

    def reload(self) -> None:
        """Start another worker; the one before keeps its maps and connections."""
        self.prompt = _PROMPT_FAILED if self.has_fault else _PROMPT
        if self.has_fault:
            self.end_connections()
            return
        self.old.append(self.current)
        self.current = self.new_worker()
        self.end_connections()

    def restart_in_place(self) -> None:
        """Put another worker in the place of the current one, with its process id."""
        self.current = self.new_worker(self.current.pid)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._streams.add(writer)
        try:
            while line := (await reader.readline()).decode().rstrip("\n"):
                payload: list[str] = []
                if line.endswith("<<"):
                    while text := (await reader.readline()).decode().rstrip("\n"):
                        payload.append(text)
                answer = await self._answer(line, payload)
                if answer is None:
                    break
                if answer == _NO_WORKER:
                    writer.write(answer.encode())
                    break
                shown = (
                    "+ " * len(payload) + answer + ("\n" if line != "prompt" else "")
                )
                writer.write(shown.encode() + self.prompt)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._streams.discard(writer)
            writer.close()

    async def _answer(self, line: str, payload: list[str]) -> str | None:
        """Return the answer; None: the connection ends."""
        if line == "prompt":
            return ""
        if line == "show proc":
            return self._show_processes()
        if line == "reload":
            self.reloads += 1
            self.reload()
            return None
        target, _, command = line.partition(" ")
        for worker in (self.current, *self.old):
            if target == f"@!{worker.pid}":
                await worker.runs.wait()
                if command.startswith("commit map"):
                    await asyncio.sleep(worker.commit_seconds)
                if worker.loses and command.startswith(worker.loses):
                    return None
                return worker.carry_out(command, payload)
        return _NO_WORKER

    def _show_processes(self) -> str:
        row = "{}            {}          0               0d00h00m01s     2.6.12"
        lines = [
            "#<PID>          <type>",
            row.format(self.master, "master"),
            "# workers",
        ]
        lines.append(row.format(self.current.pid, "worker"))
        if self.old:
            lines.append("# old workers")
            lines += [row.format(worker.pid, "worker") for worker in self.old]
        return "\n".join([*lines, "# programs", ""])
