"""Rules by method, host and path, and the tree that finds the first that matches.

They match one canonical form, paths from their beginning and segment by segment (R7,
R8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from verifier.check.rules.requirements import NO_REQUIREMENTS, Requirements


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts that a rule matches, in canonical form.

    Attributes:
        exact: whole names.
        suffixes: ends of names, each with its leading dot; one or more labels precede.
    """

    exact: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()

    def match(self, host: str) -> bool:
        """Return whether a canonical host is one of these."""
        return host in self.exact or (
            bool(self.suffixes) and host.endswith(self.suffixes)
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy: the requests it matches, and their further requirements.

    Attributes:
        pattern: segments; `*` matches one segment, a last `**` any number.
        methods: upper-case methods; empty for any.
        hosts: None for any.
        requirements: besides those of the policy.
        is_public: no token is needed, and none is read (R61).
        is_optional: no token is needed; one that is there must be good.
        number: its place among the rules of its policy, from 1; 0 outside of one.
    """

    pattern: tuple[str, ...]
    methods: frozenset[str] = frozenset()
    hosts: Hosts | None = None
    requirements: Requirements = NO_REQUIREMENTS
    is_public: bool = False
    is_optional: bool = False
    number: int = field(default=0, compare=False)


class PatternNode:
    """One segment in the tree of a policy's patterns.

    Attributes:
        by_segment: the next nodes by their segment.
        by_any: the next node for `*`.
        ends: rules whose pattern ends here, in their order.
        opens: rules whose pattern ends here with `**`, in their order.
    """

    __slots__ = ("by_any", "by_segment", "ends", "opens")

    def __init__(self) -> None:
        self.by_segment: dict[str, PatternNode] = {}
        self.by_any: PatternNode | None = None
        self.ends: list[Rule] = []
        self.opens: list[Rule] = []


class RuleTree:
    """Finds the first rule that matches, in steps per segment and not per rule.

    Args:
        rules: in the order in which they are tried, with their numbers.
    """

    __slots__ = ("_root",)

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._root = PatternNode()
        for rule in rules:
            node = self._root
            is_open = rule.pattern[-1:] == ("**",)
            for segment in rule.pattern[:-1] if is_open else rule.pattern:
                if segment != "*":
                    node = node.by_segment.setdefault(segment, PatternNode())
                    continue
                if node.by_any is None:
                    node.by_any = PatternNode()
                node = node.by_any
            (node.opens if is_open else node.ends).append(rule)

    def find(self, method: str, host: str, segments: Sequence[str]) -> Rule | None:
        """Return the first rule that matches a method, canonical host and path."""
        nodes = [self._root]
        ends = [self._root.opens]
        for segment in segments:
            following: list[PatternNode] = []
            for node in nodes:
                child = node.by_segment.get(segment)
                if child is not None:
                    following.append(child)
                    if child.opens:
                        ends.append(child.opens)
                child = node.by_any
                if child is not None:
                    following.append(child)
                    if child.opens:
                        ends.append(child.opens)
            nodes = following
        for node in nodes:
            if node.ends:
                ends.append(node.ends)
        found: Rule | None = None
        for rules in ends:
            for rule in rules:
                if found is not None and found.number < rule.number:
                    break
                if (not rule.methods or method in rule.methods) and (
                    rule.hosts is None or rule.hosts.match(host)
                ):
                    found = rule
                    break
        return found
