"""The files that the verifier reads; the last good content is in force (R59, R65)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from pydantic import SecretStr

from shared.configuration.reloading import Outcome, reread, take_live
from shared.configuration.settings import SettingsError, load_again
from shared.outgoing.authorities import Authorities
from verifier.check.policy import PolicyBook
from verifier.reloading.policy_file import (
    Identity,
    look,
    parse_policy_texts,
    read_policy_texts,
)
from verifier.settings import VerifierSettings

_POLICY_FILE: Final = "VERIFIER_POLICY_FILE"
_ISSUERS_FILE: Final = "VERIFIER_ISSUERS_FILE"
_NO_VALUES: Final[Mapping[str, object]] = MappingProxyType({})


class SeenPolicyFiles(NamedTuple):
    """Policy file and issuers file as a reading found them.

    Attributes:
        identity: taken before they were read.
        content: the digests of their texts, or the reason why they cannot be read. It
            is empty when they could be used and were not: they are to be read again.
        is_read: there are texts. If not, the next attempt may succeed although the
            identity is the same.
    """

    identity: Identity = ()
    content: str = ""
    is_read: bool = False


class ReadFiles(NamedTuple):
    """New content of the files, not in force yet.

    Attributes:
        outcome: what changed, and what cannot be used.
        seen: policy file and issuers file.
        policies: the policies, and the issuers that they can name; None when neither
            file changed, or one cannot be used.
        values: new values of settings that can change while serving, by field.
    """

    outcome: Outcome
    seen: SeenPolicyFiles
    policies: PolicyBook | None
    values: Mapping[str, object] = _NO_VALUES


class Files:
    """Settings, policies and authorities, and how they are read again.

    The supervisor has one too, and renews it on a reload, so workers forked later start
    with the last good content.

    Args:
        settings: in force.
        policies: in force.
        authorities: in force.
        load: reads the settings again.

    Attributes:
        policy_error: why policy file or issuers file is not in force; empty when both
            are.
        seen: policy file and issuers file at the last reading.
    """

    def __init__(
        self,
        settings: VerifierSettings,
        policies: PolicyBook,
        authorities: Authorities,
        load: Callable[[VerifierSettings], VerifierSettings] = load_again,
    ) -> None:
        self.settings = settings
        self.policies = policies
        self.authorities = authorities
        self.policy_error = ""
        self.seen = SeenPolicyFiles()
        self._load = load

    def read(self) -> ReadFiles:
        """Read settings, policy file and issuers file. It blocks, and never raises."""
        outcome = Outcome()
        values = self._read_settings(outcome)
        return self._read_policies(outcome)._replace(values=values)

    def read_policies(self, identity: Identity) -> ReadFiles | None:
        """Read policy file and issuers file alone. It blocks, and never raises.

        Args:
            identity: of the files that are to be read.

        Returns:
            None when one changed since, and is perhaps half written.
        """
        reading = self._read_policies(Outcome())
        is_same = reading.seen.identity == self._look() == identity
        return reading if is_same else None

    def take(self, reading: ReadFiles) -> None:
        """Put the new content in force."""
        if reading.values:
            self.settings = self.settings.model_copy(update=reading.values)
        if reading.policies is not None:
            self.policies = reading.policies
        self.policy_error = _reason(reading.outcome)
        self.seen = reading.seen

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
        changed = reading.outcome.changed
        for setting in (_POLICY_FILE, _ISSUERS_FILE):
            if setting in changed:
                changed.remove(setting)
                reading.outcome.kept[setting] = reason
        seen = reading.seen._replace(content="")
        return reading._replace(policies=None, seen=seen)

    def _read_settings(self, outcome: Outcome) -> Mapping[str, object]:
        try:
            found = reread(partial(self._load, self.settings), self.settings.env_file)
        except SettingsError as error:
            outcome.keep(error)
        except Exception as error:
            outcome.kept["settings"] = f"cannot be read: {type(error).__name__}"
        else:
            return take_live(self.settings, found, {"feed_token"}, outcome)
        return {}

    def _read_policies(self, outcome: Outcome) -> ReadFiles:
        # With the settings in force: another file, issuer or audience needs a restart.
        settings, policies = self.settings, None
        seen = SeenPolicyFiles(self._look())
        try:
            texts = read_policy_texts(settings)
            seen = seen._replace(content="".join(texts.digests), is_read=True)
            digests = self.policies.digest, self.policies.issuers_digest
            changed = [
                setting
                for setting, new, old in zip(
                    (_POLICY_FILE, _ISSUERS_FILE), texts.digests, digests, strict=True
                )
                if new != old
            ]
            if changed:
                policies = parse_policy_texts(settings, texts)
                outcome.changed += changed
        except SettingsError as error:
            outcome.keep(error)
        except Exception as error:
            outcome.kept[_POLICY_FILE] = f"cannot be read: {type(error).__name__}"
        if not seen.is_read:
            seen = seen._replace(content=_reason(outcome))
        return ReadFiles(outcome, seen, policies)

    def _look(self) -> Identity:
        settings = self.settings
        return look(settings.policy_file) + look(settings.issuers_file)


def _reason(outcome: Outcome) -> str:
    """Return why policy file or issuers file cannot be used; empty when they can."""
    reasons = [outcome.kept.get(name, "") for name in (_POLICY_FILE, _ISSUERS_FILE)]
    return "; ".join(filter(None, reasons))
