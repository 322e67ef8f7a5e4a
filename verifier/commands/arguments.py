"""The command line's arguments: commands, options and their help.

The commands with many options have their arguments in their own modules. Such a module
imports what its command needs, so it is imported only for that command.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from textwrap import dedent
from typing import Final

from shared import configs, health
from shared.checking import arguments as check_arguments
from shared.commands import completion
from shared.commands.command_line import add_env_file, command_of
from shared.distribution import invoked_as, version_line

#: Of the commands below, it alone reads settings.
_NATIVE: Final = "native"
#: The commands whose modules have their own `add_parser`, and their help.
_LATE: Final = {
    "policy": "check, test, compare or explain policies",
    "issuers": "check other issuers: their keys, and a sample token",
    _NATIVE: "write keys and revocations into gateways that check tokens themselves",
    "doctor": "send probes through a live gateway and report known holes",
}
#: They read no settings.
_WITHOUT_SETTINGS: Final = {configs.NAME, completion.NAME, *_LATE} - {_NATIVE}
_EPILOG: Final = dedent("""\
    Required settings:
      VERIFIER_ISSUER_URL   the issuer's URL, exactly the `iss` of its tokens
      VERIFIER_AUDIENCE     the name of your API, the `aud` of its tokens
      VERIFIER_FEED_TOKEN   the issuer's ISSUER_FEED_TOKEN

    .env.example has every setting, with unit and default. A gateway asks
    /verify/<dialect>[/p/<policy>]. `configs` writes out gateway configurations to copy,
    a systemd unit and env.example.
    Operators find /metrics /healthz /readyz /status on VERIFIER_ADMIN_BIND, and
    POST /explain, which explains why a token passes or not.
    """)
_CHECK: Final = dedent("""\
    Settings, files, policies, ports and limits; then, without --offline, the issuer:
    its keys, its feed, whether it accepts the feed token, and its clock.
    """)


def read_arguments(words: list[str]) -> argparse.Namespace:
    """Return the options of a command line; exits with status 2 when it is wrong."""
    command = command_of(words)
    return build_parser(() if command is None else (command,)).parse_args(words)


def build_parser(complete: tuple[str, ...] = tuple(_LATE)) -> argparse.ArgumentParser:
    """Return the parser.

    Args:
        complete: the commands whose options are needed; any other of `_LATE` has its
            help alone.
    """
    parser = argparse.ArgumentParser(
        prog=invoked_as("verifier"),
        description="The gate: answers forward-auth requests of a reverse proxy.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_line("verifier"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="serve (the default)")
    check_arguments.add_parser(commands, "verifier", _CHECK)
    commands.add_parser("settings", help="print what is in force, without secrets")
    health.add_arguments(commands.add_parser(health.NAME, help=health.HELP))
    configs.add_parser(commands)
    for name, text in _LATE.items():
        if name in complete:
            import_module(f"verifier.commands.{name}").add_parser(commands)
        else:
            commands.add_parser(name, help=text)
    completion.add_parser(commands, "verifier")
    add_env_file(parser, without=_WITHOUT_SETTINGS)
    return parser
