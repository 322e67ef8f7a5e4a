"""The fixture with which a folder's tests reach nothing outside their process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Block sockets; asyncio's own pair is a unix one.

    pytest-socket takes the block away before fixtures are undone. A test that had
    replaced `socket.getaddrinfo` would then put the block back, for the next test.
    """
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
