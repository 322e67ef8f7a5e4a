"""The arguments of `check`; light, because every start of a program imports them."""

from __future__ import annotations

import argparse
from textwrap import dedent
from typing import Final

from shared.distribution import invoked_as

NAME: Final = "check"
#: Seconds that all checks may take together.
DEFAULT_TIMEOUT: Final = 30.0
MAX_TIMEOUT: Final = 600.0
_EPILOG: Final = dedent("""\
    Examples:
      {program} check
      {program} check --offline --strict
      {program} check --json --env-file /etc/gatehouse/{name}.env

    Run it as the user of the service: files and directories are judged by what this
    user may do. It changes nothing, and prints no secret.

    The status is 0 when nothing is wrong, 1 when a finding has level error (with
    --strict also for warnings), and 2 for wrong arguments.
    """)


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    program: str,
    description: str,
) -> None:
    """Add the command to a program's parser.

    Args:
        commands: of the program.
        program: `issuer` or `verifier`.
        description: what it looks at.
    """
    parser = commands.add_parser(
        NAME,
        help="check settings, files and what is needed to serve; say what to do",
        description=description,
        epilog=_EPILOG.format(program=invoked_as(program), name=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="ask no other program: neither the issuer nor a database server",
    )
    parser.add_argument(
        "--strict", action="store_true", help="status 1 for warnings too"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print warnings and errors only"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, for programs"
    )
    parser.add_argument(
        "--timeout",
        type=read_timeout,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="for all checks together (default: %(default)s)",
    )


def read_timeout(text: str) -> float:
    """Return the seconds of `--timeout`.

    Raises:
        argparse.ArgumentTypeError: they are not above 0, or over `MAX_TIMEOUT`.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT:
        raise argparse.ArgumentTypeError(
            f"must be seconds, above 0 and at most {MAX_TIMEOUT:.0f}"
        )
    return seconds
