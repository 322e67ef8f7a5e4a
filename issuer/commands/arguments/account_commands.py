"""Arguments of the commands that make accounts and clients."""

from __future__ import annotations

import argparse
from typing import Final, TypeAlias

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_IMPORT: Final = """\
Makes accounts from CSV with a header, or JSON lines: username, and where wanted roles,
password or password_hash (what an issuer with the same pepper stored, or another system's
bcrypt, pbkdf2_sha256, argon2id or scrypt; docs/accounts.md lists the forms). Without a password an account needs a reset link before its first login.
Accounts that are there are left as they are, so an import that was broken off is simply
started again. Rows that cannot be used are shown with line, field and rule, and written to
a file of their own, to be mended and imported; the others are done, and the status is 1."""


def add_account_commands(commands: _Commands) -> None:
    """Add the commands and their options."""
    admin = commands.add_parser(
        "create-admin",
        help="make a user who may do everything",
        description="Makes a user with the role `admin` (scope gatehouse:admin). The "
        "password is asked for twice, or read from standard input.",
    )
    admin.add_argument("username", metavar="USERNAME")
    admin.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password's one line from standard input; so it is anyway when "
        "that is not a terminal",
    )
    client = commands.add_parser(
        "create-client",
        help="make a client and print its id and secret",
        description="Makes a client that may use the client_credentials grant. Prints "
        "CLIENT_ID=... and CLIENT_SECRET=..., this once.",
    )
    client.add_argument("name", metavar="NAME", help="for people to know it by")
    client.add_argument(
        "--scope",
        action="append",
        default=[],
        metavar="SCOPE",
        help="what it may ask for, one or several with blanks between; may be repeated. gatehouse:introspect and "
        "gatehouse:revoke let it ask about and revoke tokens of others",
    )
    client.add_argument("--json", action="store_true", help="print one JSON object")
    _add_import(commands)


def _add_import(commands: _Commands) -> None:
    parser = commands.add_parser(
        "import-users", help="make accounts from a file", description=_IMPORT
    )
    parser.add_argument("file", metavar="FILE", help="- is standard input")
    parser.add_argument(
        "--refused",
        metavar="FILE",
        help="where refused rows go, a new file; FILE.refused when left out. It holds "
        "their passwords, and only you may read it",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, and make nothing"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per refused row, then one with the counts",
    )
