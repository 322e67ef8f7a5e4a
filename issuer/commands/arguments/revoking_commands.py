"""Arguments of the commands that revoke."""

from __future__ import annotations

import argparse
from typing import Final, TypeAlias

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_MANY: Final = """\
Revokes what a file names, or ends the living sessions and personal keys that all given
conditions apply to. Works in small transactions, so that other revocations go on; broken off, it is
simply started again and does the rest. Rows that cannot be used are shown with line,
field and rule, and the others are done; the status is then 1."""


def add_revoking_commands(commands: _Commands) -> None:
    """Add the commands and their options."""
    _add_revoke(commands)
    _add_many(commands)


def _add_revoke(commands: _Commands) -> None:
    revoke = commands.add_parser(
        "revoke",
        help="withdraw tokens: of a user, session, client or key, or a single one",
    )
    what = revoke.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--user", metavar="USERNAME", help="all sessions and personal keys of a user"
    )
    what.add_argument(
        "--sid",
        help="one session, one personal key by its id, or one grant of a client, known "
        "to this database or not",
    )
    what.add_argument("--jti", help="one access token, by its `jti` claim")
    what.add_argument("--client", metavar="CLIENT_ID", help="a client's own tokens")
    what.add_argument(
        "--kid",
        help="every token of a signing key, which leaves the JWKS; when it is the "
        "active one, the next takes over at once",
    )


def _add_many(commands: _Commands) -> None:
    parser = commands.add_parser(
        "revoke-many", help="withdraw tokens by a file or a filter", description=_MANY
    )
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="CSV with a header, or JSON lines, with kind, key and perhaps exp (a jti's, "
        "Unix seconds); - is standard input. Kinds: jti, sid, user (id), username, "
        "client, kid",
    )
    parser.add_argument(
        "--role", help="sessions and personal keys of users who hold this role"
    )
    parser.add_argument(
        "--client",
        metavar="CLIENT_ID",
        help="sessions begun through this client; gatehouse and gatehouse-key also find "
        "personal keys",
    )
    parser.add_argument(
        "--started-before",
        metavar="TIME",
        help="those begun or made before this moment: 2026-11-22T13:00:00Z or Unix "
        "seconds",
    )
    parser.add_argument(
        "--started-since", metavar="TIME", help="those begun or made then or later"
    )
    parser.add_argument(
        "--address",
        metavar="NETWORK",
        help="those begun or made from an address in it, such as 192.0.2.0/24",
    )
    _add_switches(parser)


def _add_switches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="count only, and change nothing"
    )
    parser.add_argument(
        "--yes", action="store_true", help="do not ask before a filter is carried out"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per refused row, then one with the counts",
    )
