"""Replays logged requests by two policy files, and counts what would change, by rule.

Nothing is guessed. A request counts as changed only if it is so whatever the log leaves
open (`possibilities.py`), and as long as the earlier file decides what the log says.
Everything that grows is bounded: rows by the rules of both files, examples by number
and length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from verifier.check.policy import Policy
from verifier.policies.access_log import LoggedRequest
from verifier.policies.judge import Judge, Match, Outcome, RuleName, TrustAge
from verifier.policies.possibilities import Possibility, possibilities

#: Example requests of one row and change.
MAX_EXAMPLES: Final = 3
#: Characters of an example.
MAX_EXAMPLE: Final = 100
#: Why a change cannot be decided when the earlier file disagrees with the log.
DISAGREES: Final = "old_file_disagrees"


class Change(StrEnum):
    """What becomes of a request that changes."""

    NEWLY_REFUSED = "newly_refused"
    NEWLY_ALLOWED = "newly_allowed"
    ALLOWED_DIFFERENTLY = "allowed_differently"
    CANNOT_TELL = "cannot_tell"


class Verdict(NamedTuple):
    """The change of one request.

    Attributes:
        change: None for none.
        word: the reason of a refusal, the decision of an allow, or both decisions. For
            what cannot be decided: the reason for which it may be refused.
    """

    change: Change | None
    word: str = ""


_UNCHANGED: Final = Verdict(None)


@dataclass
class Row:
    """The counts of one rule.

    Attributes:
        name: what the rule matches.
        old_number, new_number: in its policy in either file; 0 when it is not there, or
            is no rule.
        before, after: requests that it decides by either file.
        changes: counts by change and word, where the later file decides by this rule.
        examples: a few of these requests, by change.
    """

    name: RuleName
    old_number: int = 0
    new_number: int = 0
    before: int = 0
    after: int = 0
    changes: dict[Change, Counter[str]] = field(default_factory=dict)
    examples: dict[Change, list[str]] = field(default_factory=dict)

    def note(self, verdict: Verdict, request: LoggedRequest) -> None:
        """Count a change."""
        change = verdict.change
        if change is None:
            return
        self.changes.setdefault(change, Counter())[verdict.word] += 1
        examples = self.examples.setdefault(change, [])
        if len(examples) < MAX_EXAMPLES:
            example = describe(request)
            if example not in examples:
                examples.append(example)


class Replay:
    """Replays requests by two policy files.

    Args:
        old: the policies that were in force when the log was written, by name.
        new: the proposed ones.
        now: Unix seconds; tokens are as old as needed at this time.

    Attributes:
        requests: how many were replayed.
    """

    def __init__(
        self, old: Mapping[str, Policy], new: Mapping[str, Policy], now: int
    ) -> None:
        self._old, self._new = Judge(old, now), Judge(new, now)
        self._rows: dict[RuleName, Row] = {}
        self.requests = 0

    @property
    def rows(self) -> list[Row]:
        """The rules that decided a request, by policy and number in the later file."""
        return sorted(
            self._rows.values(),
            key=lambda row: (
                row.name.policy,
                bool(row.name.note),
                row.new_number or row.old_number,
            ),
        )

    def totals(self) -> dict[Change, int]:
        """Return how many requests have each change."""
        return {
            change: sum(row.changes.get(change, Counter()).total() for row in self.rows)
            for change in Change
        }

    def add(self, request: LoggedRequest) -> None:
        """Replay a request."""
        old, new = self._old.match(request), self._new.match(request)
        before, after = self._row(old), self._row(new)
        before.old_number = old.number
        after.new_number = new.number
        before.before += 1
        after.after += 1
        self.requests += 1
        after.note(self._judge(request, old, new), request)

    def _row(self, match: Match) -> Row:
        return self._rows.setdefault(match.name, Row(match.name))

    def _judge(self, request: LoggedRequest, old: Match, new: Match) -> Verdict:
        choices = [
            (one.policy, one.rule) for one in (old, new) if one.policy is not None
        ]
        cases = possibilities(request, choices) if choices else [Possibility()]
        fitting: list[tuple[Outcome, Outcome]] = []
        for age in _ages(request):
            for case in cases:
                before = self._old.decide(request, case, age)
                if _fits(request, before):
                    after = self._new.decide(request, case, age)
                    fitting.append((before, after))
        return _compare(fitting) if fitting else Verdict(Change.CANNOT_TELL, DISAGREES)


def _ages(request: LoggedRequest) -> Sequence[TrustAge]:
    """Return the ages of keys and revocations that the gate may have had.

    Only `allow` says which: another allow or a refusal may be of any age.
    """
    return (TrustAge.FRESH,) if request.decision == "allow" else tuple(TrustAge)


def _fits(request: LoggedRequest, outcome: Outcome) -> bool:
    """Return whether an outcome is what the log says."""
    if outcome.status != request.status:
        return False
    return not outcome.is_allowed or outcome.word == request.decision


def _compare(pairs: Sequence[tuple[Outcome, Outcome]]) -> Verdict:
    verdicts = [_change(before, after) for before, after in pairs]
    if len({verdict.change for verdict in verdicts}) == 1:
        # The first case is the one of a token that has most: what refuses it is not a
        # matter of what the log leaves open.
        return verdicts[0]
    words = [after.word for _, after in pairs if not after.is_allowed]
    words += [verdict.word for verdict in verdicts if verdict.word]
    return Verdict(Change.CANNOT_TELL, words[0])


def _change(before: Outcome, after: Outcome) -> Verdict:
    if before.is_allowed and not after.is_allowed:
        return Verdict(Change.NEWLY_REFUSED, after.word)
    if after.is_allowed and not before.is_allowed:
        return Verdict(Change.NEWLY_ALLOWED, after.word)
    if after.is_allowed and before.word != after.word:
        words = f"{before.word} -> {after.word}"
        return Verdict(Change.ALLOWED_DIFFERENTLY, words)
    return _UNCHANGED


def describe(request: LoggedRequest) -> str:
    """Return a request as one short line of printable ASCII."""
    text = f"{request.method} {request.host}{request.path}"[: MAX_EXAMPLE + 1]
    # The client wrote this: a terminal must not obey it.
    escaped = text.encode("unicode_escape").decode("ascii")
    return escaped if len(escaped) <= MAX_EXAMPLE else f"{escaped[:MAX_EXAMPLE]}..."
