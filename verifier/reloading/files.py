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
    digest_of,
    look,
    parse_policy_text,
    read_policy_text,
)
from verifier.settings import VerifierSettings

_POLICY_FILE: Final = "VERIFIER_POLICY_FILE"
_NO_VALUES: Final[Mapping[str, object]] = MappingProxyType({})


class SeenPolicyFile(NamedTuple):
    """The policy file as a reading found it.

    Attributes:
        identity: taken before it was read.
        content: the digest of its text, or the reason why it cannot be read. It is
            empty when the file could be used and was not: it is to be read again.
        is_read: there is a text. If not, the next attempt may succeed although the
            identity is the same.
    """

    identity: Identity = ()
    content: str = ""
    is_read: bool = False


class ReadFiles(NamedTuple):
    """New content of the files, not in force yet.

    Attributes:
        outcome: what changed, and what cannot be used.
        seen: the policy file.
        policies: the policies; None when the file did not change or cannot be used.
        values: new values of settings that can change while serving, by field.
    """

    outcome: Outcome
    seen: SeenPolicyFile
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
        policy_error: why the policy file is not in force; empty when it is.
        seen: the policy file at the last reading.
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
        self.seen = SeenPolicyFile()
        self._load = load

    def read(self) -> ReadFiles:
        """Read settings and policy file. It blocks, and never raises."""
        outcome = Outcome()
        values = self._read_settings(outcome)
        return self._read_policies(outcome)._replace(values=values)

    def read_policies(self, identity: Identity) -> ReadFiles | None:
        """Read the policy file alone. It blocks, and never raises.

        Args:
            identity: of the file that is to be read.

        Returns:
            None when the file changed since, and is perhaps half written.
        """
        reading = self._read_policies(Outcome())
        is_same = reading.seen.identity == look(self.settings.policy_file) == identity
        return reading if is_same else None

    def take(self, reading: ReadFiles) -> None:
        """Put the new content in force."""
        if reading.values:
            self.settings = self.settings.model_copy(update=reading.values)
        if reading.policies is not None:
            self.policies = reading.policies
        self.policy_error = reading.outcome.kept.get(_POLICY_FILE, "")
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
        reading.outcome.changed.remove(_POLICY_FILE)
        reading.outcome.kept[_POLICY_FILE] = reason
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
        seen = SeenPolicyFile(look(settings.policy_file))
        try:
            text = read_policy_text(settings)
            digest = digest_of(text) if settings.policy_file else ""
            seen = seen._replace(content=digest, is_read=True)
            if digest != self.policies.digest:
                policies = parse_policy_text(settings, text)
                outcome.changed.append(_POLICY_FILE)
        except SettingsError as error:
            outcome.keep(error)
        except Exception as error:
            outcome.kept[_POLICY_FILE] = f"cannot be read: {type(error).__name__}"
        if not seen.is_read:
            seen = seen._replace(content=outcome.kept[_POLICY_FILE])
        return ReadFiles(outcome, seen, policies)
