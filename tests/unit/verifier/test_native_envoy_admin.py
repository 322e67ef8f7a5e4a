"""What Envoy's admin interface says of our filters."""

from __future__ import annotations

import pytest

from verifier.native.envoy.admin import FilterState, _counts_alone, _read_states

START = "extension_config_discovery.http_filter."


def test_states_are_read_by_the_name_of_the_filter() -> None:
    states = _read_states(
        {
            "stats": [
                {"name": f"{START}gatehouse.recent.version_text", "value": "s-2"},
                {"name": f"{START}gatehouse.recent.update_success", "value": 2},
                {"name": f"{START}gatehouse.recent.config_reload", "value": 1},
                {"name": f"{START}gatehouse.recent.update_rejected", "value": 3},
                {"name": f"{START}gatehouse.jwt.a.b.version_text", "value": "s-1"},
                {"name": "listener.other", "value": 5},
                {"histograms": {}},
            ]
        }
    )
    assert states["gatehouse.recent"] == FilterState("s-2", 2, 1, refused=3)
    # Without its counters nothing is proven.
    assert states["gatehouse.jwt.a.b"] == FilterState("s-1", 0, -1)
    assert set(states) == {"gatehouse.recent", "gatehouse.jwt.a.b"}


@pytest.mark.parametrize(
    ("epoch", "skips", "alone"),
    [(0, False, True), (0, True, True), (1, True, True), (1, False, False)],
)
def test_hot_restarted_envoy_counts_alone_if_it_is_started_so(
    epoch: int, skips: bool, alone: bool
) -> None:
    options = {"restart_epoch": epoch, "skip_hot_restart_parent_stats": skips}
    assert _counts_alone({"command_line_options": options}) is alone
