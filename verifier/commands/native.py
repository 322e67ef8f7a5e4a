"""`python -m verifier native`: writes keys and revocations into gateways."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from textwrap import dedent
from typing import Any, Final

from shared.commands.command_line import env_file_of
from shared.configuration.settings import SettingsError
from verifier.commands import serving
from verifier.native.gateways import KINDS, check_kind
from verifier.native.needs import NO_POLICY_REMEDY, find_lacks
from verifier.native.terms import InexpressibleError, NativePolicies, NoPolicyError
from verifier.reloading.policy_file import read_policies
from verifier.settings import VerifierSettings, load_settings

_DESCRIPTION: Final = dedent("""\
    Writes keys and revocations into a gateway, which then checks tokens by itself: its own
    JWT filter compares signature and claims, and looks the session, the token and the
    user up among what is revoked. No request asks this program. It also serves checks as
    `serve` does, for the policies that a gateway cannot check.

    envoy    VERIFIER_ENVOY_BIND and VERIFIER_ENVOY_ADMIN
             Envoy asks this program for its filters (xDS, over a unix socket); its admin
             interface shows that all its workers have them.
    haproxy  VERIFIER_HAPROXY_MASTER and VERIFIER_HAPROXY_DIR
             Maps are changed over HAProxy's master CLI, in every worker process.

    VERIFIER_NATIVE_POLICIES names the policies that the gateway checks. A policy that it
    cannot check stops the start, with the name of the field. Besides, it needs all
    settings of the verifier, VERIFIER_WORKERS=1 and a VERIFIER_MAX_STALENESS of 13 s.

    Start this program first, then the gateway, here on the files that
    `gatehouse-verifier configs DIRECTORY` writes to gateways/. USER is that of this
    program:

        export VERIFIER_HAPROXY_MASTER=unix:/run/haproxy-master.sock
        export VERIFIER_HAPROXY_DIR=/var/lib/gatehouse-verifier/haproxy
        gatehouse-verifier native haproxy
        haproxy -W -S /run/haproxy-master.sock,mode,600,user,USER \\
            -f /var/lib/gatehouse-verifier/haproxy/gatehouse.cfg -f haproxy.cfg

        export VERIFIER_ENVOY_BIND=unix:/run/gatehouse/envoy-xds.sock
        export VERIFIER_ENVOY_ADMIN=unix:/run/gatehouse/envoy-admin.sock
        gatehouse-verifier native envoy
        envoy -c envoy.yaml

    docs/native.md has the rest, and what is weaker than asking this program.
    """)


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "native",
        help="write keys and revocations into gateways that check tokens themselves",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS, help="the gateway")


def run(options: argparse.Namespace) -> int:
    """Serve and write until a stop; return the exit status, 2 for bad settings."""
    try:
        settings = load_settings(env_file_of(options))
        check_native(settings, options.kind)
        return serving.run(settings, options.kind)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2


def check_native(settings: VerifierSettings, kind: str) -> None:
    """Check what `native` needs.

    Raises:
        SettingsError: naming the setting that is missing or cannot be used, or the
            policy that a gateway cannot check.
    """
    for lack in find_lacks(settings, kind):
        raise SettingsError(str(lack))
    policies = read_policies(settings)
    try:
        NativePolicies(
            settings.native_policies, lambda: policies, partial(check_kind, kind)
        )
    except NoPolicyError as error:
        raise SettingsError(
            f"VERIFIER_NATIVE_POLICIES: {error}; {NO_POLICY_REMEDY}"
        ) from None
    except InexpressibleError as error:
        raise SettingsError(
            f"VERIFIER_NATIVE_POLICIES: {error}. Take the policy out of the list, and "
            "let its gateway ask the verifier (/verify/<dialect>/p/<policy>)"
        ) from None
