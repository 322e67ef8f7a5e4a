"""CPU time of a process tree, from the kernel's own accounting."""

from __future__ import annotations

from pathlib import Path


def tree(pid: int) -> list[int]:
    """Return `pid` and all its living descendants."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        for task in Path(f"/proc/{current}/task").glob("*/children"):
            try:
                waiting.extend(map(int, task.read_text().split()))
            except OSError:
                continue
    return found


def cpu_ns(pid: int) -> int:
    """Return the nanoseconds all threads of the tree have run on a processor.

    `/proc/PID/task/TID/schedstat` counts nanoseconds, where `stat` counts ticks of 10
    milliseconds.
    """
    total = 0
    for member in tree(pid):
        for schedstat in Path(f"/proc/{member}/task").glob("*/schedstat"):
            try:
                total += int(schedstat.read_text().split()[0])
            except OSError:
                continue
    return total


def resident_bytes(pid: int) -> int:
    """Return the largest resident set in the tree, bytes: that of one worker."""
    return max(map(_resident, tree(pid)))


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
