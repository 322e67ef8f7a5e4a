"""The states of a connection, and what each event does in them (decision 0023).

| state      | bytes            | answer complete | time is up        | shutdown   |
|------------|------------------|-----------------|-------------------|------------|
| HEAD       | to the head      | -               | 408, or close     | close      |
| BODY       | to the request   | read over, or   | 408               | answer is  |
|            |                  | DISCARDING      |                   | the last   |
| ANSWERING  | wait             | HEAD            | (answers may take | answer is  |
|            |                  |                 | long)             | the last   |
| DISCARDING | dropped          | -               | abort             | -          |
| CLOSING    | -                | -               | abort             | -          |
| ENDED      | -                | -               | -                 | -          |

In addition, a peer may not read: then the application waits, no request is begun, and
the connection is aborted when its time is up. Refusals and last answers lead to
DISCARDING: our side is shut, and bytes that still arrive are dropped. When the peer
closes its side, every state leads to CLOSING.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class State(Enum):
    """A state; see the module's table."""

    HEAD = auto()
    BODY = auto()
    ANSWERING = auto()
    DISCARDING = auto()
    CLOSING = auto()
    ENDED = auto()


#: The last answer was sent, or none will be.
ENDING: Final = (State.DISCARDING, State.CLOSING, State.ENDED)
