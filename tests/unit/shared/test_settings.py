"""Settings are refused by name, one line each, and values are never repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from shared.configuration.env_file import EnvFile
from shared.configuration.settings import (
    ProgramSettings,
    SettingsError,
    check_bind,
    check_url,
    load,
)

SECRET = "s3cret-that-must-not-be-seen"


class DoorSettings(ProgramSettings):
    model_config = SettingsConfigDict(
        env_prefix="DOOR_", env_file=".env", extra="ignore", hide_input_in_errors=True
    )

    url: str = Field(description="Where the door is.")
    token: SecretStr = Field(min_length=100, description="The key to it.")
    width: int = Field(default=80, ge=60, description="In centimetres.")
    colour: Literal["red", "green"] = Field(default="red", description="Its colour.")

    _check_url = field_validator("url")(check_url)

    @model_validator(mode="after")
    def _check_together(self) -> DoorSettings:
        if self.width > 100 and self.colour == "red":
            raise ValueError("wide doors are green")
        return self


GOOD = {"DOOR_URL": "https://door.test", "DOOR_TOKEN": "t" * 100}


def load_from(path: Path, values: dict[str, str]) -> DoorSettings:
    env_file = path / ".env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return load(DoorSettings, EnvFile(env_file))


def refused(path: Path, values: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_from(path, values)
    return str(caught.value).splitlines()


def test_settings_come_from_the_file(tmp_path: Path) -> None:
    settings = load_from(tmp_path, {**GOOD, "DOOR_WIDTH": "90"})
    assert settings.url == "https://door.test"
    assert settings.width == 90


def test_only_the_environment_counts_without_a_file(tmp_path: Path) -> None:
    for env_file in (None, EnvFile(tmp_path / "none")):
        with pytest.raises(SettingsError) as caught:
            load(DoorSettings, env_file)
        assert str(caught.value).splitlines() == [
            "DOOR_URL: is not set. Where the door is.",
            "DOOR_TOKEN: is not set. The key to it. Or set DOOR_TOKEN_FILE.",
        ]


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    lines = refused(tmp_path, {**GOOD, "DOOR_WIDHT": "90", "DOOR_A": SECRET})
    assert lines == [
        "DOOR_A: there is no such setting (.env.example has them all); remove it",
        "DOOR_WIDHT: there is no such setting; did you mean DOOR_WIDTH? "
        "(.env.example has them all)",
    ]


def test_names_of_other_programs_do_not_matter(tmp_path: Path) -> None:
    assert load_from(tmp_path, {**GOOD, "WINDOW_WIDTH": "90"}).width == 80


def test_each_problem_is_one_line_that_names_its_setting(tmp_path: Path) -> None:
    values = {"DOOR_URL": "ftp://d", "DOOR_TOKEN": SECRET, "DOOR_WIDTH": "1"}
    lines = refused(tmp_path, {**values, "DOOR_COLOUR": "blue"})
    names = [line.partition(":")[0] for line in lines]
    assert names == ["DOOR_URL", "DOOR_TOKEN", "DOOR_WIDTH", "DOOR_COLOUR"]


def test_problem_between_settings_is_reported(tmp_path: Path) -> None:
    assert refused(tmp_path, {**GOOD, "DOOR_WIDTH": "120"}) == ["wide doors are green"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DOOR_TOKEN", SECRET),
        ("DOOR_WIDTH", SECRET),
        ("DOOR_COLOUR", SECRET),
        ("DOOR_URL", SECRET),
        ("DOOR_URL", f"http://{SECRET}.test"),
        ("DOOR_URL", f"https://user:{SECRET}@door℀.test"),
        ("DOOR_URL", f"https://[{SECRET}"),
    ],
)
def test_a_value_is_never_repeated(tmp_path: Path, name: str, value: str) -> None:
    """R35: a value in the wrong setting may be a secret."""
    lines = refused(tmp_path, {**GOOD, name: value})
    assert len(lines) == 1
    assert lines[0].startswith(f"{name}: ")
    assert SECRET not in lines[0]


@pytest.mark.parametrize(
    "value", ["127.0.0.1:9000", "[::1]:9000", "localhost:1", "unix:/run/gate.sock"]
)
def test_valid_bind_is_accepted(value: str) -> None:
    assert check_bind(value) == value


@pytest.mark.parametrize(
    "value", ["", "9000", ":9000", "host", "host:", "host:port", "unix:run/gate.sock"]
)
def test_invalid_bind_is_refused(value: str) -> None:
    with pytest.raises(ValueError):
        check_bind(value)


@pytest.mark.parametrize(
    "value",
    [
        "https://issuer.test",
        "https://issuer.test:8443/tenant",
        "http://localhost:8000",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
    ],
)
def test_secure_url_is_accepted(value: str) -> None:
    assert check_url(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "issuer.test",
        "http://issuer.test",
        "http://localhost.issuer.test",
        "http://127.0.0.1@issuer.test",
        "http://127.0.0.2",
        "http://10.0.0.1",
        "ftp://localhost",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://issuer.test/",
        "https://issuer.test?a=b",
        "https://issuer.test#a",
        "https://[::1",
    ],
)
def test_any_other_url_is_refused(value: str) -> None:
    """R21: https, or http to loopback (PyJWT CVE-2026-48522)."""
    with pytest.raises(ValueError, match="must"):
        check_url(value)
