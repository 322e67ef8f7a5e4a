"""The chain over the audit events: each link's digest covers the one before; pure.

Whoever knows the digest of one link can tell whether anything up to it was changed,
removed, inserted or put in another order. Why events are linked shortly after they are
committed, and not with them: docs/decisions/0005-the-audit-chain-follows.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from issuer.storage.tables.audit import AuditEvent

#: Stands for the digest before the first link.
GENESIS: Final = bytes(32)
_HEAD: Final = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


class Head(NamedTuple):
    """How far the chain has come: what an operator keeps elsewhere.

    Attributes:
        seq: of the last link; 0: there is none.
        digest: of the last link.
    """

    seq: int
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Head:
        """Return the head that `str` wrote.

        Raises:
            ValueError: for any other text.
        """
        match = _HEAD.fullmatch(text)
        if match is None:
            raise ValueError("must be NUMBER:DIGEST as `audit head` prints it")
        return cls(int(match[1]), bytes.fromhex(match[2]))

    def __str__(self) -> str:
        """Return `NUMBER:DIGEST`, the digest in hexadecimal."""
        return f"{self.seq}:{self.digest.hex()}"


START: Final = Head(0, GENESIS)


#: What an event's seal covers, in this order: all of it but its id, which comes later.
SEALED_COLUMNS: Final = (
    "at",
    "event",
    "actor",
    "subject",
    "address",
    "correlation_id",
    "facts",
)


def event_content(values: Mapping[str, Any]) -> bytes:
    """Return what an event's seal covers.

    Args:
        values: the event's columns by name.
    """
    return orjson.dumps([values[name] for name in SEALED_COLUMNS])


def row_content(row: AuditEvent) -> bytes:
    """Return what a stored event's seal covers."""
    return event_content({name: getattr(row, name) for name in SEALED_COLUMNS})


def link(before: Head, row: AuditEvent) -> Head:
    """Return the head once `row` is linked behind `before`."""
    seq = before.seq + 1
    place = orjson.dumps([seq, row.id, row.seal])
    digest = hashlib.sha256()
    # Each part but the last has one length or ends where JSON does.
    for part in (b"gatehouse audit 1\0", before.digest, place, row_content(row)):
        digest.update(part)
    return Head(seq, digest.digest())


def link_content(head: Head) -> bytes:
    """Return what a link's seal covers."""
    return b"link\0%d\0" % head.seq + head.digest


def checkpoint_content(head: Head, made_at: int) -> bytes:
    """Return what a checkpoint's seal covers."""
    return b"checkpoint\0%d\0%d\0" % (head.seq, made_at) + head.digest
