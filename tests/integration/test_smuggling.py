"""No port takes a request for another one than its sender wrote (R44, RFC 9112)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.smuggling import CASES
from tests.support.processes import ProcessFactory
from tests.support.smuggling import find_fault
from tests.support.stack import Stack

PORTS = ("issuer", "issuer_admin", "verifier_admin")

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("smuggling")
    factory = ProcessFactory(folder)
    try:
        yield Stack.start(folder, factory)
    finally:
        factory.stop_all()


@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize("pieces", [1, 7], ids=["one piece", "seven pieces"])
def test_what_readers_differ_about_is_refused(
    stack: Stack, name: str, pieces: int
) -> None:
    port = getattr(stack.addresses, name)
    faults = [find_fault(port, case, pieces) for case in CASES]
    assert [fault for fault in faults if fault] == []
