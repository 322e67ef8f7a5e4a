"""The one canonical form of a request's path, or a refusal (R7).

A path that two programs may read differently is how gates are walked around. So nothing
is normalised and guessed here: a path that is not plain already is refused.
"""

from __future__ import annotations

import re
from typing import Final

from shared.claims import is_plain_text
from verifier.check.denials import Denied, DenyReason

# RFC 3986 pchar and "/", without ";", which servlet containers cut off with its tail.
_PLAIN: Final = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@/]|%[0-9A-Fa-f]{2})*")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_ESCAPE_LEFT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_AMBIGUOUS: Final = frozenset("/\\;?#")


def canonical_segments(uri: bytes) -> tuple[str, ...]:
    """Return the decoded segments of a raw request-target's path.

    One trailing slash is dropped, so that `/a` and `/a/` are under one rule; the root is
    the empty tuple. The query is cut off first: rules see the path only (R8).

    Raises:
        Denied: `path_ambiguous` for `..`, `.`, `//`, `%2f`, `%5c`, `;`, NUL and other
            controls, bad or double escapes, invalid UTF-8, or anything not a path.
    """
    path = uri.partition(b"?")[0]
    if not _PLAIN.fullmatch(path):
        raise Denied(DenyReason.PATH_AMBIGUOUS)
    parts = path[1:].split(b"/")
    if parts[-1] == b"":
        parts.pop()
    return tuple(map(_decode_segment, parts))


def _decode_segment(raw: bytes) -> str:
    decoded = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), raw)
    try:
        segment = decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise Denied(DenyReason.PATH_AMBIGUOUS) from None
    if segment in ("", ".", "..") or not _AMBIGUOUS.isdisjoint(segment):
        raise Denied(DenyReason.PATH_AMBIGUOUS)
    # An escape that is left would be decoded by a program that decodes twice.
    if not is_plain_text(segment) or _ESCAPE_LEFT.search(segment):
        raise Denied(DenyReason.PATH_AMBIGUOUS)
    return segment
