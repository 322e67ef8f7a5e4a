"""Unit tests reach nothing outside their process."""

from __future__ import annotations

import pytest
from pytest_socket import disable_socket


@pytest.fixture(autouse=True)
def _no_network() -> None:
    """Block sockets; asyncio's own pair is a unix one. pytest-socket undoes it."""
    disable_socket(allow_unix_socket=True)
