"""The filters as Envoy gets them: which keys, forms and names are in them."""

from __future__ import annotations

import re
from collections.abc import Callable
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

from shared.token_form import encode_beginning, encode_header
from tests.support.tokens import AUDIENCE, ISSUER, signing_key
from verifier.check.policy import Policy, TokenPolicy
from verifier.check.rules.requirements import Requirements
from verifier.native.envoy import matchers, token_filters
from verifier.native.envoy.names import (
    IDENTITY,
    INTERNAL,
    NOW_HEADER,
    PAYLOAD_KEY,
)
from verifier.native.envoy.revocation_filters import (
    SMALL,
    Group,
    revocation_filter,
)
from verifier.native.terms import NativeTerms, native_terms
from verifier.native.window import CLOSED, Window

KEYS = [signing_key().jwk, signing_key("second").jwk]
SESSION = "x-auth-session"


def terms(**asked: Any) -> NativeTerms:
    token = TokenPolicy.own(ISSUER, AUDIENCE)
    return native_terms(Policy("p", token, requirements=Requirements(**asked)))


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


def test_beginnings_of_the_keys_tokens_are_the_only_ones_that_lead_on() -> None:
    made = token_filters.requirements_filter(terms(), KEYS, "r")
    claims = encode_beginning(ISSUER, AUDIENCE)
    wanted = {f"Bearer {encode_header(key.kid)}.{claims}" for key in KEYS}
    deciding, refusing = made.xds_matcher.on_no_match, refusal(made).matcher.on_no_match
    for found, other in ((deciding, "refuse"), (refusing, "gatehouse_unsound")):
        tree = found.matcher.matcher_tree
        assert tree.prefix_match_map.map.keys() == wanted
        assert outcome(found.matcher.on_no_match) == other


def test_what_is_refused_without_a_reason_is_refused_by_rbac() -> None:
    """RBAC refuses what it does not match, and here nothing leads to an allowance."""
    asked = terms(required_scopes=frozenset({"a"}))
    for made in (
        token_filters.requirements_filter(asked, KEYS, "r"),
        revocation_filter([Group(SESSION, 1, ["s"])], Window(1, 9, 0.0), "r"),
        revocation_filter([], None, "r"),
    ):
        assert b"SkipFilter" in made.SerializeToString()
        inner = refusal(made).SerializeToString()
        assert b"gatehouse_" in inner
        assert b"SkipFilter" not in inner
        assert b"gatehouse_passed" not in inner
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
        partial(token_filters.requirements_filter, terms(), KEYS),
        partial(revocation_filter, [], None),
        partial(revocation_filter, [], CLOSED),
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


def matched(filter_: ExtensionWithMatcher, header: str, value: str) -> str:
    """Return what the tree of a header does with a value: a walk by hand."""
    matcher = filter_.xds_matcher
    while True:
        tree = matcher.matcher_tree
        is_asked = header.encode() in tree.input.typed_config.value
        if is_asked and value in tree.exact_match_map.map:
            return outcome(tree.exact_match_map.map[value])
        if is_asked and value.encode() in tree.custom_match.typed_config.value:
            return "domain"
        if not matcher.on_no_match.HasField("matcher"):
            return ""
        matcher = matcher.on_no_match.matcher


@pytest.mark.parametrize(("count", "form"), [(1, "refuse"), (SMALL, "domain")])
def test_large_tree_has_plain_keys_and_a_small_one_the_patterns(
    count: int, form: str
) -> None:
    """A star matches everything in the large form, and is a character in the other."""
    keys = [f"plain-{n}" for n in range(count)]
    group = Group(SESSION, 0, [*keys, "*", "a*b", "*.x"])
    made = revocation_filter([group], None, "r")
    assert matched(made, SESSION, keys[-1]) == form
    for key in ("*", "a*b", "*.x"):
        assert matched(made, SESSION, key) == "refuse"


def test_window_is_every_second_of_it() -> None:
    made = revocation_filter([], Window(100, 103, 0.0), "r")
    for second in ("100", "101", "102"):
        assert matched(made, NOW_HEADER, second) == "pass"
    for second in ("99", "103", "1000"):
        assert matched(made, NOW_HEADER, second) == ""


def test_closed_window_lets_nothing_pass() -> None:
    made = revocation_filter([Group(SESSION, 0, ["s"])], CLOSED, "r")
    assert b"SkipFilter" not in made.SerializeToString()
    matcher = made.xds_matcher
    while matcher.on_no_match.HasField("matcher"):
        matcher = matcher.on_no_match.matcher
    assert outcome(matcher.on_no_match) == "refuse"


def test_no_keys_are_no_tree() -> None:
    other = matchers.SKIP
    assert matchers.tree("h", [], other) is other
    assert matchers.large_tree("h", [([], matchers.REFUSE)], other) is other
