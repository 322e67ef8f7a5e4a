"""What the command lines of both programs have in common: `--env-file`, completion.

It imports nothing of a program, so that `--help` and `health` cost little.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from shared.configuration.env_file import EnvFile

_ENV_FILE: Final = "--env-file"
_HELP: Final = "read the settings from FILE in place of .env; it must be there"


def add_env_file(parser: argparse.ArgumentParser, without: Collection[str]) -> None:
    """Accept `--env-file FILE` before a command, and behind each that reads settings.

    Args:
        parser: the program's, with all its commands.
        without: the commands that read no settings.
    """
    add_env_file_option(parser)
    for name, command in _commands_of(parser):
        if name not in without:
            for each in (command, *(act for _, act in _commands_of(command))):
                # Without a default, which would replace what stands before the command.
                each.add_argument(
                    _ENV_FILE, metavar="FILE", help=_HELP, default=argparse.SUPPRESS
                )


def add_env_file_option(parser: argparse.ArgumentParser) -> None:
    """Accept `--env-file FILE` in a parser of one command."""
    # `FILE` is completed with names of files, see `deploy/completions.py`.
    parser.add_argument(_ENV_FILE, metavar="FILE", help=_HELP)


def env_file_of(options: argparse.Namespace) -> EnvFile:
    """Return the file that the options name; `.env` when they name none."""
    return EnvFile.named(options.env_file)


def command_of(arguments: Sequence[str]) -> str | None:
    """Return the command in the arguments of a program, before they are parsed.

    Returns:
        None without one: the program serves.
    """
    words = iter(arguments)
    for word in words:
        if word == _ENV_FILE:
            next(words, None)
        elif not word.startswith(f"{_ENV_FILE}="):
            return word
    return None


def _commands_of(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()
