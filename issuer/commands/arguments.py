"""The command line's arguments: commands, options and their help."""

from __future__ import annotations

import argparse
from textwrap import dedent
from typing import Final, TypeAlias

from issuer.commands import (
    audit_command,
    bulk_command,
    import_command,
    reencrypt_command,
)
from shared import configs, health
from shared.distribution import invoked_as, version_line

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_EPILOG: Final = dedent("""\
    The least that must be set (`generate-secrets` prints the last four):
      ISSUER_URL        your issuer's URL, the `iss` of every token
      ISSUER_AUDIENCE   the name of your API, the `aud` of every token
      ISSUER_FEED_TOKEN ISSUER_KEY_ENCRYPTION_KEYS ISSUER_PASSWORD_PEPPERS
      ISSUER_REFRESH_KEYS

    A first start:
      (umask 077; python -m issuer generate-secrets >> .env)   and add the two above
      python -m issuer migrate
      python -m issuer create-admin alice
      python -m issuer

    Every setting stands in .env.example, with unit and default; `configs` writes it out
    as env.example, with a systemd unit. A command ends with status 0 when it is done, 1 when it could not
    be done, 2 for bad settings or arguments.
    """)


def read_arguments(words: list[str]) -> argparse.Namespace:
    """Return the options of a command line; exits with status 2 when it is wrong."""
    return _build_parser().parse_args(_attach_kid(words))


def _attach_kid(words: list[str]) -> list[str]:
    """Return the words with the id of a key attached to its option.

    One id in 64 begins with `-`, and argparse reads a separate word as an option.
    """
    if "--kid" not in words[:-1]:
        return words
    at = words.index("--kid")
    return [*words[:at], f"--kid={words[at + 1]}", *words[at + 2 :]]


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=invoked_as("issuer"),
        description="The pass office: logs people and services in, publishes keys and "
        "revocations. Serves when no command is given.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_line("issuer"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="serve (the default)")
    commands.add_parser(
        "migrate",
        help="bring the database up to date",
        description="Bring the database up to date. There is no way back: make a backup "
        "first. The version before a migration works on the newer schema.",
    )
    commands.add_parser(
        "generate-secrets", help="print .env lines with fresh secrets; needs no setting"
    )
    commands.add_parser("settings", help="print what is in force, without secrets")
    health.add_arguments(commands.add_parser(health.NAME, help=health.HELP))
    configs.add_parser(commands)
    _add_account_commands(commands)
    _add_key_commands(commands)
    import_command.add_parser(commands)
    bulk_command.add_parser(commands)
    return parser


def _add_account_commands(commands: _Commands) -> None:
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


def _add_key_commands(commands: _Commands) -> None:
    rotate = commands.add_parser(
        "rotate-keys",
        help="publish the next signing key; it takes over by itself",
        description="Publishes the next signing key. It signs once it has stood in the "
        "JWKS for ISSUER_KEY_PUBLISH_AHEAD seconds and every verifier that follows the "
        "feed has fetched it, which the running issuer sees to.",
    )
    rotate.add_argument(
        "--now",
        action="store_true",
        help="let it sign at once; verifiers refuse its tokens until they fetch it",
    )
    reencrypt_command.add_parser(commands)
    audit_command.add_parser(commands)
    commands.add_parser(
        "new-epoch",
        help="after a restore of a whole machine or directory: begin a new epoch",
        description="A restored database is found out by itself, except when all that "
        "could tell was restored with it: a whole machine, or a SQLite file with its "
        "-witness. Run this then, before the issuer serves. Every verifier takes the "
        "snapshot and keeps the revocations it had.",
    )
    _add_revoke(commands)


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
