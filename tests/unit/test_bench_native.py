"""The bench of native checks computes and prints; no server is started here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.bench.passes import PassOffice
from loadtests.bench_native import configs, haproxy_configs
from loadtests.bench_native.__main__ import GOALS, figures_of_costs, parser
from loadtests.bench_native.source import GrowingFeeds
from loadtests.bench_revocation.__main__ import table
from shared.feed import EntryKind, parse_page
from verifier.native.haproxy.directory import HaproxyDirectory


def test_the_ratio_is_the_median_of_those_within_a_turn() -> None:
    """A second in which the machine is slower costs both."""
    costs = {
        "native-many": [[12.0, 90.0, 24.0], [40.0, 80.0, 16.0], [11.0, 22.0, 33.0]],
        "jwt": [[10.0, 30.0, 20.0], [20.0, 40.0, 10.0], [10.0, 20.0, 30.0]],
    }
    found = {figure.name: figure.value for figure in figures_of_costs(costs)}
    name = "Envoy, native, many revocations / jwt_authn alone"
    assert found[name] == 1.2
    assert found[f"{name}, of the least"] == pytest.approx(1.1)


def test_every_bound_is_one_of_a_figure() -> None:
    names = {"native-many", "jwt", "ext-authz", "haproxy-native-many", "haproxy-jwt"}
    figures = figures_of_costs({name: [[10.0]] for name in names})
    held = {goal.measure for goal in GOALS if "/" in goal.measure}
    assert held <= {figure.name for figure in figures}
    assert table(figures, GOALS).count("MISSED") == 1  # 1.0 is more than 0.45


def test_peers_have_our_listener_and_none_of_our_filters(tmp_path: Path) -> None:
    office = PassOffice("http://issuer.example")
    path = configs.jwt_config(
        tmp_path, 1234, office.issuer, [office.jwk], is_bare=False
    )
    bare = configs.jwt_config(tmp_path, 1234, office.issuer, [office.jwk], is_bare=True)
    for text in (path.read_text(), bare.read_text()):
        config = json.loads(text)
        names = [each["name"] for each in configs._filters(config)]
        assert names == [
            "envoy.filters.http.header_mutation",
            "envoy.filters.http.jwt_authn",
            "gatehouse.identity",
            "envoy.filters.http.router",
        ]
        assert "x-gatehouse-jti" not in json.dumps(configs._filters(config)[1])


def test_haproxys_peer_has_our_rules_of_a_token_and_no_others(tmp_path: Path) -> None:
    office = PassOffice("http://issuer.example")
    rules, shipped = haproxy_configs.jwt_haproxy(
        tmp_path, 1234, office.issuer, [office.jwk]
    )
    text = rules.read_text()
    assert "jwt_verify(RS256,txn.gh_key)" in text
    for name in ("window.acl", "sessions.map", "tokens.map", "minimums.map"):
        assert name not in text
    # Each signature is looked at, every time.
    assert "gh_known" not in text
    assert "gpt0(" not in text
    # Each header of a token names a key that HAProxy has loaded.
    header, key = (tmp_path / "haproxy/headers.map").read_text().split()
    assert office.mint().startswith(f"{header}.")
    assert f"jwt_verify(RS256,{key})" in text
    assert "bind 127.0.0.1:1234\n" in shipped.read_text()


def test_forgetful_haproxy_has_all_rules_but_those_that_remember(
    tmp_path: Path,
) -> None:
    directory = HaproxyDirectory(tmp_path / "haproxy")
    directory.prepare([], {"default": configs.plain_terms("http://issuer.example")})
    written = directory.path / "gatehouse.cfg"
    before = written.read_text().splitlines()
    haproxy_configs.forget_signatures(tmp_path)
    after = written.read_text().splitlines()
    assert len(before) - len(after) == 4
    (verified,) = set(after) - set(before)
    assert verified.endswith(
        "unless { var(txn.gh_token),jwt_verify(RS256,txn.gh_key) eq 1 }"
    )


def test_the_feed_grows_and_has_entries_of_all_kinds() -> None:
    office = PassOffice("http://issuer.example")
    feeds = GrowingFeeds(office)
    feeds.add("f", 20)
    sid = feeds.add("f", 5)
    page = parse_page(feeds.answer("/feeds/f/revocations/snapshot").rstrip())
    assert (page.after, page.to, page.head) == (0, 25, 25)
    assert page.entries[-1].key == sid
    kinds = {entry.kind for entry in page.entries}
    assert kinds == {EntryKind.USER, EntryKind.JTI, EntryKind.SID}
    assert {e.minimum_generation > 0 for e in page.entries} == {True, False}
    later = parse_page(feeds.answer("/feeds/f/revocations?after=20&wait=5"))
    assert [entry.seq for entry in later.entries] == list(range(21, 26))


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--entries", "1000001"]])
def test_a_run_has_bounds(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(arguments)
