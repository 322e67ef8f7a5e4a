"""Answers apart from their decision ids, which differ from one to the next."""

from __future__ import annotations

import re

from verifier.check.answers import Answer

_LINE = re.compile(rb"x-auth-decision-id: ?[0-9a-f]{16}\r\n", re.IGNORECASE)


def without_ids(data: bytes) -> bytes:
    """Return the bytes of answers without the lines of their decision ids."""
    return _LINE.sub(b"", data)


def without_id(answer: Answer) -> Answer:
    """Return the answer without the line of its decision id."""
    return Answer(answer.status, without_ids(answer.head), answer.body)
