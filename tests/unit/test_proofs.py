"""One option sets the share of each long proof, and failures show log fields."""

from __future__ import annotations

import logging

import pytest
from hypothesis import settings

from shared import log
from tests.support import proofs

_logger = logging.getLogger(__name__)


def test_examples_are_the_share_times_the_scale(proof_scale: int) -> None:
    assert proofs.examples(60) == 60 * proof_scale
    assert proofs.is_whole() is (proof_scale > 1)
    whole = settings(max_examples=2_000)
    settings.register_profile("whole", whole)
    try:
        settings.load_profile("whole")
        assert proofs.examples(60) == 1_200
        assert proofs.is_whole()
    finally:
        settings.load_profile("proofs")


def test_a_captured_event_is_shown_with_its_fields(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = request.config.pluginmanager.get_plugin("logging-plugin")
    assert plugin is not None
    log.event(_logger, logging.WARNING, "thing.refused", reason="too old")
    _logger.warning("nothing %s", "more")
    shown = plugin.report_handler.stream.getvalue()
    assert "thing.refused {'reason': 'too old'}\n" in shown
    assert shown.endswith("nothing more\n")
    assert "too old" not in caplog.text
