"""Writes `.env.example` and the README's settings table from the settings classes.

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
TABLE_BEGIN = "<!-- settings: written by python -m deploy.settings_reference -->"
TABLE_END = "<!-- settings end -->"

#: Examples of required settings. Secrets have none: generate-secrets makes them.
_EXAMPLES: Mapping[str, str] = {
    "ISSUER_URL": "https://auth.example.com",
    "ISSUER_AUDIENCE": "https://api.example.com",
    "VERIFIER_ISSUER_URL": "https://auth.example.com",
    "VERIFIER_AUDIENCE": "https://api.example.com",
}
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


def readme_table() -> str:
    """Return the README's settings table, markers included."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for program in (IssuerSettings, VerifierSettings):
        for setting in settings_of(program):
            if setting.default is None:
                default = "required"
            else:
                default = f"`{setting.default}`" if setting.default else "empty"
            description = setting.description.replace("|", r"\|")
            if setting.file_name is not None:
                description += f" From a file: `{setting.file_name}`."
            rows.append(f"| `{setting.name}` | {default} | {description} |")
    return "\n".join([TABLE_BEGIN, "", *rows, "", TABLE_END])


def with_table(readme: str) -> str:
    """Return the README's text with the present settings table in its place."""
    before, _, rest = readme.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    return before + readme_table() + after


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
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text()))


if __name__ == "__main__":
    main()
