"""A rule that is called hidden matches nothing that an earlier rule leaves over."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.proofs import examples
from verifier.check.rules.rule import Hosts, Rule, RuleTree
from verifier.policies.warnings import hides

pytestmark = pytest.mark.proof

METHODS = ["GET", "PUT"]
HOSTS = ["a.t", "b.a.t", "c.b.a.t", "t"]
SEGMENTS = ["x", "y"]
PATHS = [p for length in range(4) for p in product([*SEGMENTS, "z"], repeat=length)]
PATTERNS = st.lists(st.sampled_from([*SEGMENTS, "*"]), max_size=2).flatmap(
    lambda parts: st.sampled_from([tuple(parts), (*parts, "**")])
)
SOME_HOSTS = st.builds(
    lambda exact, suffixes: Hosts(exact, tuple(sorted(suffixes))),
    st.frozensets(st.sampled_from(HOSTS), max_size=2),
    st.sets(st.sampled_from([".t", ".a.t", ".b.a.t"]), max_size=2),
).filter(lambda hosts: bool(hosts.exact or hosts.suffixes))
RULES = st.builds(
    Rule,
    PATTERNS,
    st.frozensets(st.sampled_from(METHODS)),
    st.one_of(st.none(), SOME_HOSTS),
)
REQUESTS = list(
    product([*METHODS, "DELETE"], [*HOSTS, "d.c.b.a.t", "e.t", "other"], PATHS)
)


@settings(deadline=None, max_examples=examples(300))
@given(RULES, RULES)
def test_hidden_means_that_nothing_is_left_over(earlier: Rule, later: Rule) -> None:
    """Both ways: what is left over is found among enough requests."""
    left_over = any(
        RuleTree([later]).find(*request) is later
        and RuleTree([earlier]).find(*request) is None
        for request in REQUESTS
    )
    if hides(earlier, later):
        assert not left_over
    elif not left_over:
        # Only together do several suffixes or hosts cover the later rule: that is
        # not looked for, so no warning is given.
        assert later.hosts is not None
        assert earlier.hosts is not None
