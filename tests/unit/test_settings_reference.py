"""What is written about the settings is what the programs take."""

from __future__ import annotations

import re

from deploy.settings_reference import ROOT, env_example, settings_of, with_table
from issuer.settings import IssuerSettings
from verifier.settings import VerifierSettings

HOW = "out of date; run: python -m deploy.settings_reference"


def all_names() -> list[str]:
    return [
        setting.name
        for program in (IssuerSettings, VerifierSettings)
        for setting in settings_of(program)
    ]


def test_env_example_names_every_setting_and_no_other() -> None:
    text = (ROOT / ".env.example").read_text()
    written = re.findall(r"^#?((?:ISSUER|VERIFIER)_\w+)=", text, re.MULTILINE)
    assert sorted(written) == sorted(all_names()), HOW


def test_env_example_has_the_present_defaults_and_units() -> None:
    assert (ROOT / ".env.example").read_text() == env_example(), HOW


def test_readme_table_has_every_setting_with_its_default() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in all_names()), HOW
    assert readme == with_table(readme), HOW


def test_settings_that_are_numbers_say_their_unit() -> None:
    """A bare number is seconds to one reader and milliseconds to the next."""
    units = re.compile(
        r"second|byte|bits|cost|connections|processes|threads|logins|sessions|tokens|code points",
        re.IGNORECASE,
    )
    for program in (IssuerSettings, VerifierSettings):
        for name, field in program.model_fields.items():
            if field.annotation in {int, float}:
                assert units.search(field.description or ""), name
