"""`python -m verifier`: serves, or checks the configuration.

Without a command it serves. Settings come from the environment and `.env`.
"""

from __future__ import annotations

import sys

from shared import health
from shared.serving.signals import hold_reloads_when_serving

if __name__ == "__main__":
    hold_reloads_when_serving(sys.argv[1:])
if __name__ == "__main__" and sys.argv[1:2] == [health.NAME]:
    # Runs every few seconds, so before the imports below, which take half a second.
    sys.exit(health.main("verifier", sys.argv[2:]))

import argparse
from pathlib import Path
from textwrap import dedent

from shared import configs
from shared.configuration.settings import SettingsError, describe
from shared.distribution import invoked_as, version_line
from shared.outgoing.authorities import Authorities, AuthoritiesError
from verifier.check.policy import PolicyBook
from verifier.commands import doctor, policy
from verifier.disk.state_directory import (
    UnsafeDirectoryError,
    check_directory,
    check_writable,
)
from verifier.reloading.policy_file import read_policies
from verifier.settings import VerifierSettings, load_settings

_EPILOG = dedent("""\
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


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 2 for settings that cannot be used."""
    parser = argparse.ArgumentParser(
        prog=invoked_as("verifier"),
        description="The gate: answers forward-auth requests of a reverse proxy.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_line("verifier"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="serve (the default)")
    commands.add_parser(
        "check", help="check settings and policy file, print them, and exit"
    )
    health.add_arguments(commands.add_parser(health.NAME, help=health.HELP))
    configs.add_parser(commands)
    policy.add_parser(commands)
    doctor.add_parser(commands)
    options = parser.parse_args(arguments)
    command = options.command or "serve"
    if command == health.NAME:
        return health.run("verifier", is_ready_asked=options.ready)
    if command == configs.NAME:
        return configs.run("verifier", options.directory)
    if command == policy.NAME:
        return policy.run(options)
    if command == doctor.NAME:
        return doctor.run(options)
    try:
        settings = load_settings()
        policies = read_policies(settings)
        authorities = read_authorities(settings)
        check_state_dir(settings, is_writing=options.command != "check")
        if options.command == "check":
            _print_settings(settings, policies)
        else:
            return _serve(settings, policies, authorities)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _serve(
    settings: VerifierSettings, policies: PolicyBook, authorities: Authorities
) -> int:
    # The other commands do not need the server.
    from verifier.serve import run

    return run(settings, policies, authorities)


def read_authorities(settings: VerifierSettings) -> Authorities:
    """Read the certificate authorities for the issuer.

    Raises:
        SettingsError: naming the setting and what is wrong with the file.
    """
    try:
        return Authorities("VERIFIER_CA_FILE", settings.ca_file)
    except AuthoritiesError as error:
        raise SettingsError(f"VERIFIER_CA_FILE: {error}") from None


def check_state_dir(settings: VerifierSettings, *, is_writing: bool) -> None:
    """Check the directory of disk copies, without creating anything in it.

    An unwritable directory does not stop the gate: the start continues without a copy
    and logs `copy.lost`. A directory planted by another user does.

    Args:
        settings: the verifier's.
        is_writing: the caller will write there, and reports a failure itself.

    Raises:
        SettingsError: naming the setting.
    """
    if not settings.state_dir:
        return
    state_dir = Path(settings.state_dir)
    try:
        check_directory(state_dir)
        if not is_writing:
            check_writable(state_dir)
    except UnsafeDirectoryError as error:
        raise SettingsError(f"VERIFIER_STATE_DIR: {error}") from None
    except OSError as error:
        if not is_writing:
            # A system error repeats the path; use its text only.
            what = f"{state_dir}: {error.strerror}" if error.strerror else error
            raise SettingsError(f"VERIFIER_STATE_DIR: {what}") from None


def _print_settings(settings: VerifierSettings, policies: PolicyBook) -> None:
    for line in describe(settings):
        print(line)
    for name in policies.policies:
        print(f"policy {name}: /verify/<dialect>/p/{name}")


if __name__ == "__main__":
    sys.exit(main())
