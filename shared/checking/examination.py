"""Runs the checks one after the other, within one limit of time.

A check may hang where nothing can be cancelled: a file on a server that is away, a
resolver without an answer. So each runs on a thread of its own, which is left behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from shared.checking.findings import Finding, Findings, Level

#: Seconds that a check gets at least, so that one that hangs hides no later one.
_LEAST: Final = 0.2


class Check(NamedTuple):
    """One check.

    Attributes:
        name: the first word of its findings, such as `database`.
        concerns: what a finding concerns when the check itself does not end.
        run: makes the findings.
    """

    name: str
    concerns: str
    run: Callable[[Findings], None]


class Examined(NamedTuple):
    """The result.

    Attributes:
        findings: of all checks, in order.
        is_hanging: a check was left behind on its thread.
    """

    findings: list[Finding]
    is_hanging: bool


def examine(checks: Iterable[Check], timeout: float) -> Examined:
    """Run the checks and return what they found; never raises.

    Args:
        checks: in the order in which they run; each is taken when the one before ended.
        timeout: seconds for all together.
    """
    until = time.monotonic() + timeout
    found: list[Finding] = []
    is_hanging = False
    for check in checks:
        findings = Findings()
        thread = threading.Thread(target=_run, args=(check, findings), daemon=True)
        thread.start()
        thread.join(max(_LEAST, until - time.monotonic()))
        if thread.is_alive():
            is_hanging = True
            # What it found until now; it may still be writing to its own list.
            found += list(findings)
            found.append(
                Finding(
                    Level.ERROR,
                    f"{check.name}.timeout",
                    check.concerns,
                    f"the check did not end within {timeout:g} s",
                    "find out what does not answer; --timeout allows more time",
                )
            )
        else:
            found += findings
    return Examined(found, is_hanging)


def _run(check: Check, findings: Findings) -> None:
    try:
        check.run(findings)
    except Exception as error:
        # A fault of ours. The message may hold a value, so only its kind is shown.
        findings.error(
            f"{check.name}.failed",
            check.concerns,
            f"the check failed ({type(error).__name__})",
            "report this fault; the other checks are not affected",
        )
