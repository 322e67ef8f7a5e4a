"""The decisions of `make up` before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo.installation import InstallationError
from deploy.demo.up import addresses_for, begun_at, find_policy_file
from deploy.gateway_programs import registry


@pytest.mark.parametrize(
    ("passed", "begun"),
    [("970", 970.0), ("", 1000.0), ("soon", 1000.0), ("-5", 1000.0), ("2000", 1000.0)],
)
def test_the_time_taken_counts_from_the_call_of_make(passed: str, begun: float) -> None:
    assert begun_at(passed, 1000.0) == begun


@pytest.mark.parametrize(
    ("installed", "wanted", "status"),
    [
        ([], "", 1),
        (["nginx"], "", 0),
        (["nginx"], "envoy", 1),
        (["envoy"], "", 0),
        (["envoy"], "envoy", 0),
        # `up` itself reports it, with the gateways that are there.
        ([], "nginx", 0),
        ([], "other", 0),
    ],
)
def test_envoy_is_installed_where_no_other_gateway_will_do(
    installed: list[str], wanted: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> Path | None:
        return Path("/usr/bin", name) if name in installed else None

    monkeypatch.setattr(registry, "find_binary", find)
    monkeypatch.setenv("GATEHOUSE_UP_GATEWAY", wanted)
    assert registry.main() == status


def test_policy_file_of_make_up_is_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verifier runs in another folder."""
    monkeypatch.chdir(tmp_path)
    assert find_policy_file("") is None
    with pytest.raises(InstallationError, match=f"{tmp_path}/p.toml is not there"):
        find_policy_file("p.toml")
    Path("p.toml").write_text("[policies.default]")
    assert find_policy_file("p.toml") == tmp_path / "p.toml"


@pytest.mark.parametrize("name", ["envoy-native", "haproxy-native"])
def test_folder_that_cannot_have_the_sockets_of_a_native_gateway_is_named(
    name: str,
) -> None:
    with pytest.raises(InstallationError, match=f"GATEHOUSE_VAR: {name} needs"):
        addresses_for(registry.PROGRAMS[name], Path("/" + "d" * 90))
