"""Reads the policy file, at the start and on a reload."""

from __future__ import annotations

import hashlib

from shared.configuration.bounded_file import UnreadableFileError, read_text
from shared.configuration.settings import SettingsError
from verifier.check.policy import PolicyBook, PolicyError, TokenPolicy
from verifier.policies.document import parse_policies
from verifier.settings import VerifierSettings


def read_policies(settings: VerifierSettings) -> PolicyBook:
    """Read the policy file that the settings name.

    Raises:
        SettingsError: naming the setting, and the field of the file.
    """
    token = TokenPolicy(settings.issuer_url, settings.audience, settings.leeway)
    if not settings.policy_file:
        return PolicyBook(parse_policies("", token))
    try:
        text = read_text(settings.policy_file)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return PolicyBook(parse_policies(text, token), digest)
    except FileNotFoundError:
        raise SettingsError(
            f"VERIFIER_POLICY_FILE: {settings.policy_file} is not there"
        ) from None
    except UnreadableFileError as error:
        raise SettingsError(
            f"VERIFIER_POLICY_FILE: {settings.policy_file} {error}"
        ) from None
    except PolicyError as error:
        raise SettingsError(f"VERIFIER_POLICY_FILE: {error}") from None
