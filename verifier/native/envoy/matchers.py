"""Envoy's generic matchers, and the filter that refuses what they do not let pass.

A tree looks a header up; what it finds may be another tree, a condition or an action.
Where nothing matches inside, Envoy goes on with what is set for no match.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from cel.expr.syntax_pb2 import Expr
from envoy.config.core.v3.extension_pb2 import (
    TypedExtensionConfig as ExtensionConfig,
)
from envoy.config.rbac.v3.rbac_pb2 import RBAC as Rules
from envoy.config.rbac.v3.rbac_pb2 import Action
from envoy.extensions.common.matching.v3.extension_matcher_pb2 import (
    ExtensionWithMatcher,
)
from envoy.extensions.filters.common.matcher.action.v3.skip_action_pb2 import (
    SkipFilter,
)
from envoy.extensions.filters.http.composite.v3.composite_pb2 import (
    ExecuteFilterAction,
)
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC
from envoy.type.matcher.v3.http_inputs_pb2 import HttpRequestHeaderMatchInput
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from xds.core.v3.extension_pb2 import TypedExtensionConfig
from xds.type.matcher.v3.cel_pb2 import CelMatcher
from xds.type.matcher.v3.domain_pb2 import ServerNameMatcher
from xds.type.matcher.v3.http_inputs_pb2 import HttpAttributesCelMatchInput
from xds.type.matcher.v3.matcher_pb2 import Matcher
from xds.type.matcher.v3.regex_pb2 import RegexMatcher
from xds.type.matcher.v3.string_pb2 import StringMatcher

from verifier.native.envoy import cel

#: `Matcher.OnMatch` and `Matcher.MatcherList.Predicate`; the messages have no types.
OnMatch: TypeAlias = Any
Predicate: TypeAlias = Any
_Predicate: Final = Matcher.MatcherList.Predicate
#: The pattern character of a tree of names, and the pattern of every value.
_STAR: Final = "*"


def guard(decision: OnMatch, refusal: OnMatch, revision: str) -> ExtensionWithMatcher:
    """Return the filter that lets pass what a decision lets pass, and nothing else.

    An RBAC filter that is skipped costs a request a third of one that allows it.

    Args:
        decision: leads to `SKIP` for what may pass; to anything else, or nowhere, for
            what is refused.
        refusal: leads to a `deny` for what is refused. What it does not match, RBAC
            refuses too.
        revision: makes this content another one than any before. It is an inert name.
    """
    refusing = AnyMessage()
    refusing.Pack(RBAC(matcher=decided(refusal)))
    return ExtensionWithMatcher(
        extension_config=ExtensionConfig(name=revision, typed_config=refusing),
        xds_matcher=decided(decision),
    )


def decided(on_match: OnMatch) -> Matcher:
    """Return the matcher that leads there in every case."""
    return Matcher(on_no_match=on_match)


def deny(name: str) -> OnMatch:
    """Return the action of RBAC that refuses a request; the name tells the answer."""
    return _action(Action(name=name, action=Rules.DENY))


def _refuse() -> OnMatch:
    """Return an action that is not `SKIP`, so the filter is run.

    Without one, Envoy would go on with what is set for no match. This is the only other
    action that it takes here. Only a composite filter acts on it.
    """
    nothing = AnyMessage()
    nothing.Pack(RBAC())
    config = ExtensionConfig(name="none", typed_config=nothing)
    return _action(ExecuteFilterAction(typed_config=config))


def first_of(
    conditions: Iterable[tuple[Predicate, OnMatch]], other: OnMatch
) -> OnMatch:
    """Return what the first condition that holds leads to, or the other one."""
    fields = [
        Matcher.MatcherList.FieldMatcher(predicate=predicate, on_match=on_match)
        for predicate, on_match in conditions
    ]
    return _nested(
        Matcher(matcher_list=Matcher.MatcherList(matchers=fields), on_no_match=other)
    )


def only_if(condition: Predicate, refusal: OnMatch) -> OnMatch:
    """Return what refuses unless the condition holds; then nothing matches in it."""
    field = Matcher.MatcherList.FieldMatcher(
        predicate=fails(condition), on_match=refusal
    )
    return _nested(Matcher(matcher_list=Matcher.MatcherList(matchers=[field])))


def tree(
    header: str, keys: Iterable[tuple[Iterable[str], OnMatch]], other: OnMatch
) -> OnMatch:
    """Return what the value of a header leads to, or the other one.

    Args:
        header: in lower case.
        keys: no key is there twice.
        other: for all other values, and where nothing matches behind a key.
    """
    exact = Matcher.MatcherTree.MatchMap()
    for group, on_match in keys:
        for key in group:
            exact.map[key].CopyFrom(on_match)
    return _on_header(header, other, exact_match_map=exact) if exact.map else other


def large_tree(
    header: str, keys: Iterable[tuple[Iterable[str], OnMatch]], other: OnMatch
) -> OnMatch:
    """Return what the value of a header leads to; without the header, a refusal.

    `ServerNameMatcher`, made for host names, compares exactly, and shares what many
    keys lead to: a key takes 1.5 us to load, and 8 us in `tree`. Envoy marks it as work
    in progress, and logs a warning for each (docs/decisions/0036-native-checks.md).

    Args:
        header: in lower case.
        keys: no key is there twice. Something matches behind each.
        other: for all other values.
    """
    names = ServerNameMatcher()
    patterns: list[tuple[Iterable[str], OnMatch]] = []
    for group, on_match in keys:
        plain = [key for key in group if _STAR not in key]
        if plain:
            names.domain_matchers.add(domains=plain, on_match=on_match)
        patterns.append(([key for key in group if _STAR in key], on_match))
    names.domain_matchers.add(domains=[_STAR], on_match=tree(header, patterns, other))
    custom = _typed("envoy.matching.custom_matchers.domain_matcher", names)
    return _on_header(header, REFUSE, custom_match=custom)


def beginnings(header: str, keys: Mapping[str, OnMatch], other: OnMatch) -> OnMatch:
    """Return what the longest of these beginnings of a header leads to."""
    prefixes = Matcher.MatcherTree.MatchMap()
    for key, on_match in keys.items():
        prefixes.map[key].CopyFrom(on_match)
    return _on_header(header, other, prefix_match_map=prefixes)


def fails(condition: Predicate) -> Predicate:
    """Return whether a condition does not hold."""
    return _Predicate(not_matcher=condition)


def begins(header: str, beginnings: Sequence[str]) -> Predicate:
    """Return whether a header is there, and begins with one of these."""
    return any_of([_value(header, StringMatcher(prefix=text)) for text in beginnings])


def is_exactly(header: str, text: str) -> Predicate:
    """Return whether a header is there, and is this text."""
    return _value(header, StringMatcher(exact=text))


def any_of(conditions: Sequence[Predicate]) -> Predicate:
    """Return whether one of the conditions holds; Envoy stops at the first."""
    if len(conditions) == 1:
        return conditions[0]
    return _Predicate(or_matcher=_Predicate.PredicateList(predicate=conditions))


def has_form(header: str, form: str) -> Predicate:
    """Return whether a header is there, and all of it is of this form (RE2)."""
    regex = RegexMatcher(regex=form, google_re2=RegexMatcher.GoogleRE2())
    return _value(header, StringMatcher(safe_regex=regex))


def holds(condition: Expr) -> Predicate:
    """Return whether a CEL expression is true; one that fails is not."""
    matcher = CelMatcher()
    matcher.expr_match.cel_expr_parsed.expr.CopyFrom(cel.numbered(condition))
    return _Predicate(
        single_predicate=_Predicate.SinglePredicate(
            input=_typed("cel_input", HttpAttributesCelMatchInput()),
            custom_match=_typed("envoy.matching.matchers.cel_matcher", matcher),
        )
    )


def _value(header: str, matcher: StringMatcher) -> Predicate:
    return _Predicate(
        single_predicate=_Predicate.SinglePredicate(
            input=_header_input(header), value_match=matcher
        )
    )


def _on_header(header: str, other: OnMatch, **keys: Message) -> OnMatch:
    matcher_tree = Matcher.MatcherTree(input=_header_input(header), **keys)
    return _nested(Matcher(matcher_tree=matcher_tree, on_no_match=other))


def _header_input(header: str) -> TypedExtensionConfig:
    return _typed("header", HttpRequestHeaderMatchInput(header_name=header))


def _action(action: Message) -> OnMatch:
    return Matcher.OnMatch(action=_typed("action", action))


def _nested(matcher: Matcher) -> OnMatch:
    return Matcher.OnMatch(matcher=matcher)


def _typed(name: str, message: Message) -> TypedExtensionConfig:
    packed = AnyMessage()
    packed.Pack(message)
    return TypedExtensionConfig(name=name, typed_config=packed)


#: The action that lets a request pass a `guard`.
SKIP: Final = _action(SkipFilter())
#: The action that does not.
REFUSE: Final = _refuse()
