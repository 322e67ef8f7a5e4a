"""The RBAC filters that refuse revoked tokens, and every token outside the window.

The keys are in trees that Envoy looks up by hash. `ServerNameMatcher`, made for host
names, compares exactly and shares one action between all keys: an entry takes 1.5 us to
load, with a map of actions 8 us (docs/decisions/0036-native-enforcement.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from cel.expr.syntax_pb2 import Expr
from envoy.config.rbac.v3.rbac_pb2 import RBAC as Rules
from envoy.config.rbac.v3.rbac_pb2 import Action
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC
from envoy.type.matcher.v3.http_inputs_pb2 import HttpRequestHeaderMatchInput
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from xds.core.v3.extension_pb2 import TypedExtensionConfig
from xds.type.matcher.v3.cel_pb2 import CelMatcher
from xds.type.matcher.v3.domain_pb2 import ServerNameMatcher
from xds.type.matcher.v3.http_inputs_pb2 import HttpAttributesCelMatchInput
from xds.type.matcher.v3.matcher_pb2 import Matcher

from shared.feed import GENERATION_KINDS, EntryKind
from verifier.native.entries import LiveEntry
from verifier.native.envoy import cel
from verifier.native.envoy.names import (
    JWT_NAMESPACE,
    PAYLOAD_KEY,
    REVOKED_NAME,
    STALE_NAME,
)
from verifier.native.window import Window

#: What no key of an entry is: it has a space. It makes each content another one.
_INERT: Final = "content "
#: The header that each kind's key is compared with.
_HEADERS: Final = {
    EntryKind.SID: "x-auth-session",
    EntryKind.JTI: "x-gatehouse-jti",
    EntryKind.USER: "x-auth-subject",
    EntryKind.CLIENT: "x-auth-client",
}
#: Generations above are compared as this one: a double holds no more exactly.
_MAX_GENERATION: Final = 1 << 53


class Group(NamedTuple):
    """Keys that are refused alike.

    Attributes:
        kind: what the keys name; not `kid`.
        minimum_generation: the least `gen` still accepted; 0 for `sid` and `jti`.
        keys: distinct.
    """

    kind: EntryKind
    minimum_generation: int
    keys: list[str]


class Grouping:
    """Puts entries in groups; the last one for a key counts.

    Signing keys are left out: they are taken out of the keys that Envoy has.
    """

    def __init__(self) -> None:
        self._last: dict[EntryKind, dict[str, int]] = {kind: {} for kind in _HEADERS}

    def add(self, entries: Iterable[LiveEntry]) -> None:
        """Add entries, newer ones than before."""
        for kind, key, generation in entries:
            known = self._last.get(kind)
            if known is not None:
                known[key] = min(generation, _MAX_GENERATION)

    def groups(self) -> list[Group]:
        """Return the groups; no key of a kind is there twice."""
        found: dict[tuple[EntryKind, int], list[str]] = {}
        for kind, keys in self._last.items():
            if kind not in GENERATION_KINDS:
                if keys:
                    found[kind, 0] = list(keys)
                continue
            for key, generation in keys.items():
                found.setdefault((kind, generation), []).append(key)
        return [Group(kind, least, keys) for (kind, least), keys in found.items()]


def revocation_filter(
    groups: Sequence[Group], window: Window | None, revision: str
) -> RBAC:
    """Return the filter that refuses the tokens that these groups revoke.

    Args:
        groups: what is revoked.
        window: outside of it everything is refused; None: of another filter.
        revision: makes this content another one than any before.
    """
    inert = Group(EntryKind.SID, 0, [_INERT + revision])
    by_kind: dict[EntryKind, list[Group]] = {kind: [] for kind in _HEADERS}
    for group in (inert, *groups):
        by_kind[group.kind].append(group)
    # Built from its end: a tree without a match goes on with the next one.
    next_one = _action("gatehouse_passed", Rules.ALLOW)
    for kind, of_kind in reversed(by_kind.items()):
        if of_kind:
            next_one = _nested(_tree(kind, of_kind, next_one))
    if window is not None:
        next_one = _nested(_only_within(window, next_one))
    return RBAC(matcher=next_one.matcher)


def _only_within(window: Window, inside: Matcher.OnMatch) -> Matcher:
    """Return what refuses all requests outside of the window.

    Inside is what has to match, so a condition that fails refuses.
    """
    condition = cel.call(
        "_&&_",
        cel.call("_>=_", cel.name("request.time"), cel.timestamp(window.opens_at)),
        cel.call("_<_", cel.name("request.time"), cel.timestamp(window.closes_at)),
    )
    field = Matcher.MatcherList.FieldMatcher(
        predicate=_predicate(condition), on_match=inside
    )
    return Matcher(
        matcher_list=Matcher.MatcherList(matchers=[field]),
        on_no_match=_action(STALE_NAME, Rules.DENY),
    )


def _tree(kind: EntryKind, groups: Sequence[Group], other: Matcher.OnMatch) -> Matcher:
    """Return the tree over the keys of one kind; `other` is what follows it."""
    matchers, exact = ServerNameMatcher(), Matcher.MatcherTree.MatchMap()
    for group in groups:
        refusal = _refusal(group)
        matcher = matchers.domain_matchers.add(on_match=refusal)
        # A star is a pattern in it.
        matcher.domains.extend([key for key in group.keys if "*" not in key])
        if not matcher.domains:
            matchers.domain_matchers.pop()
        for key in group.keys:
            if "*" in key:
                exact.map[key].CopyFrom(refusal)
    after = other
    if exact.map:
        after = _nested(
            Matcher(
                matcher_tree=Matcher.MatcherTree(
                    input=_header_input(kind), exact_match_map=exact
                ),
                on_no_match=other,
            )
        )
    if not matchers.domain_matchers:
        return after.matcher
    return Matcher(
        matcher_tree=Matcher.MatcherTree(
            input=_header_input(kind),
            custom_match=_typed(
                "envoy.matching.custom_matchers.domain_matcher", matchers
            ),
        ),
        on_no_match=after,
    )


def _refusal(group: Group) -> Matcher.OnMatch:
    """Return what is done with a key of the group.

    Where the generation is high enough, nothing matches, and Envoy goes on behind the
    tree.
    """
    deny = _action(REVOKED_NAME, Rules.DENY)
    if group.kind in {EntryKind.SID, EntryKind.JTI}:
        return deny
    condition = cel.call(
        "_<_", _claim("gen"), cel.constant(float(group.minimum_generation))
    )
    if group.kind is EntryKind.CLIENT:
        # As in `RevocationIndex.check`: it concerns the client's own tokens alone.
        own = cel.call("_==_", _claim("client_id"), _claim("sub"))
        condition = cel.call("_&&_", own, condition)
    field = Matcher.MatcherList.FieldMatcher(
        predicate=_predicate(condition), on_match=deny
    )
    return _nested(Matcher(matcher_list=Matcher.MatcherList(matchers=[field])))


def _claim(name: str) -> Expr:
    tokens = cel.member(cel.name("metadata.filter_metadata"), JWT_NAMESPACE)
    return cel.member(cel.member(tokens, PAYLOAD_KEY), name)


def _predicate(condition: Expr) -> Matcher.MatcherList.Predicate:
    matcher = CelMatcher()
    matcher.expr_match.cel_expr_parsed.expr.CopyFrom(cel.numbered(condition))
    return Matcher.MatcherList.Predicate(
        single_predicate=Matcher.MatcherList.Predicate.SinglePredicate(
            input=_typed("cel_input", HttpAttributesCelMatchInput()),
            custom_match=_typed("envoy.matching.matchers.cel_matcher", matcher),
        )
    )


def _header_input(kind: EntryKind) -> TypedExtensionConfig:
    return _typed("header", HttpRequestHeaderMatchInput(header_name=_HEADERS[kind]))


def _action(name: str, action: int) -> Matcher.OnMatch:
    return Matcher.OnMatch(action=_typed("action", Action(name=name, action=action)))


def _nested(matcher: Matcher) -> Matcher.OnMatch:
    return Matcher.OnMatch(matcher=matcher)


def _typed(name: str, message: Message) -> TypedExtensionConfig:
    packed = AnyMessage()
    packed.Pack(message)
    return TypedExtensionConfig(name=name, typed_config=packed)
