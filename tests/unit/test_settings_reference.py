"""The documentation of the settings is what the programs take."""

from __future__ import annotations

import re

from pydantic import SecretStr

from deploy.settings_reference import (
    PAGE,
    ROOT,
    env_example,
    reference_page,
    settings_of,
)
from issuer.settings.issuer_settings import IssuerSettings
from shared.configuration.secret_files import secrets_of
from shared.configuration.service_links import is_service_link
from verifier.settings import VerifierSettings

HOW = "out of date; run: python -m deploy.settings_reference"


def all_names() -> list[str]:
    return [
        name
        for program in (IssuerSettings, VerifierSettings)
        for setting in settings_of(program)
        for name in (setting.name, setting.file_name)
        if name is not None
    ]


def test_env_example_names_every_setting_and_no_other() -> None:
    text = (ROOT / ".env.example").read_text()
    written = re.findall(r"^#?((?:ISSUER|VERIFIER)_\w+)=", text, re.MULTILINE)
    assert sorted(written) == sorted(all_names()), HOW


def test_env_example_has_the_present_defaults_and_units() -> None:
    assert (ROOT / ".env.example").read_text() == env_example(), HOW


def test_page_has_every_setting_with_its_default() -> None:
    text = PAGE.read_text()
    assert all(f"`{name}`" in text for name in all_names()), HOW
    assert text == reference_page(), HOW


def test_r57_every_setting_that_is_a_secret_is_marked_as_one() -> None:
    """An unmarked one has no NAME_FILE, and is in the output of `settings`."""
    secret = re.compile(r"token$|_keys$|pepper|secret|password$|database_url|endpoints")
    for program in (IssuerSettings, VerifierSettings):
        named = {name for name in program.model_fields if secret.search(name)}
        assert named <= secrets_of(program).keys()
        for name in secrets_of(program):
            assert not program.model_fields[name].repr or (
                program.model_fields[name].annotation is SecretStr
            ), name


def test_r56_no_setting_has_the_form_of_a_kubernetes_variable() -> None:
    """It would be passed over with a value of that form."""
    for name in all_names():
        for value in ("tcp://10.0.0.1:80", "10.0.0.1", "80", "tcp"):
            assert not is_service_link(name, value), name


def test_numeric_settings_name_their_unit() -> None:
    """A bare number is seconds to one reader and milliseconds to the next."""
    units = re.compile(
        r"second|byte|bits|cost|connections|processes|threads|logins|sessions|tokens|code points",
        re.IGNORECASE,
    )
    for program in (IssuerSettings, VerifierSettings):
        for name, field in program.model_fields.items():
            if field.annotation in {int, float}:
                assert units.search(field.description or ""), name
