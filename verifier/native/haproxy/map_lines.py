"""Lines of a HAProxy map, written by commands that fit into its buffer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

#: Bytes of the lines in one command: it must fit into HAProxy's buffer, which has
#: 16,384 by default.
_MAX_PAYLOAD: Final = 12_000
#: Seconds for each entry of a map that is put in force, ten times what was measured.
#: The version of before has about as many, and is freed then.
_COMMIT_TIME: Final = 5e-6


class MapLines:
    """Lines of a map, written as many at a time as fit into a command.

    Args:
        do: carries out a command; gets it and the seconds that it may take beyond the
            usual.
        map_file: names the map.
        version: of the map; empty for the one in force.
    """

    def __init__(
        self,
        do: Callable[[str, float], Awaitable[None]],
        map_file: Path,
        version: str = "",
    ) -> None:
        self._do = do
        self._map = map_file
        self._version = version
        self._lines: list[str] = []
        self._size = 0
        self._count = 0

    async def add(self, key: str, value: str = "1") -> None:
        """Add an entry, whose key has neither spaces nor line ends."""
        line = f"{key} {value}\n"
        if self._size + len(line) > _MAX_PAYLOAD:
            await self.flush()
        self._lines.append(line)
        self._size += len(line)
        self._count += 1

    async def flush(self) -> None:
        """Write the lines that are left."""
        if self._lines:
            lines, self._lines, self._size = self._lines, [], 0
            version = f"@{self._version} " if self._version else ""
            added = "".join(lines)
            await self._do(f"add map {version}{self._map} <<\n{added}", 0.0)

    async def commit(self) -> None:
        """Write what is left, and put the version in force in place of the last."""
        await self.flush()
        more_time = self._count * _COMMIT_TIME
        await self._do(f"commit map @{self._version} {self._map}", more_time)
