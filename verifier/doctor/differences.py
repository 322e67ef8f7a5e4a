"""What gateways that check tokens by themselves do otherwise, and may (docs/native.md).

Each difference is stricter than the rule, or takes something from the application that
it can do without. What would let a request pass is a hole for every gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from verifier.doctor.scenarios import Scenario


class Differences(NamedTuple):
    """What one kind of gateway does otherwise.

    Attributes:
        refuses: titles of scenarios that may pass and are refused with 401, and why.
        empties: identity headers that never have a value, names in lower case, and why.
        has_decision_ids: a refusal has an `X-Auth-Decision-Id`.
        refuses_while_closed: without news of what is revoked, a request without a good
            token is 401, as always; one with it is 503.
    """

    refuses: Mapping[str, str] = {}
    empties: Mapping[str, str] = {}
    has_decision_ids: bool = True
    refuses_while_closed: bool = False

    def statuses(self, scenario: Scenario) -> frozenset[int]:
        """Return the statuses that are right for a scenario."""
        is_refused = scenario.title in self.refuses
        return scenario.statuses | {401} if is_refused else scenario.statuses

    def identity(self, identity: Mapping[str, str]) -> dict[str, str]:
        """Return the identity headers as the application gets them."""
        return {**identity, **dict.fromkeys(self.empties, "")}


NONE: Final = Differences()
#: By the name of the kind; the others have none.
DIFFERENCES: Final[Mapping[str, Differences]] = {
    "envoy-native": Differences(
        refuses={
            "scheme in lower case": "Envoy's `value_prefix` is compared as it is "
            "written (R13: a credential in another form is refused)",
        },
        empties={
            "x-auth-roles": "Envoy writes a claim that is a list as base64 of JSON, "
            "which an application would read as one role (R10: empty without a value)",
        },
        has_decision_ids=False,
        refuses_while_closed=True,
    ),
    "haproxy-native": Differences(has_decision_ids=False),
}


def differences_of(kind: str) -> Differences:
    """Return what gateways of this kind do otherwise; an empty kind is not known."""
    return DIFFERENCES.get(kind, NONE)
