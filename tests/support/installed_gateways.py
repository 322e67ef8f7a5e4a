"""Requires a gateway's program: in CI every one must be there."""

from __future__ import annotations

import os

import pytest

from deploy.gateway_programs import registry


def require(name: str) -> None:
    """Go on if the gateway is installed; otherwise fail in CI, and skip elsewhere."""
    if registry.find_binary(name) is not None:
        return
    message = f"{name} is not installed: {registry.PROGRAMS[name].how_to_install}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{message}; in CI every gateway must be there")
    pytest.skip(message)
