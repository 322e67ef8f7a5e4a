"""Sends every scenario through a gateway, and collects what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from verifier.doctor.judge import (
    Expectation,
    Finding,
    judge,
    judge_without_verifier,
)
from verifier.doctor.probe import Gateway, ProbeAnswer, UnreachableError
from verifier.doctor.remedies import recognise
from verifier.doctor.scenarios import SCENARIOS, Scenario

#: Probes at a time. Without a verifier a gateway may wait more than a second before it
#: answers each; one after the other, they would take minutes.
TOGETHER: Final = 8
_FIRST: Final = next(s for s in SCENARIOS if s.title == "a token passes")


class CannotExamineError(Exception):
    """Nothing can be said about the gateway; the message has the next step."""


class Examination(NamedTuple):
    """The outcome for one gateway.

    Attributes:
        kind: of gateway, by its answers; empty if that is not known.
        probes: how many requests were sent.
        skipped: scenarios that were not sent: they need a token, or ask for a path
            that is public.
        findings: in the order of the scenarios.
    """

    kind: str
    probes: int
    skipped: int
    findings: list[Finding]


def check_echo(gateway: Gateway, expected: Expectation) -> None:
    """Check that a good request reaches the echo application.

    Raises:
        CannotExamineError: it does not.
    """
    answer = _send(gateway, _FIRST, expected)
    if answer.status == 200 and answer.seen() is None:
        raise CannotExamineError(
            "the application behind the gateway is not the echo application: with "
            "--echo HOST:PORT doctor starts one where the gateway expects yours"
        )
    if answer.status in (401, 403):
        raise CannotExamineError(
            f"the gateway answers {answer.status} to the token: it must be live, and "
            "permitted by the policy (policy explain says why it is not)"
        )
    if answer.status in (502, 503, 504):
        raise CannotExamineError(
            f"the gateway answers {answer.status}: start the verifier, and the "
            "application, or let --echo HOST:PORT be where the gateway expects it. If "
            "they run, look into the gateway's error log: the gateway may not reach "
            "the verifier, or not ask it for this path"
        )


def _check_stopped(answer: ProbeAnswer) -> None:
    """Check that the answer is not a verifier's refusal.

    Raises:
        CannotExamineError: it is. Every finding of the run would be false.
    """
    if answer.status in (401, 403) and answer.values("x-auth-decision-id"):
        raise CannotExamineError(
            "a verifier still answers: stop every verifier that the gateway asks, the "
            "second one too, or leave --verifier-stopped out"
        )


def examine(
    gateway: Gateway,
    expected: Expectation,
    *,
    is_verifier_stopped: bool = False,
    public: Sequence[str] = (),
    on_probe: Callable[[], object] = lambda: None,
) -> Examination:
    """Send the scenarios and return what is wrong.

    Args:
        gateway: a live one.
        expected: token, identity and path; without a token, only the scenarios without
            one are sent.
        is_verifier_stopped: no verifier answers, so nothing may pass.
        public: beginnings of paths that need no token; scenarios with those are not
            sent.
        on_probe: called after each.

    Raises:
        CannotExamineError: the gateway does not answer at all, no scenario is left, or
            a verifier answers although none should.
    """
    findings: list[Finding] = []
    kind, probes = "", 0
    chosen = [s for s in SCENARIOS if _applies(s, expected, public)]
    if not chosen:
        raise CannotExamineError(
            "no probe is left: --public leaves out every path, also that of --path"
        )
    for scenario, answer in _send_all(gateway, chosen, expected):
        on_probe()
        if isinstance(answer, CannotExamineError):
            findings.append(Finding("refused", scenario.title, str(answer)))
            continue
        if is_verifier_stopped and not probes:
            _check_stopped(answer)
        probes += 1
        kind = kind or recognise(" ".join(answer.values("server")[:1]))
        if is_verifier_stopped:
            differences = expected.differences
            findings += judge_without_verifier(scenario, answer, differences)
        else:
            findings += judge(scenario, answer, expected)
    return Examination(kind, probes, len(SCENARIOS) - len(chosen), findings)


def _send_all(
    gateway: Gateway, scenarios: Sequence[Scenario], expected: Expectation
) -> Iterator[tuple[Scenario, ProbeAnswer | CannotExamineError]]:
    """Yield each scenario with its answer, in order.

    Raises:
        CannotExamineError: the first has none.
    """

    def send(scenario: Scenario) -> ProbeAnswer | CannotExamineError:
        try:
            return _send(gateway, scenario, expected)
        except CannotExamineError as error:
            return error

    yield scenarios[0], _send(gateway, scenarios[0], expected)
    with ThreadPoolExecutor(TOGETHER) as senders:
        yield from zip(scenarios[1:], senders.map(send, scenarios[1:]), strict=True)


def count_scenarios(expected: Expectation, public: Sequence[str] = ()) -> int:
    """Return how many scenarios `examine` sends."""
    return sum(_applies(scenario, expected, public) for scenario in SCENARIOS)


def _applies(scenario: Scenario, expected: Expectation, public: Sequence[str]) -> bool:
    if scenario.needs_token and not expected.token:
        return False
    return not scenario.target_at(expected.path).startswith(tuple(public) or ("\0",))


def _send(gateway: Gateway, scenario: Scenario, expected: Expectation) -> ProbeAnswer:
    token = expected.token
    try:
        return gateway.send(
            scenario.method,
            scenario.target_at(expected.path, token),
            scenario.headers_with(token),
            scenario.body,
        )
    except UnreachableError as error:
        raise CannotExamineError(f"no answer: {error}") from None
