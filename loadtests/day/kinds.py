"""What an answer of the day is: work, an expected refusal, or wrong.

Without Locust, whose import changes the whole process.
"""

from __future__ import annotations

import re
from collections import defaultdict

#: What the names of calls that must be refused begin with.
ATTACK = "attack: "
#: Kinds of answers.
WORKED, REFUSED, WRONG = "worked", "refused as expected", "not as expected"
_CHECKS = re.compile(
    r"^gatehouse_verifier_checks_total\{(?P<labels>[^}]*)\} (?P<value>\S+)$", re.M
)


def kind_of(name: str, failed: bool) -> str:
    """Return the kind of an answer."""
    if failed:
        return WRONG
    is_refusal = name.startswith(ATTACK) or re.search("ended|logged out|revoked", name)
    return REFUSED if is_refusal else WORKED


def refusals_in(metrics: str) -> dict[str, float]:
    """Return the refusals that a verifier has counted, by reason."""
    found: dict[str, float] = defaultdict(float)
    for match in _CHECKS.finditer(metrics):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"]))
        if labels.get("decision") == "deny":
            found[labels["reason"]] += float(match["value"])
    return dict(found)


def work_of(name: str) -> str:
    """Return which program's work a call is: the gate's, or a part of the issuer's."""
    if name == "/auth/login" or name.endswith("guess"):
        return "login"
    if name.startswith("/"):
        return "other calls to the issuer"
    if name.startswith(ATTACK) and "refresh" not in name and "replay" not in name:
        return "refused by the gate"
    return "through the gate"
