"""`python -m verifier check`: what would keep the gate from its work."""

from __future__ import annotations

import argparse
from functools import partial

from shared.checking.run import run as run_checks
from shared.commands.command_line import env_file_of
from verifier.checking.checks import list_checks
from verifier.settings import load_settings


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    return run_checks(
        "verifier",
        options,
        partial(load_settings, env_file_of(options)),
        partial(list_checks, is_offline=options.offline),
    )
