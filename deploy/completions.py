"""Writes the shells' completion scripts of both programs from their parsers.

Run `python -m deploy.completions` after a change of a command or an option. A test
fails while a script is out of date.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import shtab

from issuer.commands.arguments.command_line import build_parser as build_issuer
from shared.commands.completion import SHELLS, script_path
from shared.distribution import console_command
from verifier.commands.arguments import build_parser as build_verifier

PARSERS = {"issuer": build_issuer, "verifier": build_verifier}
#: Metavars that stand for a file or a directory, and for nothing else.
_FILES = frozenset({"FILE", "NEW", "OLD", "LOG"})
_DIRECTORIES = frozenset({"DIRECTORY"})


def write_script(program: str, shell: str) -> str:
    """Return the completion script of a program for a shell."""
    parser = PARSERS[program]()
    for each in _parsers_of(parser):
        for action in each._actions:
            _complete_files(action)
    # The name that a shell completes, whichever command runs this.
    _rename(parser, console_command(program))
    return shtab.complete(parser, shell=shell)


def _parsers_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _parsers_of(each)


def _complete_files(action: argparse.Action) -> None:
    if action.metavar in _FILES:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    elif action.metavar in _DIRECTORIES:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]


def _rename(parser: argparse.ArgumentParser, name: str) -> None:
    before = parser.prog
    for each in _parsers_of(parser):
        each.prog = each.prog.replace(before, name, 1)


def main() -> None:
    """Write all scripts."""
    for program in PARSERS:
        for shell in SHELLS:
            path = script_path(program, shell)
            path.parent.mkdir(exist_ok=True)
            path.write_text(write_script(program, shell), "utf-8")


if __name__ == "__main__":
    main()
