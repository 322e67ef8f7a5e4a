"""The runbook has a section for each alert, and says what to do."""

from __future__ import annotations

import re

from tests.support.monitoring import ROOT, read_alerts

ALERTS = read_alerts()
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def sections() -> dict[str, str]:
    """Return the runbook's text about each alert."""
    parts = re.split(r"^### (\w+)$", RUNBOOK, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert list(sections()) == sorted(sections())
    assert sections().keys() == ALERTS.keys()


def test_a_section_says_what_it_means_what_to_look_at_and_what_to_do() -> None:
    for name, text in sections().items():
        words = re.findall(r"^\*\*(\w+)\.\*\* ", text, re.M)
        assert words == ["Means", "Look", "Do"], name
        severity = re.match(r"\s*`(page|ticket)`", text)
        assert severity is not None, name
        assert severity[1] == ALERTS[name].severity, name
