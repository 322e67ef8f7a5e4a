"""Runs `check` of one program from its options to its exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from shared.checking.examination import Check, Examined, examine
from shared.checking.findings import Findings
from shared.checking.report import status_of, write_json, write_text
from shared.checking.settings import read_settings
from shared.configuration.settings import ProgramSettings

S = TypeVar("S", bound=ProgramSettings)
#: Ends the process at once: the interpreter would wait for the thread of a check that
#: hangs.
leave: Callable[[int], object] = os._exit


def run(
    program: str,
    options: argparse.Namespace,
    load: Callable[[], S],
    list_checks: Callable[[S], Iterable[Check]],
) -> int:
    """Run the checks, print what they found, and return the exit status.

    Args:
        program: `issuer` or `verifier`.
        options: of `shared.checking.arguments`.
        load: reads the settings.
        list_checks: gives the further checks, in the order in which they run.
    """
    examined = examine(_follow(load, list_checks), options.timeout)
    status = status_of(examined.findings, is_strict=options.strict)
    if options.json:
        write_json(program, examined.findings, status)
    else:
        write_text(examined.findings, is_quiet=options.quiet)
    return finish(examined, status)


def finish(examined: Examined, status: int) -> int:
    """Return the exit status; end the process at once where a check hangs."""
    if examined.is_hanging:
        sys.stdout.flush()
        leave(status)
    return status


def _follow(
    load: Callable[[], S], list_checks: Callable[[S], Iterable[Check]]
) -> Iterator[Check]:
    """Yield the check of the settings; then, if they can be used, the others."""
    read: list[S] = []
    yield Check("settings", "settings", partial(_read, load, read))
    for settings in read:
        yield from list_checks(settings)


def _read(load: Callable[[], S], into: list[S], findings: Findings) -> None:
    settings = read_settings(load, findings)
    if settings is not None:
        into.append(settings)
