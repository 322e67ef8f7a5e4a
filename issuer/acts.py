"""Callers and acts: the facts of an audit event.

Operations take an `AuditWriter` and call it inside their own transaction, so that an
act and its record are committed together or not at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Caller:
    """The origin of a request.

    Attributes:
        address: the client's address, or `local` for the command line.
        device_label: the client's User-Agent, cut to 200 characters.
        correlation_id: the id in answer, log lines and audit log.
    """

    address: str = "local"
    device_label: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class Act:
    """One act for the audit log.

    Attributes:
        event: a constant word such as `session.started` or `refresh.reused`.
        actor: the sub, the client_id, or `system`.
        subject: the id that it concerns.
        facts: further facts, never a secret.
    """

    event: str
    actor: str
    subject: str
    facts: Mapping[str, str | int] = field(default_factory=dict)


#: Records the act in its transaction.
AuditWriter = Callable[[AsyncSession, Act, Caller], Awaitable[None]]
