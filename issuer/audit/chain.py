"""The chain over the audit events: each link's digest covers the previous one. Pure.

With the digest of one link, any change, removal, insertion or reordering before it can
be detected. docs/decisions/0005-the-audit-chain-follows.md explains why events are
linked shortly after their commit, and not in it.
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
    """The end of the chain, which an operator keeps in another place.

    Attributes:
        seq: of the last link; 0 without links.
        digest: of the last link.
    """

    seq: int
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Head:
        """Return the head from the text of `str`.

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


#: The columns that an event's seal covers, in this order: all but the id, which is
#: assigned later.
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
    """Return the bytes that an event's seal covers.

    Args:
        values: the event's columns by name.
    """
    return orjson.dumps([values[name] for name in SEALED_COLUMNS])


def row_content(row: AuditEvent) -> bytes:
    """Return the bytes that the seal of a stored event covers."""
    return event_content({name: getattr(row, name) for name in SEALED_COLUMNS})


def link(before: Head, row: AuditEvent) -> Head:
    """Return the head after linking `row` behind `before`."""
    seq = before.seq + 1
    place = orjson.dumps([seq, row.id, row.seal])
    digest = hashlib.sha256()
    # Each part but the last has a fixed length or is JSON, so the parts cannot shift.
    for part in (b"gatehouse audit 1\0", before.digest, place, row_content(row)):
        digest.update(part)
    return Head(seq, digest.digest())


def link_content(head: Head) -> bytes:
    """Return the bytes that a link's seal covers."""
    return b"link\0%d\0" % head.seq + head.digest


def checkpoint_content(head: Head, made_at: int) -> bytes:
    """Return the bytes that a checkpoint's seal covers."""
    return b"checkpoint\0%d\0%d\0" % (head.seq, made_at) + head.digest
