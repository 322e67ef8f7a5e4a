"""`native` names what is missing, and what a gateway cannot check, before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.distribution import install_line
from tests.unit.verifier.test_settings import load, refusal
from verifier.commands.main import main
from verifier.commands.native import check_native
from verifier.native import needs
from verifier.settings import SettingsError, VerifierSettings

ENVOY: Mapping[str, str | None] = {
    "envoy_bind": "unix:/run/xds.sock",
    "envoy_admin": "unix:/run/admin.sock",
}


def fault(path: Path, changes: Mapping[str, str | None], kind: str = "envoy") -> str:
    with pytest.raises(SettingsError) as caught:
        check_native(load(path, **changes), kind)
    return str(caught.value)


def test_what_is_needed_is_enough(tmp_path: Path) -> None:
    check_native(load(tmp_path, **ENVOY), "envoy")


@pytest.mark.parametrize("lacking", ENVOY)
def test_missing_setting_is_named(tmp_path: Path, lacking: str) -> None:
    message = fault(tmp_path, dict(ENVOY) | {lacking: None})
    start = f"VERIFIER_{lacking.upper()}: `native envoy` needs it; "
    assert message == f"{start}write unix:/PATH"


def test_settings_of_another_kind_are_not_enough(tmp_path: Path) -> None:
    assert "`native haproxy` needs it" in fault(tmp_path, ENVOY, "haproxy")
    given = dict(ENVOY) | {"haproxy_master": "unix:/run/master.sock"}
    message = fault(tmp_path, given, "haproxy")
    assert message == (
        "VERIFIER_HAPROXY_DIR: `native haproxy` needs it; name a directory"
    )


def test_several_workers_are_refused(tmp_path: Path) -> None:
    message = fault(tmp_path, dict(ENVOY) | {"workers": "2"})
    assert message.startswith("VERIFIER_WORKERS: `native` needs 1, and it is 2: ")
    assert message.endswith("; write VERIFIER_WORKERS=1, or leave it out")


def test_window_shorter_than_an_idle_feed_is_refused(tmp_path: Path) -> None:
    """Answers get 10 s old; the gateway closed for a moment before each new one."""
    message = fault(tmp_path, dict(ENVOY) | {"max_staleness": "12"})
    assert message.startswith("VERIFIER_MAX_STALENESS: `native` needs at least 13 s")
    check_native(load(tmp_path, **ENVOY, max_staleness="13"), "envoy")


def test_staleness_below_both_bounds_is_refused_with_both(tmp_path: Path) -> None:
    """So the right value takes one try."""
    assert refusal(tmp_path, max_staleness="5") == (
        "VERIFIER_MAX_STALENESS: must be 11 or more, and with `native` "
        f"{needs.LEAST_STALENESS}"
    )
    assert "3600 or less" in refusal(tmp_path, max_staleness="3601")
    assert "whole number" in refusal(tmp_path, max_staleness="many")


def test_descriptions_of_settings_have_the_limits_of_native() -> None:
    fields = VerifierSettings.model_fields
    least = f"`native` needs at least {needs.LEAST_STALENESS}."
    assert str(fields["max_staleness"].description).endswith(least)
    assert str(fields["workers"].description).endswith("`native` takes 1 only.")


def test_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "_MODULES", ("grpc", "no_such.module"))
    message = fault(tmp_path, ENVOY)
    assert "is not installed here (no_such.module)" in message
    assert f"{install_line('verifier', 'native')}, or in a clone" in message


def test_unknown_policy_is_named(tmp_path: Path) -> None:
    message = fault(tmp_path, dict(ENVOY) | {"native_policies": "default, typo"})
    assert message.startswith("VERIFIER_NATIVE_POLICIES: policy typo: there is none")
    assert "; write it into the file of VERIFIER_POLICY_FILE, or take it" in message
    assert "/verify/" not in message


def test_policy_that_no_gateway_can_check_is_named(tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text("[policies.default]\npublic = true\n")
    message = fault(tmp_path, dict(ENVOY) | {"policy_file": str(file)})
    assert message.startswith("VERIFIER_NATIVE_POLICIES: policy default: cannot be")
    assert "public" in message


def test_leeway_that_gateways_read_as_their_own_is_named(tmp_path: Path) -> None:
    message = fault(tmp_path, dict(ENVOY) | {"leeway": "1"})
    assert message.startswith("VERIFIER_LEEWAY: `native` needs at least 2 s, and it is")
    assert message.endswith("; write VERIFIER_LEEWAY=2 or more")


@pytest.mark.parametrize("name", ["envoy_bind", "envoy_admin", "haproxy_master"])
@pytest.mark.parametrize("value", ["127.0.0.1:9000", "/run/x.sock", "unix:run/x.sock"])
def test_sockets_that_the_network_reaches_are_refused(
    tmp_path: Path, name: str, value: str
) -> None:
    message = refusal(tmp_path, **{name: value})
    assert f"VERIFIER_{name.upper()}" in message
    assert "must be a unix socket: unix:/PATH" in message


def test_names_of_policies_are_read(tmp_path: Path) -> None:
    settings = load(tmp_path, native_policies=" default, orders ,")
    assert settings.native_policies == ("default", "orders")
    assert load(tmp_path).native_policies == ("default",)
    assert "at least one policy" in refusal(tmp_path, native_policies=" , ")


def test_refusal_is_one_line_and_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "VERIFIER_ISSUER_URL": "https://issuer.test",
        "VERIFIER_AUDIENCE": "api",
        "VERIFIER_FEED_TOKEN": "t" * 32,
    }.items():
        monkeypatch.setenv(name, value)
    assert main(["native", "envoy"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "VERIFIER_ENVOY_BIND: `native envoy` needs it; write unix:/PATH"
