"""Tokens from other projects, against the product's own checks.

Every case runs, for every algorithm: unsupported algorithms must be refused.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from tests.conformance.driver import verify

#: Fewer than these would mean that cases went missing unseen.
LEAST = {"MUST": 3_111, "STRICT": 255, "INFO": 3}
#: Cases that we refuse and the publisher accepts, because implementations differ.
DIVERGENCES = {
    "jwt_verify_lib/rsa/JwtTextNoKidLongExp-expired": "a token must name its key (R22)"
}


def token_of(case: dict[str, Any]) -> str:
    """Return the token however the case writes it down."""
    if "token_b64" in case:
        return b64decode(case["token_b64"]).decode("utf-8", "surrogateescape")
    if "token_repeat" in case:
        text, times = case["token_repeat"]
        return str(text * times)
    return str(case["token"])


def wrong_verdicts(cases: list[dict[str, Any]]) -> list[str]:
    """Return a line for each case whose verdict is not the expected one."""
    lines = []
    for case in cases:
        policy = None if case["level"] == "jws" else case["policy"]
        verdict = verify(token_of(case), case["keys"], policy)
        if verdict is not case["expect"]:
            lines.append(f"{case['id']}: {verdict}, because: {case['why']}")
    return lines


@pytest.mark.parametrize("severity", ["MUST", "STRICT"])
def test_every_case_has_the_expected_verdict(
    corpus: list[dict[str, Any]], severity: str
) -> None:
    """R14 to R18; no exception but a refusal comes out of any case."""
    cases = [case for case in corpus if case["severity"] == severity]
    assert len(cases) >= LEAST[severity]
    assert wrong_verdicts(cases) == []


def test_our_choice_is_documented_where_implementations_differ(
    corpus: list[dict[str, Any]],
) -> None:
    cases = [case for case in corpus if case["severity"] == "INFO"]
    assert len(cases) >= LEAST["INFO"]
    differing = [line.split(":")[0] for line in wrong_verdicts(cases)]
    assert differing == list(DIVERGENCES)
