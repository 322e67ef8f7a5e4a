"""What `check` says of gateways that check tokens by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.checking.findings import Findings, Level
from verifier.checking.native import list_native_checks
from verifier.settings import VerifierSettings

POLICIES = """
[policies.default]
required_scopes = ["orders:read"]

[policies.by-path]
[[policies.by-path.rules]]
path = "/orders"

[policies.plain]
"""


def findings_of(tmp_path: Path, **settings: str) -> list[tuple[Level, str]]:
    """Return level and text of each finding, without asking another program."""
    file = tmp_path / "policies.toml"
    file.write_text(POLICIES)
    made = VerifierSettings(
        issuer_url="https://issuer.test",
        audience="api",
        feed_token="feed-token-of-32-characters-or-more",
        policy_file=str(file),
        **settings,
    )
    found = Findings()
    for check in list_native_checks(made, is_offline=True):
        check.run(found)
    return [(finding.level, finding.found) for finding in found]


@pytest.fixture(autouse=True)
def _no_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of this machine out."""
    monkeypatch.chdir(tmp_path)


def test_where_no_gateway_is_native_nothing_is_said(tmp_path: Path) -> None:
    assert findings_of(tmp_path) == []


def test_every_policy_is_named_and_one_that_cannot_be_native_is_refused(
    tmp_path: Path,
) -> None:
    found = findings_of(
        tmp_path, envoy_bind="unix:/run/x.sock", native_policies="default,by-path,gone"
    )
    assert [level for level, _ in found] == [
        Level.ERROR,
        Level.OK,
        Level.ERROR,
        Level.OK,
    ]
    texts = [text for _, text in found]
    assert texts[0].startswith("policy by-path: cannot be native: rules: ")
    assert texts[1] == "policy default: can be checked by gateways"
    assert texts[2] == "policy gone: there is none of that name"
    assert texts[3] == "policy plain: could be native"


def test_policy_that_asks_the_verifier_may_be_any(tmp_path: Path) -> None:
    found = findings_of(tmp_path, envoy_bind="unix:/run/x.sock")
    assert {level for level, _ in found} == {Level.OK}
