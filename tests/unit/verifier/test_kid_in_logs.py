"""A token's `kid` is text of a stranger: it stands in no log unless it is ours
(R22).
"""

from __future__ import annotations

import logging

import pytest

from tests.support.gatehouse_verifier import started
from tests.support.tokens import signing_key


async def test_unknown_kid_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R22: neither by the request nor by the refresh that it asks for."""
    caplog.set_level(logging.DEBUG)
    verifier = await started()
    stranger = signing_key("unknown")
    assert verifier.check(verifier.issuer.mint(key=stranger)).status == 401
    assert verifier.last_reason() == "kid_unknown"
    await verifier.sync()
    logged = [str(vars(record)) for record in caplog.records]
    ours = verifier.issuer.keys[0]
    assert any(ours.kid in line for line in logged)
    assert not any(stranger.kid in line for line in logged)
