"""How many connections each worker has, and whether all of them stop.

It is in memory that the supervisor and all workers share.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

_COUNT: Final = struct.Struct("<i")
#: The worker of this slot takes no connections, or there is none.
_AWAY: Final = -1


class Occupancy:
    """The counts; made before the workers are forked.

    A count is written by its own worker only, as one aligned word, so no reader sees
    half of one. The word behind the counts is the supervisor's: 1 once all stop.

    Args:
        slots: how many workers there may be.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._memory = mmap.mmap(-1, (slots + 1) * _COUNT.size)
        for slot in range(slots):
            self.clear(slot)

    def write(self, slot: int, connections: int) -> None:
        """Set how many connections the worker of this slot has."""
        _COUNT.pack_into(self._memory, slot * _COUNT.size, connections)

    def clear(self, slot: int) -> None:
        """Note that the worker of this slot takes no connections."""
        self.write(slot, _AWAY)

    def note_stop(self) -> None:
        """Note that all workers stop, so that the port closes."""
        self.write(self._slots, 1)

    @property
    def is_stopping(self) -> bool:
        """Whether all workers stop. One that ends alone leaves the port to others."""
        at = self._slots * _COUNT.size
        return bool(_COUNT.unpack_from(self._memory, at)[0])

    def is_least(self, slot: int, connections: int) -> bool:
        """Return whether no other worker has fewer connections than this one."""
        counts = (
            _COUNT.unpack_from(self._memory, other * _COUNT.size)[0]
            for other in range(self._slots)
            if other != slot
        )
        return all(count < 0 or count >= connections for count in counts)
