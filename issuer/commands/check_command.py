"""`python -m issuer check`: what would keep the issuer from its work."""

from __future__ import annotations

import argparse
from functools import partial

from issuer.checking.checks import list_checks
from issuer.settings.issuer_settings import load_settings
from shared.checking.run import run as run_checks
from shared.commands.command_line import env_file_of


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    return run_checks(
        "issuer",
        options,
        partial(load_settings, env_file_of(options)),
        partial(list_checks, is_offline=options.offline),
    )
