"""The check of the settings themselves: every one that is wrong, at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from shared.checking.findings import Findings
from shared.configuration.settings import ProgramSettings, SettingsError

S = TypeVar("S", bound=ProgramSettings)
_UNSET: Final = "is not set. "
_REMEDY: Final = "write it in the environment or the settings file, and check again"


def read_settings(load: Callable[[], S], findings: Findings) -> S | None:
    """Return the settings; None when they cannot be used, which the findings explain.

    Args:
        load: reads them.
        findings: gets one error for each setting that is wrong.
    """
    try:
        settings = load()
    except SettingsError as error:
        add_settings_error(error, findings)
        return None
    count = len(type(settings).model_fields)
    findings.ok("settings", "settings", f"all {count} can be used")
    return settings


def add_settings_error(error: SettingsError, findings: Findings) -> None:
    """Append one finding for each line of the error."""
    for line in str(error).splitlines():
        name, mark, rest = line.partition(": ")
        text = rest if mark else line
        # What is not set is described, in sentences of its own.
        end = ". " if text.startswith(_UNSET) else "; "
        found, _, remedy = text.partition(end)
        findings.error(
            "settings", name if mark else "settings", found, remedy or _REMEDY
        )
