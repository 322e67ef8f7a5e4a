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


#: The longest, in the order in which they begin: begun last, one alone would be waited
#: for. What computes stands between what waits for faults, so that neither processor
#: rests.
_LONG = (
    "tests/integration/shipped/test_image.py",
    "tests/integration/test_make_up.py",
    "tests/faults/test_database_faults.py",
    "tests/integration/shipped/test_issuer_unit.py",
    "tests/faults/test_issuer_moves.py",
    "tests/foreign/test_real_issuers.py",
    "tests/docs/test_commands.py",
    # Not among the first, so that the image's test has compiled the gate for it.
    "tests/integration/test_compiled_gate.py",
    "tests/docs/test_operations.py",
    "tests/integration/test_load_and_soak.py",
    "tests/monitoring/test_live_alerts.py",
    "tests/monitoring/test_rules.py",
    "tests/monitoring/test_traces.py",
    "tests/faults/",
    "tests/model/test_confirmation_exhaustive.py",
    "tests/integration/issuer/test_openapi.py",
    "tests/integration/shipped/",
    "tests/integration/issuer/test_workers.py",
    "tests/integration/verifier/test_grpc_workers.py",
    "tests/integration/issuer/test_bulk_revocation.py",
    "tests/integration/issuer/test_ways_out.py",
    "tests/integration/issuer/test_known_devices.py",
    "tests/integration/issuer/test_user_list.py",
    "tests/integration/issuer/test_personal_keys.py",
    "tests/integration/issuer/test_clients_api.py",
    "tests/integration/issuer/test_user_changes.py",
    "tests/integration/test_",
    "tests/fuzz/",
    "tests/browser/",
    "tests/foreign/",
)
#: Objects made, less those freed, between two looks of the cycle collector: far more
#: than Python's own 700, as a test makes thousands that are freed with it. A seventh of
#: the time of a test that composes an issuer was these looks.
_COLLECTED = (50_000, 20, 20)
#: Bytes of a parameter that name a test.
_NAMING = 40


@pytest.hookimpl(tryfirst=True)
def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name no test by long bytes.

    Encoded messages and tokens may differ from process to process, and processes that
    run side by side must find the same tests.
    """
    is_long = isinstance(val, bytes) and len(val) > _NAMING
    return argname if is_long else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Begin with the longest files, and keep the order of the rest."""
    proofs.lift_time_limits(config, items)
    items.sort(key=lambda item: _find_place(item.nodeid))


def _find_place(nodeid: str) -> int:
    """Return which of the longest a test belongs to, and for all others a number
    more.
    """
    places = (n for n, start in enumerate(_LONG) if nodeid.startswith(start))
    return next(places, len(_LONG))


def pytest_collection_finish() -> None:
    """Take all that was imported for granted: a collection need not walk it each
    time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED)
