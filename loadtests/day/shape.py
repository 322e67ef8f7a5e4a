"""How many users there are at each moment of the day."""

from __future__ import annotations

from typing import NamedTuple


class Phase(NamedTuple):
    """A part of the day.

    Attributes:
        hours: how long it is, of the day's 24.
        share: of the most users there are, how many at its end.
    """

    name: str
    hours: float
    share: float


#: From midnight on. The number of users goes in a straight line to each phase's share.
DAY = (
    Phase("night", 6.0, 0.2),
    Phase("morning", 3.0, 1.0),
    Phase("forenoon", 3.0, 0.8),
    Phase("lunch", 1.5, 0.4),
    Phase("afternoon", 4.0, 0.9),
    Phase("evening", 3.0, 0.6),
    Phase("late evening", 3.5, 0.2),
)
HOURS = sum(phase.hours for phase in DAY)


def phase_at(passed: float) -> str:
    """Return the name of the phase.

    Args:
        passed: share of the day that has passed, 0 to 1.
    """
    hour = passed * HOURS
    for phase in DAY:
        hour -= phase.hours
        if hour < 0:
            return phase.name
    return DAY[-1].name


def users_at(passed: float, most: int) -> int:
    """Return how many users there are; one at least.

    Args:
        passed: share of the day that has passed, 0 to 1.
        most: how many there are in the busiest moment.
    """
    hour = passed * HOURS
    before = DAY[-1].share
    for phase in DAY:
        if hour < phase.hours:
            before += (phase.share - before) * hour / phase.hours
            break
        hour -= phase.hours
        before = phase.share
    return max(1, round(most * before))


def begins() -> list[tuple[float, str]]:
    """Return when each phase begins, as a share of the day, and its name."""
    found = []
    hour = 0.0
    for phase in DAY:
        found.append((hour / HOURS, phase.name))
        hour += phase.hours
    return found
