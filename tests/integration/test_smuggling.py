"""No port takes a request for another one than its sender wrote (R44, RFC 9112)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.smuggling import CASES
from tests.support.processes import ProcessFactory
from tests.support.smuggling import exchange, find_fault
from tests.support.stack import Stack

PORTS = ("issuer", "issuer_admin", "verifier", "verifier_admin")
#: Where the verifier's public port answers otherwise (decision 0022): it skips no empty
#: line, and what is no check is 404 before its form is looked at. Each is still one
#: answer and the end of the connection.
OTHERWISE = {
    "an empty line": [400],
    "authority form": [404],
    "tunnel to a path": [404],
    "other protocol": [404],
}

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
    otherwise = OTHERWISE if name == "verifier" else {}
    faults = [
        find_fault(port, case, pieces) for case in CASES if case.name not in otherwise
    ]
    assert [fault for fault in faults if fault] == []
    for case in CASES:
        if case.name in otherwise:
            wanted = (otherwise[case.name], True)
            assert exchange(port, case.sent, pieces) == wanted, case.name
