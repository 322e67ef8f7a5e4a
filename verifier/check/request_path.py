"""The one canonical form of a request's path, or a refusal (R7).

If gate and application read a path differently, a client can bypass a rule. So nothing
is normalised here: a path that is not in the canonical form is refused.
"""

from __future__ import annotations

import re
from typing import Final

from shared.claims import is_plain_text
from verifier.check.denials import Denied, DenyReason

# RFC 3986 pchar and "/", without ";": servlet containers cut a path there.
_PLAIN: Final = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@/]|%[0-9A-Fa-f]{2})*")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_ESCAPE_LEFT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_AMBIGUOUS: Final = frozenset("/\\;?#")


def canonical_segments(uri: bytes) -> tuple[str, ...]:
    """Return the decoded segments of a raw request-target's path.

    One trailing slash is dropped, so `/a` and `/a/` match the same rules. The root is
    the empty tuple. The query is cut off first: rules match the path only (R8).

    Raises:
        Denied: `path_ambiguous` for `..`, `.`, `//`, `%2f`, `%5c`, `;`, NUL and other
            controls, bad or double escapes, invalid UTF-8, or a target without a path.
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
    # A program that decodes twice would decode an escape that is left.
    if not is_plain_text(segment) or _ESCAPE_LEFT.search(segment):
        raise Denied(DenyReason.PATH_AMBIGUOUS)
    return segment
