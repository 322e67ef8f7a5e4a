"""The issuer is killed under traffic: the gate goes on rightly, then closes, then
recovers.

Trap 1 and 12 of the style guide: last good keys stay, but not for ever.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tests.support.processes import wait_until
from tests.support.raw_http import send
from tests.support.stack import Stack

MAX_STALENESS = 11


#: The statuses allowed for each token: never 200 for a dead one, never 401 for a live
#: one (R38).
ALLOWED = {"good": {200, 503}, "revoked": {401, 503}, "bad": {401, 503}}


@dataclass
class Traffic:
    """Asks the verifier all the time, with a good, a revoked and a bad token.

    Attributes:
        counts: how often each token was answered each status.
        wrong: answers that no token of that name may ever get.
    """

    port: int
    tokens: Mapping[str, str]
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[tuple[str, int]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Traffic:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            for name, token in self.tokens.items():
                status = check(self.port, token)
                self.counts[name, status] += 1
                if status not in ALLOWED[name]:
                    self.wrong.append((name, status))


def check(port: int, token: str) -> int:
    """Ask the verifier as nginx would."""
    headers = [("Authorization", f"Bearer {token}")]
    return send(port, "GET", "/verify/nginx", headers).status


@pytest.mark.processes
def test_gate_outlives_the_issuer_then_closes_then_recovers(stack: Stack) -> None:
    port = stack.addresses.verifier
    good, revoked = stack.log_in(), stack.log_in()
    stack.log_out(revoked)
    assert check(port, revoked.access_token) == 401
    tokens = {
        "good": good.access_token,
        "revoked": revoked.access_token,
        "bad": good.access_token[:-6] + "AAAAAA",
    }
    with Traffic(port, tokens) as traffic:
        stack.kill_issuer()
        before = traffic.counts["good", 200]
        wait_until(
            lambda: check(port, good.access_token) == 503,
            what="the gate closes once its revocations are too old",
        )
        # Most of the bound is left at the kill: the last complete answer was sent at
        # most one hold before. How many checks fit in is the machine's affair.
        assert traffic.counts["good", 200] > before
        stack.start_issuer()
        wait_until(
            lambda: check(port, good.access_token) == 200,
            what="the gate opens by itself when the issuer is back",
        )
        assert check(port, revoked.access_token) == 401
    assert traffic.wrong == []
    assert set(traffic.counts) >= {
        ("good", 200),
        ("good", 503),
        ("revoked", 401),
        ("bad", 401),
    }


@pytest.mark.processes
def test_a_verifier_that_starts_without_the_issuer_is_closed_until_it_comes(
    stack: Stack,
) -> None:
    """Without knowledge every check is refused. The disk copy has its own tests."""
    good = stack.log_in()
    stack.kill_issuer()
    settings = {
        "VERIFIER_MAX_STALENESS": str(MAX_STALENESS),
        "VERIFIER_STATE_DIR": "",
    }
    with stack.verifier_replaced("/healthz", **settings):
        assert check(stack.addresses.verifier, good.access_token) == 503
        admin = stack.addresses.verifier_admin
        assert send(admin, "GET", "/readyz").status == 503
        assert send(admin, "GET", "/healthz").status == 200
        stack.start_issuer()
        wait_until(
            lambda: check(stack.addresses.verifier, good.access_token) == 200,
        )
