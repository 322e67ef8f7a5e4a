"""How often the cycle collector looks, and what it looks at.

A collection stops every thread of the process, for as long as it takes to walk each
object it looks at. What a program has after its start is there until its end, so
walking it again and again finds nothing.
"""

from __future__ import annotations

import gc
from typing import NamedTuple


class Pace(NamedTuple):
    """How often each generation is collected; see `gc.set_threshold`.

    Attributes:
        young: objects made, less those freed, between two collections of the youngest.
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
    """Collect once, and never look at what is left again; call it after the start.

    Such objects are freed all the same once nothing refers to them, save in cycles.
    """
    gc.collect()
    gc.freeze()
    # A full collection is put off until the objects that are new to the oldest
    # generation are a quarter of what the last one found there: that must not be what
    # is exempt now.
    gc.collect()
