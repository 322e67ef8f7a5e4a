"""Reads the policy file: at the start, on a reload, and when it changed."""

from __future__ import annotations

import hashlib
import os

from shared.configuration.bounded_file import UnreadableFileError, read_text
from shared.configuration.settings import SettingsError
from verifier.check.policy import PolicyBook, PolicyError, TokenPolicy
from verifier.policies.document import parse_policies
from verifier.settings import VerifierSettings

#: Differs when the file at a path is another one or was written to.
Identity = tuple[int, ...]


def look(path: str) -> Identity:
    """Return the identity of the file at a path; links are followed.

    Without a file it is the error's number, so a file that is missing or may not be
    looked at has an identity as well. It asks the file system, which may hang.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        # A change of owner or mode may make it readable.
        status.st_ctime_ns,
    )


def read_policies(settings: VerifierSettings) -> PolicyBook:
    """Read the policy file that the settings name.

    Raises:
        SettingsError: naming the setting, and the field of the file.
    """
    return parse_policy_text(settings, read_policy_text(settings))


def read_policy_text(settings: VerifierSettings) -> str:
    """Return the text of the policy file; empty when the settings name none.

    Raises:
        SettingsError: naming the setting, when the file cannot be read.
    """
    if not settings.policy_file:
        return ""
    try:
        return read_text(settings.policy_file)
    except FileNotFoundError:
        raise SettingsError(
            f"VERIFIER_POLICY_FILE: {settings.policy_file} is not there"
        ) from None
    except UnreadableFileError as error:
        raise SettingsError(
            f"VERIFIER_POLICY_FILE: {settings.policy_file} {error}"
        ) from None


def parse_policy_text(settings: VerifierSettings, text: str) -> PolicyBook:
    """Return the policies in the text of the policy file.

    Raises:
        SettingsError: naming the setting, and the field of the file.
    """
    token = TokenPolicy.own(settings.issuer_url, settings.audience, settings.leeway)
    if not settings.policy_file:
        return PolicyBook(parse_policies("", token))
    try:
        require_text(text)
        return PolicyBook(parse_policies(text, token), digest_of(text))
    except PolicyError as error:
        raise SettingsError(f"VERIFIER_POLICY_FILE: {error}") from None


def require_text(text: str) -> None:
    """Check that a policy file is not empty.

    A file is empty while it is written in place, and stays so on a full disk. Without
    the policies that it had, `default` would ask for nothing but a good token.

    Raises:
        PolicyError: it is.
    """
    if not text.strip():
        raise PolicyError(
            "the file is empty; to have no policies but `default`, write a comment "
            "into it, or name no file"
        )


def digest_of(text: str) -> str:
    """Return the SHA-256 of a policy file, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
