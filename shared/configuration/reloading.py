"""Reading files again while a program runs, for both programs (R59, R65).

A reload never makes anything worse: if a file cannot be used, its last good content
stays in force, and a log line reports it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from shared.configuration.env_file import EnvFile
from shared.configuration.settings import ProgramSettings, SettingsError, name_of
from shared.log import event

#: The words of an outcome.
OUTCOMES: Final = ("changed", "unchanged", "kept")
#: The reason why a changed setting is not taken.
NEEDS_RESTART: Final = "it is read at the start alone; restart to take it"

S = TypeVar("S", bound=ProgramSettings)


@dataclass
class Outcome:
    """The result of one reload.

    Attributes:
        changed: the settings with a new value or file that is now in force.
        kept: for each setting that keeps its old value, the reason.
    """

    changed: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """One word for metrics: `kept` if any old value stayed, else whether one
        changed.
        """
        if self.kept:
            return "kept"
        return "changed" if self.changed else "unchanged"

    def keep(self, error: SettingsError) -> None:
        """Record a message whose lines each begin with a setting's name."""
        for line in str(error).splitlines():
            name, mark, reason = line.partition(": ")
            self.kept[name if mark else "settings"] = reason if mark else line

    def write(self, logger: logging.Logger) -> None:
        """Log each kept setting with its reason, and one line for the whole reload."""
        for name, reason in self.kept.items():
            event(logger, logging.WARNING, "reload.kept", setting=name, reason=reason)
        event(
            logger,
            logging.INFO,
            "reload.done",
            changed=sorted(self.changed),
            kept=sorted(self.kept),
        )


class OneAtATime:
    """Runs a function once at a time; calls that wait together share one run.

    Args:
        act: the function.
    """

    def __init__(self, act: Callable[[], Awaitable[None]]) -> None:
        self._act = act
        self._lock = asyncio.Lock()
        self._is_waiting = False

    async def __call__(self) -> None:
        """Run it; it sees every change made before this call."""
        if self._is_waiting:
            return
        self._is_waiting = True
        async with self._lock:
            self._is_waiting = False
            await self._act()


def reread(load: Callable[[], S], env_file: EnvFile | None) -> S:
    """Read the settings again, without ever waiting for a pipe.

    Args:
        load: reads them.
        env_file: the file that it reads.

    Raises:
        SettingsError: with one line per setting that cannot be used.
    """
    path = None if env_file is None else env_file.path
    if path is not None and path.exists() and not path.is_file():
        raise SettingsError(
            f"{path}: is no regular file, which is read at the start alone; restart "
            "to read it"
        )
    return load()


def take_live(
    before: S, after: S, live: Iterable[str], outcome: Outcome
) -> Mapping[str, object]:
    """Return the new values that can be taken at once, by field; record all changes.

    Args:
        before: the settings in force.
        after: as they are read now.
        live: the fields that can be changed while the program runs.
        outcome: gets a warning for each other field that differs.
    """
    taken: dict[str, object] = {}
    for field_name in type(before).model_fields:
        value = getattr(after, field_name)
        if value == getattr(before, field_name):
            continue
        name = name_of(type(before), field_name)
        if field_name in live:
            taken[field_name] = value
            outcome.changed.append(name)
        else:
            outcome.kept[name] = NEEDS_RESTART
    return taken
