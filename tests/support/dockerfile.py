"""The Dockerfile as stages of instructions."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

Instruction = tuple[str, str]


def read_stages() -> dict[str, list[Instruction]]:
    """Return each stage's instructions, with `FROM` as its first."""
    text = (ROOT / "Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, list[Instruction]] = {}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            name = rest.split()[-1]
            stages[name] = []
        stages[name].append((word, rest.strip()))
    return stages


def base_of(stage: list[Instruction]) -> str:
    """Return the base of a stage: another stage's name or an image."""
    return stage[0][1].split()[0]


def context_rules() -> tuple[list[str], list[str]]:
    """Return what `.dockerignore` lets into the build, and what it leaves out of
    that.
    """
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    refused = [rule for rule in rules if rule[0] not in "!" and rule != "*"]
    return allowed, refused
