"""Checks of the limits that the system sets to a process."""

from __future__ import annotations

import resource
from typing import Final

from shared.checking.findings import Findings
from shared.shortages import EXHAUSTED_SHARE

#: Descriptors that a worker needs besides its connections: log, sockets, files, a pool.
_OTHERS: Final = 300


def check_descriptors(setting: str, connections: int, findings: Findings) -> None:
    """Check that a worker may open as many files as it may have connections.

    A start raises the soft limit to the hard one (`shared/shortages.py`), so the hard
    one counts. It is this shell's; a service may have another.

    Args:
        setting: the limit of connections.
        connections: its value, of each worker.
        findings: gets what was found.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = int((connections + _OTHERS) / EXHAUSTED_SHARE)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        shown = "no limit" if hard == resource.RLIM_INFINITY else f"{hard}"
        findings.ok(
            "limits.descriptors", setting, f"{connections} of open files: {shown}"
        )
        return
    findings.warn(
        "limits.descriptors",
        setting,
        f"{connections} connections need about {needed} open files, and {hard} are "
        "allowed",
        f"LimitNOFILE={needed} in the unit, ulimit -Hn elsewhere, or lower {setting}",
    )
