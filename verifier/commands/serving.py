"""`python -m verifier serve`: reads what serving needs, and serves."""

from __future__ import annotations

from pathlib import Path

from shared.configuration.settings import SettingsError
from shared.outgoing.authorities import Authorities, AuthoritiesError
from verifier.disk.state_directory import UnsafeDirectoryError, check_directory
from verifier.reloading.policy_file import read_policies
from verifier.serve import run as serve
from verifier.settings import VerifierSettings


def run(settings: VerifierSettings, native: str = "") -> int:
    """Serve until a stop; return the exit status.

    Args:
        settings: the verifier's.
        native: the kind of gateways that check tokens by themselves; empty for none.

    Raises:
        SettingsError: naming the setting, when a file or an address cannot be used.
    """
    policies = read_policies(settings)
    authorities = read_authorities(settings)
    check_state_dir(settings)
    return serve(settings, policies, authorities, native)


def read_authorities(settings: VerifierSettings) -> Authorities:
    """Read the certificate authorities for the issuer.

    Raises:
        SettingsError: naming the setting and what is wrong with the file.
    """
    try:
        return Authorities("VERIFIER_CA_FILE", settings.ca_file)
    except AuthoritiesError as error:
        raise SettingsError(f"VERIFIER_CA_FILE: {error}") from None


def check_state_dir(settings: VerifierSettings) -> None:
    """Check the directory of disk copies, without creating anything in it.

    An unwritable directory does not stop the gate: the start continues without a copy
    and logs `copy.lost`. A directory planted by another user does.

    Raises:
        SettingsError: naming the setting.
    """
    if not settings.state_dir:
        return
    try:
        check_directory(Path(settings.state_dir))
    except UnsafeDirectoryError as error:
        raise SettingsError(f"VERIFIER_STATE_DIR: {error}") from None
    except OSError:
        # It cannot be looked at, so no copy can be written there either.
        return
