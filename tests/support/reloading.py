"""A simulated verifier with real files for policy file, CA file and secrets."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from shared.outgoing.authorities import Authorities
from tests.support.gatehouse_verifier import SimulatedVerifier
from tests.support.issuer_simulator import FEED_TOKEN
from tests.support.tokens import AUDIENCE, ISSUER
from verifier.reloading.files import Files
from verifier.reloading.policy_file import read_policies
from verifier.reloading.reload import ReloadedParts, Reloader, ReloadReport
from verifier.settings import VerifierSettings


class ReloadableVerifier:
    """A verifier with files in a folder.

    Attributes:
        policy_file: where its policies are.
        settings: its settings when they are read again; a `SettingsError` is
            raised in their place.
        authorities_renewed: the result of reading the authorities again.
    """

    def __init__(self, verifier: SimulatedVerifier, folder: Path, text: str) -> None:
        self.verifier = verifier
        self.policy_file = folder / "policies.toml"
        self.policy_file.write_text(text)
        self.settings: VerifierSettings | Exception = VerifierSettings(
            _env_file=None,
            issuer_url=ISSUER,
            audience=AUDIENCE,
            feed_token=SecretStr(FEED_TOKEN),
            policy_file=str(self.policy_file),
        )
        self.authorities_renewed = False
        self.slept = 0
        policies = read_policies(self.settings)
        verifier.gate.adopt(policies)
        self.files = Files(
            self.settings, policies, Authorities("VERIFIER_CA_FILE", ""), self._load
        )
        self.report = ReloadReport()
        self.reloader = Reloader(
            self.files,
            ReloadedParts(
                verifier.gate,
                verifier.feed,
                verifier.copy,
                self._renew,
                verifier.others.follow,
            ),
            self.report,
            now=verifier.clock.now,
            boottime=verifier.clock.monotonic,
            sleep=self.sleep,
        )

    def _load(self, _before: VerifierSettings) -> VerifierSettings:
        if isinstance(self.settings, Exception):
            raise self.settings
        return self.settings

    async def _renew(self) -> bool:
        return self.authorities_renewed

    async def sleep(self, seconds: float) -> None:
        """Let that time pass at the verifier."""
        self.slept += 1
        self.verifier.clock.advance(seconds)

    async def reload_with(self, text: str | None) -> None:
        """Write the policy file, or remove it, and reload."""
        if text is None:
            self.policy_file.unlink(missing_ok=True)
        else:
            self.policy_file.write_text(text)
        await self.reloader.reload()
