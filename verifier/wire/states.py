"""The states of one connection of the public port (decision 0022).

States:
    HEAD           heads are read and answered; idle between them
    YIELDED        the checks of this turn are answered, the rest is kept for the next (R47)
    WRITE_BLOCKED  the peer reads no answers; nothing is read from it
    DRAINING       a head is half received; its answer is the last
    DISCARDING     the last answer is sent, our side is shut down; data is counted only
    CLOSING        the last answer is sent; the transport closes after the peer has read it
    ENDED          aborted or gone

Events (rows) in each state. "last": send the pending answers, then DISCARDING when bytes
may follow, else CLOSING. "-": nothing is done.

    event            HEAD             YIELDED        WRITE_BLOCKED  DRAINING    DISCARDING      CLOSING  ENDED
    data             read heads       keep           keep           read head   count; abort    -        -
                                                                                over the budget
    end of a head    answer           -              -              answer,     -               -        -
                                                                    last
    K heads, more    YIELDED; too     as in HEAD     -              -           -               -        -
                     much to keep:
                     answer one, last
    head that ends   last             -              -              last        -               -        -
     the connection
    fault of a head  refuse, last     refuse, last   -              refuse,     -               -        -
                                                                    last
    next turn        -                HEAD, read     -              -           -               -        -
    eof              send, CLOSING    send, CLOSING  CLOSING        CLOSING     CLOSING         -        -
    pause_writing    WRITE_BLOCKED    WRITE_BLOCKED  -              -           more time       -        -
    resume_writing   -                -              YIELDED if     -           time to         -        -
                                                     some is kept,              discard
                                                     else HEAD
    deadline         half a head:     abort          abort          408, last   abort           abort    -
                     408, last;
                     idle: close
    last answer      DRAINING         the head that  DRAINING when  -           -               -        -
     (drain begins)                   is next is     it reads on
                                      the last
    shutdown         half a head:     DRAINING,      CLOSING        idle:       -               -        -
     (drain ends)    DRAINING;        read one                      CLOSING
                     else CLOSING
    abort            ENDED in every state; pending answers are dropped (R46)
    connection_lost  ENDED in every state; its slot is free

A deadline in HEAD, or a fault, aborts when the peer has not read earlier answers: a close
would wait for the peer (R46).
"""

# The table of states and events is wider than other text.
# ruff: noqa: W505

from __future__ import annotations

from enum import Enum


class State(Enum):
    """A state; see the module's table."""

    HEAD = "head"
    YIELDED = "yielded"
    WRITE_BLOCKED = "write blocked"
    DRAINING = "draining"
    DISCARDING = "discarding"
    CLOSING = "closing"
    ENDED = "ended"
