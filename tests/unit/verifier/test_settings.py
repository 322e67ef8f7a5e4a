"""The verifier's settings: values that would open the gate are refused at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.configuration.env_file import EnvFile
from shared.distribution import install_line
from shared.serving.workers.supervisor import Patience
from verifier.settings import SettingsError, VerifierSettings, load_settings

GOOD = {
    "VERIFIER_ISSUER_URL": "https://issuer.test",
    "VERIFIER_AUDIENCE": "api",
    "VERIFIER_FEED_TOKEN": "feed-token-of-32-characters-or-more",
}


def load(path: Path, **changes: str | None) -> VerifierSettings:
    values = GOOD | {f"VERIFIER_{name.upper()}": v for name, v in changes.items()}
    env_file = path / ".env"
    env_file.write_text(
        "".join(f"{n}={v}\n" for n, v in values.items() if v is not None)
    )
    return load_settings(EnvFile(env_file))


def refusal(path: Path, **changes: str | None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path, **changes)
    (line,) = str(caught.value).splitlines()
    return line


def test_the_least_that_is_needed_is_enough(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.jwks_url == "https://issuer.test/.well-known/jwks.json"
    assert settings.feed_url == "https://issuer.test/revocations"
    assert settings.leeway == 5
    assert settings.max_staleness == 30


def test_the_defaults_trust_loopback_only(tmp_path: Path) -> None:
    """R1."""
    settings = load(tmp_path)
    assert settings.trusted_peers == ("127.0.0.0/8", "::1/128")
    assert settings.bind.startswith("127.0.0.1:")
    assert settings.admin_bind.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", ["issuer_url", "audience", "feed_token"])
def test_settings_that_identify_the_installation_have_no_default(
    tmp_path: Path, name: str
) -> None:
    line = refusal(tmp_path, **{name: None})
    assert line.startswith(f"VERIFIER_{name.upper()}: is not set.")


@pytest.mark.parametrize("audience", ["", "a" * 257])
def test_an_audience_must_be_one(tmp_path: Path, audience: str) -> None:
    """R18: no check is off for want of configuration."""
    assert refusal(tmp_path, audience=audience).startswith("VERIFIER_AUDIENCE: ")


@pytest.mark.parametrize(
    "peers",
    [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/8,0.0.0.0/0",
        "*",
        "any",
        "gateway.test",
        "10.0.0.1/8",
    ],
)
def test_cve_2026_40575_everybody_is_no_list_of_peers(
    tmp_path: Path, peers: str
) -> None:
    """R1: oauth2-proxy's fix failed because its list defaulted to everyone."""
    line = refusal(tmp_path, trusted_peers=peers)
    assert line.startswith("VERIFIER_TRUSTED_PEERS: must ")


def test_peers_are_addresses_or_networks(tmp_path: Path) -> None:
    settings = load(tmp_path, trusted_peers="10.1.2.3, 10.2.0.0/16,2001:db8::/64,")
    assert settings.trusted_peers == ("10.1.2.3", "10.2.0.0/16", "2001:db8::/64")
    assert load(tmp_path, trusted_peers="").trusted_peers == ()


@pytest.mark.parametrize("name", ["issuer_url", "jwks_url", "feed_url"])
@pytest.mark.parametrize(
    "url",
    ["http://issuer.test", "http://10.0.0.1:8000", "file:///etc/passwd", "issuer.test"],
)
def test_cve_2026_48522_keys_do_not_travel_in_the_clear(
    tmp_path: Path, name: str, url: str
) -> None:
    """R21: https, or http to loopback."""
    line = refusal(tmp_path, **{name: url})
    assert line.startswith(f"VERIFIER_{name.upper()}: must ")


def test_http_to_loopback_will_do(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        issuer_url="http://127.0.0.1:8000",
        jwks_url="http://localhost:8000/keys",
        feed_url="https://feed.test/revocations",
    )
    assert settings.jwks_url == "http://localhost:8000/keys"
    assert settings.feed_url == "https://feed.test/revocations"


@pytest.mark.parametrize("token", ["", "short", "t" * 31, "t" * 40 + "ü"])
def test_a_feed_token_must_be_one_and_is_never_shown(
    tmp_path: Path, token: str
) -> None:
    """R35."""
    line = refusal(tmp_path, feed_token=token)
    assert line.startswith("VERIFIER_FEED_TOKEN: ")
    assert not token or token not in line


def test_a_good_feed_token_is_not_shown_either(tmp_path: Path) -> None:
    assert GOOD["VERIFIER_FEED_TOKEN"] not in repr(load(tmp_path))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("leeway", "61"),
        ("leeway", "-1"),
        ("max_staleness", "10"),
        ("max_staleness", "inf"),
        ("keys_max_age", "0"),
        ("workers", "0"),
        ("cache_entries", "1"),
        ("cache_bytes", "1"),
        ("bind", "9000"),
        ("admin_bind", "unix:gate.sock"),
        ("log_level", "verbose"),
    ],
)
def test_a_limit_out_of_bounds_is_named(tmp_path: Path, name: str, value: str) -> None:
    assert refusal(tmp_path, **{name: value}).startswith(f"VERIFIER_{name.upper()}: ")


def test_a_misspelt_setting_is_refused(tmp_path: Path) -> None:
    """A misspelt limit would be no limit."""
    line = refusal(tmp_path, max_stalenes="10")
    assert line.startswith("VERIFIER_MAX_STALENES: there is no such setting")


def test_grpc_is_off_unless_an_address_is_set(tmp_path: Path) -> None:
    assert load(tmp_path).grpc_bind == ""
    assert load(tmp_path, grpc_bind="unix:/run/g.sock").grpc_bind == "unix:/run/g.sock"
    assert load(tmp_path, grpc_bind="[::]:9200", workers="4").grpc_bind == "[::]:9200"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grpc_bind": "9200"}, "has no host; write 127.0.0.1:9200"),
        ({"grpc_bind": "127.0.0.1:9000"}, "takes the address of VERIFIER_BIND"),
        ({"grpc_bind": "[::]:9100"}, "takes the address of VERIFIER_ADMIN_BIND"),
        (
            {"grpc_bind": "unix:/run/g.sock", "workers": "2"},
            "a unix socket has one worker; write HOST:PORT, or VERIFIER_WORKERS=1",
        ),
    ],
)
def test_an_address_for_grpc_that_cannot_be_used_is_refused(
    tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    line = refusal(tmp_path, **changes)
    assert "VERIFIER_GRPC_BIND: " in line
    assert words in line


def test_grpc_without_its_packages_says_how_to_install_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verifier.settings.GRPC_MODULES", ("grpc_x", "google.grpc_x"))
    line = refusal(tmp_path, grpc_bind="127.0.0.1:9200")
    assert line.startswith("VERIFIER_GRPC_BIND: ")
    assert "(grpc_x, google.grpc_x)" in line
    assert f"{install_line('verifier', 'grpc')}, or in a clone" in line
    # Without the setting the packages are not needed.
    assert load(tmp_path).grpc_bind == ""


def test_start_waits_for_less_than_the_supervisor_does(tmp_path: Path) -> None:
    """It would give up a worker that only waits for its issuers."""
    longest = 90.0
    assert longest < Patience().start
    assert load(tmp_path, start_wait=str(longest)).start_wait == longest
    line = refusal(tmp_path, start_wait=str(longest + 1))
    assert line.startswith("VERIFIER_START_WAIT: ")
