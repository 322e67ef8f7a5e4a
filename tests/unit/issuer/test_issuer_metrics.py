"""Every metric of the issuer is documented (R39)."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from issuer.metrics import IssuerMetrics

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


def test_every_metric_is_documented() -> None:
    rendered = IssuerMetrics().render().decode()
    names = {family.name for family in text_string_to_metric_families(rendered)}
    assert len(names) > 5
    text = DOCUMENT.read_text()
    missing = {n for n in names if f"`{n}`" not in text and f"`{n}_total`" not in text}
    assert missing == set()


def test_lost_log_lines_are_counted_once() -> None:
    metrics = IssuerMetrics()
    for total in (0, 3, 3, 5):
        metrics.dropped_lines(total)
    text = metrics.render().decode()
    assert "\ngatehouse_issuer_log_lines_dropped_total 5.0\n" in text
