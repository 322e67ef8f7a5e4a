"""The files that the verifier reads; the last good content is in force (R59, R65)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from pydantic import SecretStr

from shared.configuration.reloading import Outcome, reread, take_live
from shared.configuration.settings import SettingsError
from shared.outgoing.authorities import Authorities
from verifier.check.policy import PolicyBook
from verifier.reloading.policy_file import read_policies
from verifier.settings import VerifierSettings, load_settings

_POLICY_FILE = "VERIFIER_POLICY_FILE"


class ReadFiles(NamedTuple):
    """New content of the files, not in force yet.

    Attributes:
        outcome: what changed, and what cannot be used.
        values: new values of settings that can change while serving, by field.
        policies: the policies; None when the file did not change or cannot be used.
    """

    outcome: Outcome
    values: Mapping[str, object]
    policies: PolicyBook | None


class Files:
    """Settings, policies and authorities, and how they are read again.

    The supervisor has one too, and renews it on a reload, so workers forked later start
    with the last good content.

    Args:
        settings: in force.
        policies: in force.
        authorities: in force.
        load: reads the settings.
    """

    def __init__(
        self,
        settings: VerifierSettings,
        policies: PolicyBook,
        authorities: Authorities,
        load: Callable[[], VerifierSettings] = load_settings,
    ) -> None:
        self.settings = settings
        self.policies = policies
        self.authorities = authorities
        self.policy_error = ""
        self._load = load

    def read(self) -> ReadFiles:
        """Read settings and policy file. It blocks, and never raises."""
        outcome = Outcome()
        return ReadFiles(outcome, self._read_settings(outcome), self._read(outcome))

    def take(self, reading: ReadFiles) -> None:
        """Put the new content in force."""
        if reading.values:
            self.settings = self.settings.model_copy(update=reading.values)
        if reading.policies is not None:
            self.policies = reading.policies
        self.policy_error = reading.outcome.kept.get(_POLICY_FILE, "")

    def renew(self) -> Outcome:
        """Read everything and put it in force. It blocks, and never raises."""
        reading = self.read()
        is_new = self.authorities.renew()
        self.take(reading)
        self.note_authorities(reading.outcome, is_new=is_new)
        return reading.outcome

    def note_authorities(self, outcome: Outcome, *, is_new: bool) -> None:
        """Record the outcome of reading the authorities again."""
        if is_new:
            outcome.changed.append("VERIFIER_CA_FILE")
        elif self.authorities.error:
            outcome.kept["VERIFIER_CA_FILE"] = self.authorities.error

    def feed_token_of(self, reading: ReadFiles) -> str:
        """Return the feed token that will be in force after `take`."""
        token = reading.values.get("feed_token", self.settings.feed_token)
        return token.get_secret_value() if isinstance(token, SecretStr) else ""

    def refuse_policies(self, reading: ReadFiles, reason: str) -> ReadFiles:
        """Return the new content without its policies."""
        reading.outcome.changed.remove(_POLICY_FILE)
        reading.outcome.kept[_POLICY_FILE] = reason
        return reading._replace(policies=None)

    def _read_settings(self, outcome: Outcome) -> Mapping[str, object]:
        try:
            found = reread(self._load)
        except SettingsError as error:
            outcome.keep(error)
        except Exception as error:
            outcome.kept["settings"] = f"cannot be read: {type(error).__name__}"
        else:
            return take_live(self.settings, found, {"feed_token"}, outcome)
        return {}

    def _read(self, outcome: Outcome) -> PolicyBook | None:
        try:
            # With the settings in force: another file, issuer or audience needs a
            # restart.
            policies = read_policies(self.settings)
        except SettingsError as error:
            outcome.keep(error)
        except Exception as error:
            outcome.kept[_POLICY_FILE] = f"cannot be read: {type(error).__name__}"
        else:
            if policies.digest != self.policies.digest:
                outcome.changed.append(_POLICY_FILE)
                return policies
        return None
