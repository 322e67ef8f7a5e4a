"""What is probably a mistake in a policy file that can be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from verifier.check.policy import Policy
from verifier.check.rules.rule import Hosts, Rule


def find_warnings(policies: Mapping[str, Policy]) -> Iterator[str]:
    """Return a sentence for each rule that no request or no token can match."""
    for policy in policies.values():
        last = policy.rules[-1] if policy.rules else None
        if len(policy.rules) > 1 and last is not None and _is_open_to_all(last):
            yield (
                f"policies.{policy.name}.rules[{len(policy.rules)}]: opens every path "
                "that no rule before it matches; another spelling of a closed path "
                "(/ADMIN) is such a path. Open narrow paths first, and close the rest"
            )
        for number, rule in enumerate(policy.rules, 1):
            where = f"policies.{policy.name}.rules[{number}]"
            for earlier, other in enumerate(policy.rules[: number - 1], 1):
                if hides(other, rule):
                    yield (
                        f"{where}: never matches, because rules[{earlier}] before it "
                        "matches every such request"
                    )
                    break
            if not rule.is_public and not rule.is_optional:
                clients = policy.requirements.client_ids, rule.requirements.client_ids
                if all(clients) and clients[0].isdisjoint(clients[1]):
                    yield (
                        f"{where}.client_ids: no token passes, because policies."
                        f"{policy.name}.client_ids has none of these"
                    )


def _is_open_to_all(rule: Rule) -> bool:
    is_open = rule.is_public or rule.is_optional
    return is_open and rule.pattern == ("**",) and rule.hosts is None


def hides(earlier: Rule, later: Rule) -> bool:
    """Return whether each request that `later` matches is matched by `earlier`."""
    if earlier.methods and not (later.methods and later.methods <= earlier.methods):
        return False
    return _covers_hosts(earlier.hosts, later.hosts) and _covers_paths(
        earlier.pattern, later.pattern
    )


def _covers_hosts(wide: Hosts | None, narrow: Hosts | None) -> bool:
    if wide is None:
        return True
    if narrow is None:
        return False
    # `.b.test` ends with `.test`: its names end with both.
    return all(map(wide.match, narrow.exact)) and all(
        suffix.endswith(wide.suffixes) if wide.suffixes else False
        for suffix in narrow.suffixes
    )


def _covers_paths(wide: tuple[str, ...], narrow: tuple[str, ...]) -> bool:
    is_open, is_narrow_open = wide[-1:] == ("**",), narrow[-1:] == ("**",)
    segments = wide[:-1] if is_open else wide
    others = narrow[:-1] if is_narrow_open else narrow
    if not is_open and (is_narrow_open or len(segments) != len(others)):
        return False
    if len(segments) > len(others):
        return False
    pairs = zip(segments, others, strict=False)
    return all(wanted == "*" or wanted == other for wanted, other in pairs)
