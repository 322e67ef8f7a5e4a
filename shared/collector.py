"""How often Python's cycle collector runs, and which objects it skips.

A collection stops every thread of the process while it walks the objects of its
generations. The objects that a program has after its start live until its end, so
walking them again and again finds nothing.
"""

from __future__ import annotations

import gc
from typing import NamedTuple


class Pace(NamedTuple):
    """How often each generation is collected; see `gc.set_threshold`.

    Attributes:
        young: objects created minus those freed between two collections of the
            youngest.
        middle: collections of the youngest between two of the middle generation.
        old: collections of the middle generation between two of everything.
    """

    young: int
    middle: int
    old: int


def set_pace(pace: Pace) -> None:
    """Collect at this pace from now on."""
    gc.set_threshold(*pace)


def exempt_what_is_there() -> None:
    """Collect once, and skip the remaining objects from then on; call after the start.

    Skipped objects are still freed when their last reference goes, unless they are in
    a cycle.
    """
    gc.collect()
    gc.freeze()
    # Python delays a full collection until the new objects of the oldest generation
    # are a quarter of those that the last one found there. This collection finds few,
    # so that the skipped objects do not count.
    gc.collect()
