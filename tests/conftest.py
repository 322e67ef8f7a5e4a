"""Options of the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest

#: Beside the project, not in it: the vectors are read in place.
_VECTORS = Path(__file__).parents[2] / "shared" / "vectors"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vectors",
        type=Path,
        default=_VECTORS,
        help="folder with corpus.jsonl.gz and jwks.json (default: ../shared/vectors)",
    )
    parser.addoption(
        "--mutations",
        type=int,
        default=5_000,
        help="how many mutated tokens the differential test tries (default: 5000)",
    )
    parser.addoption(
        "--api-examples",
        type=int,
        default=2,
        help="how many requests of each kind schemathesis makes per route (default: 2)",
    )
    parser.addoption(
        "--fault-scale",
        type=int,
        default=1,
        help="how many times as many trials the fault tests make (default: 1)",
    )
