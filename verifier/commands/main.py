"""`python -m verifier`: serves, or runs one command for the operator.

Without a command it serves. Settings come from the environment and `.env`.

This module imports little: the imports of a command are made when it runs, and those of
serving before it forks.
"""

from __future__ import annotations

import argparse
import sys

from shared import configs, health
from shared.commands import completion
from shared.commands.command_line import env_file_of
from verifier.commands.arguments import read_arguments


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 2 for settings that cannot be used."""
    words = sys.argv[1:] if arguments is None else arguments
    options = read_arguments(words)
    match options.command:
        case health.NAME:
            return health.run(
                "verifier", is_ready_asked=options.ready, env_file=env_file_of(options)
            )
        case configs.NAME:
            return configs.run("verifier", options.directory)
        case completion.NAME:
            return completion.run("verifier", options.shell)
        case "policy":
            from verifier.commands import policy

            return policy.run(options)
        case "issuers":
            from verifier.commands import issuers

            return issuers.run(options)
        case "doctor":
            from verifier.commands import doctor

            return doctor.run(options)
        case "native":
            from verifier.commands import native

            return native.run(options)
        case "check":
            from verifier.commands import check

            return check.run(options)
    return _run_with_settings(options)


def _run_with_settings(options: argparse.Namespace) -> int:
    from shared.configuration.settings import describe
    from verifier.settings import SettingsError, load_settings

    try:
        settings = load_settings(env_file_of(options))
        if options.command == "settings":
            print("\n".join(describe(settings)))
            return 0
        from verifier.commands import serving

        return serving.run(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
