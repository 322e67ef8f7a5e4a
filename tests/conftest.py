"""Options of the whole suite."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from tests.support import proofs
from tests.support.log_fields import show_fields

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
    proofs.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    proofs.configure(config)


def pytest_sessionstart(session: pytest.Session) -> None:
    show_fields(session.config)


@pytest.fixture(scope="session")
def proof_scale(request: pytest.FixtureRequest) -> int:
    """How many times its share in `make test` a long proof is made."""
    return proofs.read_scale(request.config)


#: Files that wait longest: begun last, they would be waited for alone.
_LONG = (
    "tests/faults/",
    "tests/integration/test_make_up.py",
    "tests/integration/test_compiled_gate.py",
    "tests/integration/shipped/",
    "tests/fuzz/",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Begin with the longest files, in whatever order the rest is."""
    proofs.lift_time_limits(config, items)
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))


def pytest_collection_finish() -> None:
    """Take all that was imported for granted: a collection need not walk it each time."""
    gc.collect()
    gc.freeze()
