"""Options of the whole suite."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

# test_compiled_gate.py runs the gate's tests once more, on the packages it compiled.
if _COMPILED := os.environ.get("GATEHOUSE_TEST_COMPILED"):
    sys.path.insert(0, str(Path(_COMPILED).resolve()))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vectors",
        type=Path,
        help="folder with corpus.jsonl.gz and jwks.json, which then must be there "
        "(default: ../shared/vectors; tests/conformance/README.md)",
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


#: Files that wait longest: begun last, they would be waited for alone.
_LONG = (
    "tests/faults/",
    "tests/integration/test_make_up.py",
    "tests/integration/test_compiled_gate.py",
    "tests/fuzz/",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, in whatever order the rest is."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))


def pytest_collection_finish() -> None:
    """Take all that was imported for granted: a collection need not walk it each time."""
    gc.collect()
    gc.freeze()
