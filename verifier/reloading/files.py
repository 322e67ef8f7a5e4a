"""What the verifier reads from files, each the last good one (R59, R65)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from pydantic import SecretStr

from shared.outgoing.authorities import Authorities
from shared.reloading import Outcome, reread, take_live
from shared.settings import SettingsError
from verifier.check.policy import PolicyBook
from verifier.reloading.policy_file import read_policies
from verifier.settings import VerifierSettings, load_settings

_POLICY_FILE = "VERIFIER_POLICY_FILE"


class Reading(NamedTuple):
    """What was found in the files; nothing of it is in force yet.

    Attributes:
        outcome: what is new, and what cannot be used.
        values: new values of settings that can be changed at once, by field.
        policies: the policies of the file; None when it did not change or is bad.
    """

    outcome: Outcome
    values: Mapping[str, object]
    policies: PolicyBook | None


class Files:
    """Settings, policies and authorities, and how they are read again.

    A master process has one as well, and renews it when it is asked to reload: workers
    that are forked later begin with the last good files.

    Args:
        settings: as in force.
        policies: as in force.
        authorities: as in force.
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

    def read(self) -> Reading:
        """Read settings and policy file; not for an event loop. It never raises."""
        outcome = Outcome()
        return Reading(outcome, self._read_settings(outcome), self._read(outcome))

    def take(self, reading: Reading) -> None:
        """Put in force what was read."""
        if reading.values:
            self.settings = self.settings.model_copy(update=reading.values)
        if reading.policies is not None:
            self.policies = reading.policies
        self.policy_error = reading.outcome.kept.get(_POLICY_FILE, "")

    def renew(self) -> Outcome:
        """Read everything and put it in force; not for an event loop. It never raises."""
        reading = self.read()
        is_new = self.authorities.renew()
        self.take(reading)
        self.note_authorities(reading.outcome, is_new=is_new)
        return reading.outcome

    def note_authorities(self, outcome: Outcome, *, is_new: bool) -> None:
        """Note how reading the authorities again ended."""
        if is_new:
            outcome.changed.append("VERIFIER_CA_FILE")
        elif self.authorities.error:
            outcome.kept["VERIFIER_CA_FILE"] = self.authorities.error

    def feed_token_of(self, reading: Reading) -> str:
        """Return the feed token that is in force once the reading is."""
        token = reading.values.get("feed_token", self.settings.feed_token)
        return token.get_secret_value() if isinstance(token, SecretStr) else ""

    def refuse_policies(self, reading: Reading, reason: str) -> Reading:
        """Return the reading without its policies."""
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
            # By the settings in force: another file, issuer or audience needs a restart.
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
