"""Who asks, and what was done: the facts an audit event is made of.

Operations take an `AuditWriter` and call it inside their own transaction, so that an
act and its record are committed together or not at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request came from.

    Attributes:
        address: the client's address, or `local` for the command line.
        device_label: what the client calls itself (its User-Agent), cut to 200.
        correlation_id: the id that ties answer, log lines and audit together.
    """

    address: str = "local"
    device_label: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class Act:
    """One thing worth remembering.

    Attributes:
        event: a constant word such as `session.started` or `refresh.reused`.
        actor: who did it: a sub, a client_id, or `system`.
        subject: whom or what it concerns.
        facts: further facts, never a secret.
    """

    event: str
    actor: str
    subject: str
    facts: Mapping[str, str | int] = field(default_factory=dict)


#: Writes the act into the transaction that does it.
AuditWriter = Callable[[AsyncSession, Act, Caller], Awaitable[None]]
#: Records an act that can happen very often, in a transaction of its own: many that are
#: alike become few rows (docs/audit.md). Called before what it records takes effect.
TallyWriter = Callable[[Act, Caller], Awaitable[None]]
#: Returns the audit log's row of the act, for a statement that writes it with others.
EventDescriber = Callable[[Act, Caller], Mapping[str, str | int]]
