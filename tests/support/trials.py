"""Counts promises and their outcomes: each trial revokes one token under a
fault.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from issuer.http.preferences import MAX_PREFERRED_WAIT
from tests.support.fleet import Fleet, Revoked
from tests.support.processes import PATIENCE, wait_until
from tests.support.promise_watch import PromiseWatch

#: Times each gate is asked about a token after its promise, at least.
_ENOUGH = 5


class Trials:
    """Revokes tokens that are watched.

    Attributes:
        outcomes: the answer to each revoking call, by the token's name.
        good: the name of a token that is never revoked.
    """

    good = "good"

    def __init__(self, fleet: Fleet, watch: PromiseWatch) -> None:
        self.fleet = fleet
        self.watch = watch
        self.outcomes: dict[str, Revoked] = {}
        self._tokens: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._executor = ThreadPoolExecutor(max_workers=64)
        watch.watch(self.good, fleet.mint())

    def mint(self, count: int = 1, number: int = 0) -> list[str]:
        """Mint tokens at an issuer, have them asked about, and return their names."""
        names = []
        for _ in range(count):
            name = f"token-{next(self._numbers)}"
            self._tokens[name] = self.fleet.mint(number)
            self.watch.watch(name, self._tokens[name])
            names.append(name)
        return names

    def revoke(self, name: str, *, wait: int, number: int = 0) -> Revoked:
        """Revoke one; when it is confirmed, the watch holds everybody to it."""
        outcome = self.fleet.revoke(self._tokens[name], wait=wait, number=number)
        if outcome.is_confirmed:
            self.watch.promise(name)
        if outcome.body or name not in self.outcomes:
            self.outcomes[name] = outcome
        return outcome

    def begin(self, name: str, *, wait: int, number: int = 0) -> Future[Revoked]:
        """Begin to revoke one."""
        return self._executor.submit(self.revoke, name, wait=wait, number=number)

    def confirm(self, name: str, number: int = 0) -> Future[Revoked]:
        """Begin to revoke one until it is confirmed.

        A call is held for 30 s at most, and asked again it promises the same again: a
        machine that is busy may need longer.
        """

        def confirm() -> Revoked:
            end = time.monotonic() + PATIENCE
            while True:
                outcome = self.revoke(name, wait=MAX_PREFERRED_WAIT, number=number)
                if outcome.is_confirmed or time.monotonic() > end:
                    return outcome

        return self._executor.submit(confirm)

    def is_active(self, name: str, number: int = 0) -> bool:
        """Return whether an issuer holds the token for alive."""
        return self.fleet.is_active(self._tokens[name], number)

    @property
    def confirmed(self) -> list[str]:
        """The names of the tokens with a confirmed end."""
        return [name for name, shown in self.outcomes.items() if shown.is_confirmed]

    @property
    def acknowledged(self) -> list[str]:
        """The names of the tokens with a revoking call that was answered `revoked`."""
        return [name for name, shown in self.outcomes.items() if shown.body]

    def wait_for(self, status: int, name: str = good, *, gates: str = "") -> None:
        """Return once the gates answer this status for a token."""
        for gate in [gates] if gates else list(self.fleet.gates):
            wait_until(
                lambda gate=gate: self.watch.newest(gate, name) == status,
                what=f"{gate} answers {status} for {name}",
            )

    def ask_on(self, but: str = "") -> None:
        """Return once every gate was asked often enough since the last promise."""
        for name in self.confirmed[-1:]:
            promised_at = self.outcomes[name].answered_at
            for gate in self.fleet.gates.keys() - {but}:
                wait_until(
                    lambda gate=gate, name=name, since=promised_at: (
                        self.watch.statuses(gate, name, since).total() >= _ENOUGH
                    ),
                    what=f"{gate} is asked about {name}",
                )

    def verdict(self, *, confirmed_at_least: int) -> str:
        """Return the counts in words.

        Raises:
            AssertionError: for a broken promise, a revived token, a live token refused,
                or too few promises to have shown anything.
        """
        after, violations = self.watch.after_promises(), self.watch.violations()
        revived = self.watch.revived()
        shown = (
            f"trials {len(self.outcomes)}, confirmed {len(self.confirmed)}, "
            f"asked after {after.total()} {dict(sorted(after.items()))}, "
            f"violations {len(violations)}, revived {len(revived)}"
        )
        assert violations == [], shown
        assert revived == [], shown
        wrong = [
            a for a in self.watch.asked if a.token == self.good and a.status == 401
        ]
        assert wrong == [], "a live token was refused"
        assert len(self.confirmed) >= confirmed_at_least, shown
        assert set(after) <= {401, 503}, shown
        return shown

    def close(self) -> None:
        """Wait for the calls under way."""
        self._executor.shutdown()


def wait_for_none(seconds: float, *calls: Future[Revoked]) -> None:
    """Let time pass in which none of the calls may be answered `confirmed`."""
    with suppress(TimeoutError):
        Future[None]().result(seconds)
    early = [c for c in calls if c.done() and c.result().is_confirmed]
    assert early == [], "confirmed while a verifier that has not heard it is open"


@contextmanager
def running(fleet: Fleet) -> Iterator[Trials]:
    """Watch all gates of the fleet for the length of the block."""
    with fleet.watch() as watch:
        trials = Trials(fleet, watch)
        try:
            trials.wait_for(200)
            yield trials
        finally:
            trials.close()
