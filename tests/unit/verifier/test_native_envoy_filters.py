"""The filters as Envoy gets them: which keys, forms and names are in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from envoy.config.rbac.v3.rbac_pb2 import RBAC as Rules
from envoy.config.rbac.v3.rbac_pb2 import Action
from envoy.extensions.common.matching.v3.extension_matcher_pb2 import (
    ExtensionWithMatcher,
)
from envoy.extensions.filters.http.jwt_authn.v3.config_pb2 import JwtAuthentication
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from xds.type.matcher.v3.domain_pb2 import ServerNameMatcher

from shared.token_form import encode_beginning, encode_header
from tests.support.tokens import AUDIENCE, ISSUER, signing_key
from verifier.check.claims import Scalar
from verifier.check.policy import Policy, TokenPolicy
from verifier.check.rules.requirements import Requirements
from verifier.native.envoy import matchers, revocation_filters, token_filters
from verifier.native.envoy.limits import MAX_VALUES
from verifier.native.envoy.names import (
    IDENTITY,
    INTERNAL,
    JTI_HEADER,
    NOW_HEADER,
    PAYLOAD_KEY,
    STALE_NAME,
)
from verifier.native.envoy.revocation_filters import (
    Group,
    recent_filter,
    settled_filter,
)
from verifier.native.gateways import ENVOY, check_kind
from verifier.native.terms import InexpressibleError, NativeTerms, native_terms
from verifier.native.window import CLOSED, Window

KEYS = [signing_key().jwk, signing_key("second").jwk]
SESSION = "x-auth-session"
OPEN = Window(100, 103, 0.0)


def terms(**asked: Any) -> NativeTerms:
    token = TokenPolicy.own(ISSUER, AUDIENCE)
    return native_terms(Policy("p", token, requirements=Requirements(**asked)))


def recent(
    *groups: Group, window: Window = OPEN, revision: str = "r", **asked: Any
) -> ExtensionWithMatcher:
    return recent_filter(terms(**asked), KEYS, groups, window, revision)


def provider(filter_: JwtAuthentication) -> dict[str, Any]:
    (found,) = MessageToDict(filter_)["providers"].values()
    assert isinstance(found, dict)
    return found


def test_token_is_read_from_one_place_with_all_checks_on() -> None:
    """R13, R18: no query, no cookie; exp is required; the leeway is one second less."""
    found = provider(token_filters.jwt_filter(terms(), KEYS, "r"))
    assert found["fromHeaders"] == [{"name": "authorization", "valuePrefix": "Bearer "}]
    assert "fromParams" not in found
    assert "fromCookies" not in found
    assert (found["issuer"], found["audiences"]) == (ISSUER, [AUDIENCE])
    assert found["requireExpiration"] is True
    assert found["clockSkewSeconds"] == 4
    assert found["maxLifetime"] == "3605s"
    assert all(key.kid in found["localJwks"]["inlineString"] for key in KEYS)


def test_every_claim_that_is_compared_has_a_header() -> None:
    found = provider(token_filters.jwt_filter(terms(), KEYS, "r"))
    pairs = {c["headerName"]: c["claimName"] for c in found["claimToHeaders"]}
    assert pairs == IDENTITY | INTERNAL


@pytest.mark.parametrize(
    ("asked", "is_read"),
    [
        ({}, False),
        ({"required_scopes": frozenset({"a"})}, False),
        ({"client_ids": frozenset({"a"})}, False),
        ({"required_roles": frozenset({"a"})}, True),
        ({"claims": ((("t",), ("x",)),)}, True),
    ],
)
def test_payload_is_read_only_where_it_is_needed(
    asked: dict[str, Any], is_read: bool
) -> None:
    found = provider(token_filters.jwt_filter(terms(**asked), KEYS, "r"))
    assert (found.get("payloadInMetadata") == PAYLOAD_KEY) is is_read


def test_only_the_beginnings_of_the_keys_tokens_lead_on() -> None:
    made = recent()
    claims = encode_beginning(ISSUER, AUDIENCE)
    wanted = {f"Bearer {encode_header(key.kid)}.{claims}" for key in KEYS}
    deciding, refusing = made.xds_matcher.on_no_match, refusal(made).matcher.on_no_match
    for found, other in ((deciding, "refuse"), (refusing, "gatehouse_unsound")):
        (behind,) = found.matcher.matcher_tree.prefix_match_map.map.values()
        first = behind.matcher.matcher_list.matchers[0]
        each = first.predicate.not_matcher.or_matcher.predicate
        assert {p.single_predicate.value_match.prefix for p in each} == wanted
        for p in each:
            assert b"authorization" in p.single_predicate.input.typed_config.value
        assert outcome(first.on_match) == other
        assert outcome(found.matcher.on_no_match) == other


def test_content_grows_by_each_of_its_parts_and_not_by_their_product() -> None:
    """Behind each key of a tree is a copy of what it leads to. With the newest entries
    behind the seconds of the window, Envoy took three seconds to build a filter.
    """

    def size(count: int, seconds: int, keys: int) -> int:
        groups = [Group(SESSION, 0, [f"sid-{n:04}" for n in range(count)])]
        window = Window(1_000, 1_000 + seconds, 0.0)
        made = recent_filter(terms(), KEYS[:1] * keys, groups, window, "r")
        return len(made.SerializeToString())

    least = size(1, 1, 1)
    apart = size(150, 1, 1) + size(1, 60, 1) + size(1, 1, 9) - 2 * least
    assert size(150, 60, 9) < 1.1 * apart


def test_what_is_refused_without_a_reason_is_refused_by_rbac() -> None:
    """RBAC refuses what it does not match, and here nothing leads to an allowance."""
    asked = frozenset({"a"})
    for made in (
        recent(Group(SESSION, 0, ["s"]), required_scopes=asked),
        settled_filter([Group("x-auth-subject", 1, ["s"])], "r"),
    ):
        assert b"SkipFilter" in made.SerializeToString()
        inner = refusal(made).SerializeToString()
        assert b"gatehouse_" in inner
        assert b"SkipFilter" not in inner
        assert not refusal(made).HasField("rules")


@pytest.mark.parametrize(
    ("scopes", "text", "has"),
    [
        (["a"], "a", True),
        (["a"], "b a c", True),
        (["a"], "ab", False),
        (["a.b"], "axb", False),
        (["a", "b"], "x b", True),
        (["a|b"], "a", False),
        (["(", "["], "x [", True),
        (["a"], "", False),
        (["a"], "a\nb", False),
    ],
)
def test_scopes_are_words_and_no_patterns(
    scopes: list[str], text: str, has: bool
) -> None:
    form = token_filters._containing(scopes)
    assert bool(re.fullmatch(form, text)) is has


@pytest.mark.parametrize(
    "make",
    [
        partial(token_filters.jwt_filter, terms(), KEYS),
        partial(recent_filter, terms(), KEYS, [], OPEN),
        partial(recent_filter, terms(), [], [], CLOSED),
        partial(settled_filter, []),
    ],
)
def test_each_content_is_another_one(make: Callable[[str], Message]) -> None:
    """Envoy counts no update for the same content, so none would be proven."""
    one, other = (make(r).SerializeToString(deterministic=True) for r in "12")
    assert one != other


def refusal(made: ExtensionWithMatcher) -> RBAC:
    """Return the filter that is run where the other one is not skipped."""
    found = RBAC()
    assert made.extension_config.typed_config.Unpack(found)
    return found


def outcome(on_match: Any) -> str:
    """Return what an action does: the name by which RBAC refuses; empty for none."""
    packed = on_match.action.typed_config
    if packed.type_url.endswith(".SkipFilter"):
        return "pass"
    action = Action()
    if packed.Unpack(action):
        assert action.action == Rules.DENY
        return str(action.name)
    return "refuse" if packed.type_url else ""


def outcomes(message: Any, header: str, value: str) -> Iterator[str]:
    """Yield what each tree of a header does with a value: a walk by hand.

    Args:
        message: a matcher.
        header: that the tree looks up.
        value: of the header.
    """
    tree = message.matcher_tree
    following = [message.on_no_match]
    exact, prefixes = tree.exact_match_map.map, tree.prefix_match_map.map
    custom = ServerNameMatcher()
    tree.custom_match.typed_config.Unpack(custom)
    if header.encode() in tree.input.typed_config.value:
        domains = {d: m.on_match for m in custom.domain_matchers for d in m.domains}
        begun = [on for key, on in prefixes.items() if key and value.startswith(key)]
        found = exact.get(value) or domains.get(value) or domains.get("*")
        found = found or next(iter(begun), None)
        yield outcome(found or message.on_no_match)
    # Protobuf makes a value for each key that is asked for.
    following += [exact[key] for key in list(exact)[:1]]
    following += [prefixes[key] for key in list(prefixes)[:1]]
    following += [m.on_match for m in custom.domain_matchers if "*" in m.domains]
    for on_match in following:
        if on_match.HasField("matcher"):
            yield from outcomes(on_match.matcher, header, value)


def matched(made: ExtensionWithMatcher, header: str, value: str) -> set[str]:
    return set(outcomes(made.xds_matcher, header, value)) - {""}


def test_settled_tree_compares_stars_as_characters() -> None:
    """There a star alone stands for everything, and begins the name of a domain."""
    keys = ["plain-0", "*", "a*b", "*.x"]
    made = settled_filter([Group(SESSION, 0, keys)], "r")
    for key in keys:
        assert "refuse" in matched(made, SESSION, key)
    assert matched(made, SESSION, "c.x") == set()
    (domains,) = (m.domains for m in session_names(made) if "plain-0" in m.domains)
    assert list(domains) == ["plain-0"]


def session_names(made: ExtensionWithMatcher) -> Any:
    """Return what the tree of sessions, the first one, has."""
    found = ServerNameMatcher()
    tree = made.xds_matcher.on_no_match.matcher.matcher_tree
    assert SESSION.encode() in tree.input.typed_config.value
    assert tree.custom_match.typed_config.Unpack(found)
    return found.domain_matchers


@pytest.mark.parametrize("header", [SESSION, "x-auth-subject", JTI_HEADER])
def test_settled_filter_refuses_where_a_header_is_missing(header: str) -> None:
    """R18: such a token could not be revoked."""
    matcher = settled_filter([], "r").xds_matcher.on_no_match.matcher
    while header.encode() not in matcher.matcher_tree.input.typed_config.value:
        names = ServerNameMatcher()
        matcher.matcher_tree.custom_match.typed_config.Unpack(names)
        (every,) = names.domain_matchers
        assert list(every.domains) == ["*"]
        matcher = every.on_match.matcher
    assert outcome(matcher.on_no_match) == "refuse"


@given(st.integers(1_000, 9_999), st.integers(0, 3_000), st.integers(1_000, 9_999))
def test_beginnings_are_those_of_the_numbers_and_no_others(
    start: int, length: int, number: int
) -> None:
    end = min(start + length, 10_000)
    found = revocation_filters.decimal_beginnings(start, end)
    is_begun = any(str(number).startswith(digits) for digits in found)
    assert is_begun is (start <= number < end)
    assert len(found) <= 60


def test_longest_window_has_few_beginnings() -> None:
    start = 1_795_000_001
    assert len(revocation_filters.decimal_beginnings(start, start + 3_700)) <= 60


def test_window_is_every_second_of_it() -> None:
    for second in ("100", "101", "102"):
        assert matched(recent(), NOW_HEADER, second) == {"pass"}
    for second in ("099", "103", "999"):
        assert matched(recent(), NOW_HEADER, second) == {"refuse"}


def test_closed_window_lets_nothing_pass() -> None:
    made = recent(Group(SESSION, 0, ["s"]), window=CLOSED)
    assert b"SkipFilter" not in made.SerializeToString()
    assert outcome(made.xds_matcher.on_no_match) == "refuse"
    assert outcome(refusal(made).matcher.on_no_match) == STALE_NAME


def test_policy_with_many_roles_and_values_can_be_read_by_envoy() -> None:
    """Protobuf reads no message that is nested a hundred times."""
    roles = frozenset(f"role-{n}" for n in range(2_000))
    values = tuple(f"value-{n}" for n in range(2_000))
    made = recent(required_roles=roles, claims=((("a", "b", "c"), values),))
    assert ExtensionWithMatcher.FromString(made.SerializeToString()) == made
    assert refusal(made).HasField("matcher")


@pytest.mark.parametrize("value", [2**53 - 1, 1 - 2**53, True, "text"])
def test_values_that_envoy_compares_as_we_do_are_taken(value: Scalar) -> None:
    check_kind(ENVOY, {"p": terms(claims=((("level",), (1, value)),))})


# 2^53 is the first double that is two whole numbers.
@pytest.mark.parametrize("value", [2**53, -(2**53), -(10**400)])
def test_numbers_that_envoy_takes_for_others_are_refused(value: int) -> None:
    asked = terms(claims=((("realm", "level"), (1, value)),))
    with pytest.raises(InexpressibleError, match=r"policy p: .* realm\.level: "):
        check_kind(ENVOY, {"p": asked})


def test_policy_with_more_values_than_fit_is_refused() -> None:
    """Each is a condition that is built and sent with every revocation."""
    roles = tuple(f"role-{n}" for n in range(MAX_VALUES // 2))
    check_kind(ENVOY, {"p": terms(required_roles=roles, claims=((("a",), roles),))})
    for asked in (
        terms(required_roles=(*roles, "more"), claims=((("a",), roles),)),
        terms(claims=((("a",), roles), (("b",), (*roles, 1)))),
    ):
        with pytest.raises(InexpressibleError, match=f"p: .*claims: {MAX_VALUES + 1} "):
            check_kind(ENVOY, {"p": asked})


@pytest.mark.parametrize(("first", "second"), [(1, True), (True, 1)])
def test_one_and_true_are_different_conditions(first: Scalar, second: Scalar) -> None:
    """They are equal in Python, and conditions are kept."""
    before, after = (recent(claims=((("v",), (v,)),)) for v in (first, second))
    assert before != after


def test_no_keys_are_no_tree() -> None:
    assert matchers.tree("h", [], matchers.SKIP) is matchers.SKIP
