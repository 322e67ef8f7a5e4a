"""Property tests reach nothing outside their process."""

from __future__ import annotations

from tests.support.network_block import no_network

__all__ = ["no_network"]
