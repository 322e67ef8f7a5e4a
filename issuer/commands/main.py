"""`python -m issuer`: serves, or runs one command for the operator.

Settings come from the environment and `.env`. No secret is read from the command line,
because process lists show it.

This module imports little: the imports of a command are made when it runs, and those of
serving before it forks.
"""

from __future__ import annotations

import argparse
import sys

from issuer.commands.arguments.command_line import read_arguments
from shared import configs, health
from shared.commands import completion
from shared.commands.command_line import env_file_of


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    options = read_arguments(words)
    match options.command:
        case "generate-secrets":
            from issuer.commands.secret_lines import make_secret_lines

            print("\n".join(make_secret_lines()))
            return 0
        case health.NAME:
            return health.run(
                "issuer", is_ready_asked=options.ready, env_file=env_file_of(options)
            )
        case configs.NAME:
            return configs.run("issuer", options.directory)
        case completion.NAME:
            return completion.run("issuer", options.shell)
        case "check":
            from issuer.commands import check_command

            return check_command.run(options)
    return _run_with_settings(options)


def _run_with_settings(options: argparse.Namespace) -> int:
    from issuer.settings.issuer_settings import SettingsError, load_settings
    from shared.configuration.settings import describe

    try:
        settings = load_settings(env_file_of(options))
        if options.command == "settings":
            print("\n".join(describe(settings)))
            return 0
        # The imports of a program that serves are made in `serve.run`, before it forks.
        from issuer.commands import database_commands

        return database_commands.run(options, settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
