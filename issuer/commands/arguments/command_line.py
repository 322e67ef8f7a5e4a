"""The command line's arguments: commands, options and their help."""

from __future__ import annotations

import argparse
from textwrap import dedent
from typing import Final

from issuer.commands.arguments.account_commands import add_account_commands
from issuer.commands.arguments.key_commands import add_key_commands
from issuer.commands.arguments.revoking_commands import add_revoking_commands
from shared import configs, health
from shared.checking import arguments as check_arguments
from shared.commands import completion
from shared.commands.command_line import add_env_file
from shared.distribution import invoked_as, version_line

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
_CHECK: Final = dedent("""\
    Settings, files, ports and limits; then, without --offline, the database: schema,
    clock, connections, signing keys, and the keys that its rows need. A SQLite database
    is a file, and is looked at with --offline too.
    """)
#: They read no settings.
_WITHOUT_SETTINGS: Final = ("generate-secrets", configs.NAME, completion.NAME)


def read_arguments(words: list[str]) -> argparse.Namespace:
    """Return the options of a command line; exits with status 2 when it is wrong."""
    return build_parser().parse_args(_attach_kid(words))


def _attach_kid(words: list[str]) -> list[str]:
    """Return the words with the id of a key attached to its option.

    One id in 64 begins with `-`, and argparse reads a separate word as an option.
    """
    if "--kid" not in words[:-1]:
        return words
    at = words.index("--kid")
    return [*words[:at], f"--kid={words[at + 1]}", *words[at + 2 :]]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog=invoked_as("issuer"),
        description="The issuer: logs people and programs in, publishes keys and "
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
    check_arguments.add_parser(commands, "issuer", _CHECK)
    health.add_arguments(commands.add_parser(health.NAME, help=health.HELP))
    configs.add_parser(commands)
    add_account_commands(commands)
    add_key_commands(commands)
    add_revoking_commands(commands)
    completion.add_parser(commands, "issuer")
    add_env_file(parser, without=_WITHOUT_SETTINGS)
    return parser
