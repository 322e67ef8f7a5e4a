"""The queries of rules and dashboard name what the programs show."""

from __future__ import annotations

import re

from tests.support.monitoring import (
    ROOT,
    documented,
    queries,
    read_panels,
    read_recorded,
    render,
    rendered_labels,
)

PAGE = (ROOT / "docs" / "metrics.md").read_text()
#: Prometheus' own, and the blackbox exporter's; with what a scrape adds to each series.
OTHERS = {"up": set[str](), "probe_success": set[str]()}
ADDED = {"job", "instance"}
#: Words of PromQL. Any other word is a metric or a label.
PROMQL = """
absent and by changes clamp_min count group_left group_right histogram_quantile increase
max max_over_time min min_over_time on or rate sum time topk
"""
WORDS = frozenset(PROMQL.split())
#: A selector: a name, and its matchers if there are any.
_SELECTOR = re.compile(r"([A-Za-z_:][\w:]*)\s*(?:\{([^}]*)\})?")
_LISTED = re.compile(r"\b(?:by|on|group_left|group_right)\s*\(([^)]*)\)")


def labels_of(selector: str) -> set[str]:
    """Return the labels that the matchers of a selector name."""
    return set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', selector))


async def known() -> dict[str, set[str]]:
    """Return the labels of each series that documents, programs and rules have."""
    series = {name: {*labels} for name, labels in OTHERS.items()}
    series |= documented(PAGE)
    for text in (await render()).values():
        for name, labels in rendered_labels(text).items():
            series.setdefault(name, set()).update(labels)
    for name in list(series):
        # A histogram without observations may have no series yet.
        for suffix in ("_bucket", "_count", "_sum"):
            if name.endswith("_seconds"):
                more = {"le"} if suffix == "_bucket" else set()
                series.setdefault(name + suffix, series[name] | more)
    for name, expr in read_recorded().items():
        series[name] = {
            label for listed in _LISTED.findall(expr) for label in words(listed)
        }
    return series


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def unknown_in(query: str, series: dict[str, set[str]]) -> set[str]:
    """Return the metrics and labels of a query that nothing has."""
    listed = {label for part in _LISTED.findall(query) for label in words(part)}
    plain = re.sub(r"\[[^]]*\]", "", _LISTED.sub("", query))
    unknown = set()
    named = set()
    for name, matchers in _SELECTOR.findall(plain):
        if name in WORDS and not matchers:
            continue
        if name not in series:
            unknown.add(name)
            continue
        has = series[name] | ADDED
        named |= has
        unknown |= {f"{name}{{{label}}}" for label in labels_of(matchers) - has}
    return unknown | (listed - named)


async def test_queries_name_metrics_and_labels_that_exist() -> None:
    series = await known()
    found = {place: unknown_in(query, series) for place, query in queries().items()}
    assert len(found) > 100
    assert {place: unknown for place, unknown in found.items() if unknown} == {}


async def test_what_does_not_exist_is_found() -> None:
    series = await known()
    assert unknown_in("rate(gatehouse_issuer_logins[5m])", series) == {
        "gatehouse_issuer_logins"
    }
    assert unknown_in('gatehouse_issuer_logins_total{result="x"}', series) == {
        "gatehouse_issuer_logins_total{result}"
    }
    assert unknown_in("sum by (place) (up)", series) == {"place"}


def test_every_panel_has_a_query_and_every_program_has_panels() -> None:
    panels = read_panels()
    assert len(panels) > 10
    assert all(panels.values())
    text = str(panels)
    assert "gatehouse_issuer_" in text
    assert "gatehouse_verifier_" in text


def test_every_metric_of_native_gateways_has_a_panel() -> None:
    wanted = {name for name in documented(PAGE) if "_native_" in name}
    assert len(wanted) > 3
    text = str(read_panels())
    assert {name for name in wanted if name not in text} == set()
