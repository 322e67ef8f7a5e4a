"""Where the foreign vectors are. They are read in place, never copied in."""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest


@cache
def read_corpus(folder: Path) -> list[dict[str, Any]]:
    """Return every case of the corpus with its key set under `keys`."""
    key_sets = json.loads((folder / "jwks.json").read_text("utf-8"))
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    return [case | {"keys": key_sets[case["jwks"]]} for case in cases]


@pytest.fixture(scope="session")
def corpus(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Every case; without the vectors a failure in CI, a named skip elsewhere."""
    folder: Path = request.config.getoption("--vectors")
    if not (folder / "corpus.jsonl.gz").is_file():
        message = f"no vectors in {folder}; give their folder with --vectors=PATH"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return read_corpus(folder)
