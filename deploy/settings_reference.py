"""Writes `.env.example` and docs/settings-reference.md from the settings classes.

Run `python -m deploy.settings_reference` after a change of a setting. A test fails
while one of the files is out of date.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from issuer.settings.issuer_settings import IssuerSettings
from shared.configuration.secret_files import FILE_SUFFIX, secrets_of
from verifier.settings import VerifierSettings

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "settings-reference.md"

#: Examples of required settings. Secrets have none: generate-secrets makes them.
_EXAMPLES: Mapping[str, str] = {
    "ISSUER_URL": "https://auth.example.com",
    "ISSUER_AUDIENCE": "https://api.example.com",
    "VERIFIER_ISSUER_URL": "https://auth.example.com",
    "VERIFIER_AUDIENCE": "https://api.example.com",
}
_PAGE_HEAD = """\
# Every setting

Look up a setting, its default and its unit. [Give the programs their settings](settings.md)
says where they come from, how secrets come from files, and how values are written.
This page is written from the code by `python -m deploy.settings_reference`.
"""
_HEADER = """\
# Every setting of both programs, with unit and default. Copy to .env and edit: a line
# that begins with # shows a default, the others must be filled in. The environment wins
# over .env. Make the secrets with: python -m issuer generate-secrets
# NAME_FILE takes the path of a file that holds NAME; docs/settings.md says how.
"""


class Setting(NamedTuple):
    """One setting as users see it.

    Attributes:
        name: as in the environment.
        default: None when it must be given.
        description: what it is for, with its unit.
        file_name: the setting that takes the path of a file with it; None unless it is
            a secret.
    """

    name: str
    default: str | None
    description: str
    file_name: str | None


def settings_of(settings: type[BaseSettings]) -> Iterator[Setting]:
    """Yield every setting of one program, in the order of the class."""
    prefix = settings.model_config.get("env_prefix", "")
    secrets = secrets_of(settings)
    for name, field in settings.model_fields.items():
        label = f"{prefix}{name.upper()}"
        file_name = f"{label}{FILE_SUFFIX}" if name in secrets else None
        yield Setting(label, _default_of(field), field.description or "", file_name)


def env_example() -> str:
    """Return the text of `.env.example`."""
    blocks = [_HEADER]
    for title, program in (("issuer", IssuerSettings), ("verifier", VerifierSettings)):
        blocks.append(f"# --- {title} " + "-" * (80 - len(title)) + "\n")
        for setting in settings_of(program):
            told = textwrap.fill(
                setting.description,
                88,
                initial_indent="# ",
                subsequent_indent="# ",
                break_on_hyphens=False,
                break_long_words=False,
            )
            if setting.default is None:
                line = f"{setting.name}={_EXAMPLES.get(setting.name, '')}"
            else:
                line = f"#{setting.name}={setting.default}"
            if setting.file_name is not None:
                line += f"\n#{setting.file_name}="
            blocks.append(f"{told}\n{line}\n")
    return "\n".join(blocks)


def reference_page() -> str:
    """Return the text of docs/settings-reference.md."""
    programs = (("The issuer", IssuerSettings), ("The verifier", VerifierSettings))
    return "\n".join([_PAGE_HEAD, *(_section(*program) for program in programs)])


def _section(title: str, program: type[BaseSettings]) -> str:
    rows = [f"## {title}", "", "| setting | default | meaning |", "|---|---|---|"]
    for setting in settings_of(program):
        if setting.default is None:
            default = "required"
        else:
            default = f"`{setting.default}`" if setting.default else "empty"
        description = setting.description.replace("|", r"\|")
        if setting.file_name is not None:
            description += f" From a file: `{setting.file_name}`."
        rows.append(f"| `{setting.name}` | {default} | {description} |")
    return "\n".join([*rows, ""])


def _default_of(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)


def main() -> None:
    """Write both files."""
    (ROOT / ".env.example").write_text(env_example())
    PAGE.write_text(reference_page())


if __name__ == "__main__":
    main()
