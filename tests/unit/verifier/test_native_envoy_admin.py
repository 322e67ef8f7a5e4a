"""What Envoy's admin interface says of our filters, and when it proves one."""

from __future__ import annotations

import pytest

from verifier.native.envoy.admin import FilterState, _read_states

START = "extension_config_discovery.http_filter."


@pytest.mark.parametrize(
    ("state", "has"),
    [
        (FilterState("s-2", 2, 2), True),
        (FilterState("s-2", 3, 2), False),
        (FilterState("s-2", 2, 3), False),
        (FilterState("s-1", 2, 2), False),
        (FilterState("", 0, 0), False),
        (FilterState("other-2", 2, 2), False),
    ],
)
def test_all_workers_have_a_content_when_version_and_counters_say_so(
    state: FilterState, has: bool
) -> None:
    assert state.has("s-2") is has


def test_states_are_read_by_the_name_of_the_filter() -> None:
    states = _read_states(
        [
            {"name": f"{START}gatehouse.recent.version_text", "value": "s-2"},
            {"name": f"{START}gatehouse.recent.update_success", "value": 2},
            {"name": f"{START}gatehouse.recent.config_reload", "value": 1},
            {"name": f"{START}gatehouse.jwt.a.b.version_text", "value": "s-1"},
            {"name": "listener.other", "value": 5},
            {"histograms": {}},
        ]
    )
    assert states["gatehouse.recent"] == FilterState("s-2", 2, 1)
    # Without its counters nothing is proven.
    assert states["gatehouse.jwt.a.b"] == FilterState("s-1", 0, -1)
    assert not states["gatehouse.jwt.a.b"].has("s-1")
    assert set(states) == {"gatehouse.recent", "gatehouse.jwt.a.b"}
