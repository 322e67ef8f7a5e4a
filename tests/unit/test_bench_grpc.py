"""The bench of gRPC computes and prints; no server is started here."""

from __future__ import annotations

import pytest
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest

from loadtests.bench_grpc.__main__ import TITLES, Costs, parser, ratio, table
from loadtests.bench_grpc.load import check_of
from verifier.wire.grpc.questions import read_check


def costs(ours: list[float], empty: list[float]) -> Costs:
    return dict.fromkeys(TITLES, empty) | {"verifier": ours, "empty": empty}


def test_the_ratio_is_the_median_of_those_within_a_round() -> None:
    """A minute in which the machine is slower costs both."""
    assert ratio(costs([120.0, 400.0, 110.0], [100.0, 200.0, 100.0])) == 1.2


@pytest.mark.parametrize(
    ("ours", "words"),
    [(130.0, "1.30 (<= 1.3: kept)"), (131.0, "1.31 (<= 1.3: missed)")],
)
def test_the_table_says_whether_the_bound_is_kept(ours: float, words: str) -> None:
    text = table(costs([ours], [100.0]))
    assert text.splitlines()[-1].endswith(words)
    assert "131 (131 to 131)" in text or ours == 130.0


def test_what_is_asked_is_a_check_as_envoy_writes_it() -> None:
    message = check_of("a.b.c")
    assert read_check(message).target == b"/verify/envoy/p/default/orders/7?x=1"
    assert CheckRequest.FromString(message).attributes.source.address


@pytest.mark.parametrize(
    "arguments", [["--rounds", "0"], ["--rounds", "26"], ["--calls", "100001"]]
)
def test_a_run_has_bounds(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(arguments)
