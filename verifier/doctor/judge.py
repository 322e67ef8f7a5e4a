"""Compares the answer to a scenario with what it must be.

The identity that the application must see is computed from the token's claims. The
signature is the verifier's business: a token that is not good is refused there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from shared.identity_headers import encode_word, encode_words
from shared.jose import base64url
from verifier.doctor.differences import NONE, Differences
from verifier.doctor.probe import ProbeAnswer
from verifier.doctor.scenarios import EVIL, Scenario

#: Of what was seen, in a report.
_SHOWN_CHARS: Final = 160
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}")
#: Characters of the token in a row that are not shown.
_SECRET_CHARS: Final = 12


class NotATokenError(ValueError):
    """The text is not a token of which the claims can be read."""


class Finding(NamedTuple):
    """One thing that is not as it must be.

    Attributes:
        hole: a key of `HOLES`.
        scenario: the title of the probe.
        detail: what was seen. It holds no part of the token.
    """

    hole: str
    scenario: str
    detail: str


class Expectation(NamedTuple):
    """What all probes of a run have in common.

    Attributes:
        token: shown where a scenario says so.
        identity: the identity headers that the application must see, names in lower
            case.
        path: the protected path.
        differences: of the kind of gateway.
    """

    token: str
    identity: Mapping[str, str]
    path: str
    differences: Differences = NONE


def read_identity(token: str) -> dict[str, str]:
    """Return the identity headers that an allow of this token has.

    Raises:
        NotATokenError: its claims cannot be read.
    """
    try:
        _, payload, _ = token.split(".")
        claims = orjson.loads(base64url.decode(payload.encode("ascii")))
        scopes, roles = claims.get("scope", ""), claims.get("roles", [])
        if not _TOKEN.fullmatch(token):
            raise ValueError
        words: dict[str, bytes] = {
            "x-auth-subject": encode_word(claims["sub"]),
            "x-auth-user": encode_word(claims.get("username", "")),
            "x-auth-client": encode_word(claims.get("client_id", "")),
            "x-auth-scope": encode_words(scopes.split()),
            "x-auth-roles": encode_words(roles),
            "x-auth-session": encode_word(claims.get("sid", "")),
        }
    except (ValueError, KeyError, AttributeError, TypeError):
        raise NotATokenError(
            "must be a JWT with `sub`: three parts of base64url, separated by dots"
        ) from None
    return {name: value.decode("ascii") for name, value in words.items()}


def judge(
    scenario: Scenario, answer: ProbeAnswer, expected: Expectation
) -> list[Finding]:
    """Return what is wrong with the answer to a scenario; empty if nothing is."""
    differences = expected.differences
    if answer.status not in differences.statuses(scenario):
        return [_judge_status(scenario, answer)]
    if answer.status == 401:
        return _judge_refusal(scenario, answer, differences)
    if answer.status != 200 or scenario.method == "HEAD":
        return []
    seen = answer.seen()
    if seen is None:
        what = "200, but not from the echo application"
        return [Finding("changed", scenario.title, what)]
    wrong = [*_judge_request(scenario, seen, expected)]
    wrong += _judge_identity(seen["headers"], expected.identity)
    return [
        Finding(hole, scenario.title, _hide(what, expected.token))
        for hole, what in wrong
    ]


def judge_without_verifier(
    scenario: Scenario, answer: ProbeAnswer, differences: Differences = NONE
) -> list[Finding]:
    """Return what is wrong with an answer while no verifier runs.

    Requests that the gateway itself refuses are right, too.
    """
    if answer.status in (101, 200) or answer.seen() is not None:
        what = f"{answer.status} while no verifier answers"
        return [Finding("fail-open", scenario.title, what)]
    if answer.status == 503 and answer.values("retry-after"):
        return []
    refusals = scenario.statuses - {401}
    if differences.refuses_while_closed:
        refusals = differences.statuses(scenario)
    if answer.status in refusals:
        return []
    what = f"{answer.status} instead of 503"
    if answer.status == 503:
        what = "503 without Retry-After"
    return [Finding("unavailable", scenario.title, what)]


def _judge_status(scenario: Scenario, answer: ProbeAnswer) -> Finding:
    what = f"{answer.status} instead of {_either(scenario.statuses)}"
    if answer.status in (101, 200):
        return Finding(scenario.hole, scenario.title, what)
    return Finding("refused" if scenario.passes else "refusal", scenario.title, what)


def _either(statuses: frozenset[int]) -> str:
    return " or ".join(map(str, sorted(statuses)))


def _judge_refusal(
    scenario: Scenario, answer: ProbeAnswer, differences: Differences
) -> list[Finding]:
    found = []
    challenges = answer.values("www-authenticate")
    if len(challenges) != 1 or not challenges[0].startswith("Bearer"):
        what = "401 without one WWW-Authenticate: Bearer"
        found.append(Finding("refusal", scenario.title, what))
    ids = answer.values("x-auth-decision-id")
    if differences.has_decision_ids and len(ids) != 1:
        found.append(Finding("decision-id", scenario.title, "401 without it"))
    return found


def _judge_request(
    scenario: Scenario, seen: Mapping[str, Any], expected: Expectation
) -> list[tuple[str, str]]:
    """Compare method, path and headers with those that were sent."""
    found = []
    target = scenario.target_at(expected.path, expected.token)
    if seen["method"] != scenario.method:
        found.append(("changed", f"method {_shorten(seen['method'])}"))
    if seen["path"] != target:
        found.append(("changed", f"path {_shorten(seen['path'])}"))
    headers: Mapping[str, Any] = seen["headers"]
    for name, value in headers.items():
        if EVIL in str(value):
            found.append(
                (scenario.hole, f"it received {_shorten(name)}: {_shorten(value)}")
            )
        if expected.token and expected.token in str(value):
            found.append(("token-shared", f"it received the token in {_shorten(name)}"))
    upgrades = str(headers.get("upgrade", "")).lower()
    if scenario.hole == "upgrade" and (
        "h2c" in upgrades or "http2-settings" in headers
    ):
        found.append(("upgrade", "it received Upgrade: h2c or HTTP2-Settings"))
    return found


def _judge_identity(
    headers: Mapping[str, Any], identity: Mapping[str, str]
) -> list[tuple[str, str]]:
    found = []
    for name, value in identity.items():
        got = headers.get(name, "")
        if got != value and EVIL not in str(got):
            what = f"{name} is {_shorten(got) or 'missing'}"
            found.append(("identity-lost", f"{what} instead of {_shorten(value)}"))
    decision = headers.get("x-auth-decision", "")
    if not str(decision).startswith("allow") and EVIL not in str(decision):
        what = f"x-auth-decision is {_shorten(decision) or 'missing'}"
        found.append(("identity-lost", what))
    return found


def _hide(text: str, token: str) -> str:
    """Return the text without parts of the token, which an application may send."""
    size = _SECRET_CHARS
    parts = {token[i : i + size] for i in range(len(token) - size + 1)}

    def hide(run: re.Match[str]) -> str:
        starts = range(len(run[0]) - size + 1)
        is_secret = any(run[0][i : i + size] in parts for i in starts)
        return "[token]" if is_secret else run[0]

    return re.sub(r"[A-Za-z0-9_.-]+", hide, text)


def _shorten(value: object) -> str:
    text = str(value)[: 2 * _SHOWN_CHARS]
    # Terminals obey control characters.
    shown = text.encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "..."
