"""The Keycloak of the tests is the one that was pinned, or is not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.real_issuers import keycloak_home
from tests.support.real_issuers.keycloak_home import NotPreparedError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a machine with Java and without Maven."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "java").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("GATEHOUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_another_download_is_refused_and_not_unpacked(cache: Path) -> None:
    cache.mkdir()
    archive = cache / f"keycloak-quarkus-dist-{keycloak_home.VERSION}.zip"
    archive.write_bytes(b"another")
    with pytest.raises(NotPreparedError, match=r"has the SHA-256 .*, not 27a65355"):
        keycloak_home.prepare()
    assert {path.name for path in cache.iterdir()} == {archive.name, "keycloak.lock"}


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        NotPreparedError, match="Keycloak is not prepared: run python -m"
    ):
        keycloak_home.find_prepared()
    with pytest.raises(NotPreparedError, match="apt-get install maven, or put "):
        keycloak_home.prepare()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotPreparedError, match="openjdk-17-jre-headless"):
        keycloak_home.find_prepared()
