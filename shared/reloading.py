"""Reading files again while a program runs: what both programs need for it (R59, R65).

What is in force never becomes worse by it: a file that cannot be used leaves what it
held before, and the log says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from shared.log import event
from shared.settings import ProgramSettings, SettingsError, name_of

#: The words of an outcome.
OUTCOMES: Final = ("changed", "unchanged", "kept")
#: Why a changed setting stays as it is.
NEEDS_RESTART: Final = "it is read at the start alone; restart to take it"

S = TypeVar("S", bound=ProgramSettings)


@dataclass
class Outcome:
    """What one reading did.

    Attributes:
        changed: the settings whose value or file is in force since.
        kept: why, by setting, what was in force before still is.
    """

    changed: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """One word for metrics: `kept` when anything was, else whether a value
        changed.
        """
        if self.kept:
            return "kept"
        return "changed" if self.changed else "unchanged"

    def keep(self, error: SettingsError) -> None:
        """Note what a message says, whose lines each begin with a setting's name."""
        for line in str(error).splitlines():
            name, mark, reason = line.partition(": ")
            self.kept[name if mark else "settings"] = reason if mark else line

    def write(self, logger: logging.Logger) -> None:
        """Log what was kept, each with its reason, and the whole in one line."""
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
    """Runs an act once at a time; calls while another one waits are one with it.

    Args:
        act: what is done.
    """

    def __init__(self, act: Callable[[], Awaitable[None]]) -> None:
        self._act = act
        self._lock = asyncio.Lock()
        self._is_waiting = False

    async def __call__(self) -> None:
        """Do it; what changed before the call is seen."""
        if self._is_waiting:
            return
        self._is_waiting = True
        async with self._lock:
            self._is_waiting = False
            await self._act()


def reread(load: Callable[[], S], env_file: Path = Path(".env")) -> S:
    """Read the settings again, without ever waiting for a pipe.

    Raises:
        SettingsError: with one line per setting that cannot be used.
    """
    if env_file.exists() and not env_file.is_file():
        raise SettingsError(
            f"{env_file}: is no regular file, which is read at the start alone; restart "
            "to read it"
        )
    return load()


def take_live(
    before: S, after: S, live: Iterable[str], outcome: Outcome
) -> Mapping[str, object]:
    """Return the new values that can be taken at once, by field; note all changes.

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
