"""The command `completion`: prints the script by which a shell completes a program.

The scripts are files beside this one, which `python -m deploy.completions` writes from
the parsers, so that no installation needs what writes them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from textwrap import dedent
from typing import Final

from shared.distribution import console_command

NAME: Final = "completion"
SHELLS: Final = ("bash", "zsh", "fish")
_FOLDER: Final = Path(__file__).with_name("completions")
_EPILOG: Final = dedent("""\
    Examples:
      bash   {command} completion bash > ~/.local/share/bash-completion/completions/{command}
      zsh    {command} completion zsh > "${{fpath[1]}}/_{command}"
      fish   {command} completion fish > ~/.config/fish/completions/{command}.fish

    For this session of bash alone:
      source <({command} completion bash)
    """)


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], program: str
) -> None:
    """Add the command to a program's parser."""
    parser = commands.add_parser(
        NAME,
        help="print the script that completes commands in a shell",
        description="Prints the script for one shell. It completes the console command "
        f"{console_command(program)}: commands, options, choices and files.",
        epilog=_EPILOG.format(command=console_command(program)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def script_path(program: str, shell: str) -> Path:
    """Return the path of a script, in this package."""
    return _FOLDER / f"{console_command(program)}.{shell}"


def run(program: str, shell: str) -> int:
    """Print the script of a program for a shell; return the exit status."""
    sys.stdout.write(script_path(program, shell).read_text("utf-8"))
    return 0
