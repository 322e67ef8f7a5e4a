"""Reads the policy file and the issuers file: at the start, on a reload, and when one
of them changed.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from shared.claims import OWN_ISSUER
from shared.configuration.bounded_file import UnreadableFileError, read_text
from shared.configuration.issuers_file import IssuersFileError, parse_issuers
from shared.configuration.settings import SettingsError
from verifier.check.policy import KnownIssuer, PolicyBook, PolicyError, TokenPolicy
from verifier.policies.document import parse_policies
from verifier.policies.other_issuers import terms_of
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


class PolicyTexts(NamedTuple):
    """The texts of the policy file and of the issuers file, read together.

    Attributes:
        policies: of the policy file; empty when the settings name none.
        issuers: of the issuers file; empty when the settings name none.
    """

    policies: str = ""
    issuers: str = ""

    @property
    def digests(self) -> tuple[str, str]:
        """SHA-256 of each text, in hex; empty of a file that is not named."""
        return digest_of(self.policies), digest_of(self.issuers)


def read_policies(settings: VerifierSettings) -> PolicyBook:
    """Read the policy file and the issuers file that the settings name.

    Raises:
        SettingsError: naming the setting, and the field of the file.
    """
    return parse_policy_texts(settings, read_policy_texts(settings))


def read_policy_texts(settings: VerifierSettings) -> PolicyTexts:
    """Return the texts of policy file and issuers file.

    Raises:
        SettingsError: naming the setting, when a file cannot be read.
    """
    return PolicyTexts(
        _read("VERIFIER_POLICY_FILE", settings.policy_file),
        _read("VERIFIER_ISSUERS_FILE", settings.issuers_file),
    )


def _read(setting: str, path: str) -> str:
    if not path:
        return ""
    try:
        return read_text(path)
    except FileNotFoundError:
        raise SettingsError(f"{setting}: {path} is not there") from None
    except UnreadableFileError as error:
        raise SettingsError(f"{setting}: {path} {error}") from None


def parse_policy_texts(settings: VerifierSettings, texts: PolicyTexts) -> PolicyBook:
    """Return the policies, and the issuers that they can name.

    Raises:
        SettingsError: naming the setting, and the field of the file.
    """
    token = TokenPolicy.own(settings.issuer_url, settings.audience, settings.leeway)
    if not settings.policy_file:
        return PolicyBook(parse_policies("", token))
    issuers = _parse_issuers(settings, texts.issuers)
    try:
        require_text(texts.policies)
        policies = parse_policies(
            texts.policies, token, [issuer.terms for issuer in issuers]
        )
    except PolicyError as error:
        raise SettingsError(f"VERIFIER_POLICY_FILE: {error}") from None
    digest, issuers_digest = texts.digests
    return PolicyBook(policies, digest, issuers, issuers_digest)


def _parse_issuers(settings: VerifierSettings, text: str) -> tuple[KnownIssuer, ...]:
    if not settings.issuers_file:
        return ()
    try:
        others = parse_issuers(text).values()
        for other in others:
            # Its tokens would be held against the feed of the wrong side (R67).
            if other.issuer == settings.issuer_url:
                raise IssuersFileError(
                    f"issuers.{other.name}.issuer: is VERIFIER_ISSUER_URL, which "
                    f'policies name "{OWN_ISSUER}"'
                )
    except IssuersFileError as error:
        raise SettingsError(f"VERIFIER_ISSUERS_FILE: {error}") from None
    return tuple(KnownIssuer(terms_of(other), other.jwks_url) for other in others)


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
    """Return the SHA-256 of a file's text, in hex; empty of no text."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""
