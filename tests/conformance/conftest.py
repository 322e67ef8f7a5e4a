"""Where the foreign vectors are. They are read in place, never copied in."""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.vectors import CORPUS, DEFAULT, PAPERS, why_required


@cache
def read_corpus(folder: Path) -> list[dict[str, Any]]:
    """Return every case of the corpus with its key set under `keys`."""
    key_sets = json.loads((folder / "jwks.json").read_text("utf-8"))
    with gzip.open(folder / CORPUS, "rt", encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    return [case | {"keys": key_sets[case["jwks"]]} for case in cases]


@pytest.fixture(scope="session")
def corpus(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Every case; without the vectors a named skip, or a failure where they are
    expected.
    """
    named: Path | None = request.config.getoption("--vectors")
    folder = named or DEFAULT
    if not (folder / CORPUS).is_file():
        message = f"no vectors in {folder}; give their folder with --vectors=PATH"
        if reason := why_required(named, os.environ, PAPERS):
            pytest.fail(f"{message}; they are required: {reason}")
        pytest.skip(message)
    return read_corpus(folder)
