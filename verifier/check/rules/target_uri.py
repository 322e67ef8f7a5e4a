"""The one canonical form of a request's host and path, or a refusal (R7).

If gate and application read a path differently, a client can bypass a rule. So no path
is normalised here: one that is not in the canonical form is refused. Of a host only
case, port and a final dot are dropped, which name the same host to every program.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from shared.claims import is_plain_text
from verifier.check.denials import Denied, DenyReason

# RFC 3986 pchar and "/", without ";": servlet containers cut a path there.
_PLAIN: Final = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@/]|%[0-9A-Fa-f]{2})*")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_ESCAPE_LEFT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
# A host name or an IPv4 address, or an IPv6 address in brackets (RFC 3986, 3.2.2), with
# a port. Underscores occur in names of services.
_HOST: Final = re.compile(
    rb"([a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?|\[[0-9a-f:.]{2,45}\])\.?(?::[0-9]{1,5})?"
)
_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyz0123456789"
_SIMPLE: Final = _LETTERS + _LETTERS.upper() + b"/-._~$!'&()*+,=:@"
#: A letter for every simple byte, and none for the others.
_MARKED: Final = bytes(ord("a") if byte in _SIMPLE else 0 for byte in range(256))
_AMBIGUOUS: Final = frozenset("/\\;?#")


# A gateway serves few hosts; a flood of others displaces these only.
@lru_cache(maxsize=256)
def canonical_host(host: bytes) -> str:
    """Return the host in lower case, without its port and a final dot.

    An IPv6 address gets its shortest form (RFC 5952).

    Raises:
        Denied: `forwarded_malformed` for anything but one name or address.
    """
    match = _HOST.fullmatch(host.lower())
    if match is None or b".." in match[1]:
        raise Denied(DenyReason.FORWARDED_MALFORMED)
    name = match[1].decode("ascii")
    if not name.startswith("["):
        return name
    try:
        return f"[{IPv6Address(name[1:-1])}]"
    except ValueError:
        raise Denied(DenyReason.FORWARDED_MALFORMED) from None


def canonical_segments(uri: bytes) -> tuple[str, ...]:
    """Return the decoded segments of a raw request-target's path.

    One trailing slash is dropped, so `/a` and `/a/` match the same rules. The root is
    the empty tuple. The query is cut off first: rules match the path only (R8).

    Raises:
        Denied: `path_ambiguous` for `..`, `.`, `//`, `%2f`, `%5c`, `;`, NUL and other
            controls, bad or double escapes, invalid UTF-8, or a target without a path.
    """
    path = uri.partition(b"?")[0]
    # Most paths have no escape and no segment that begins with a dot. This is half the
    # price of a regular expression, and `in` is cheap for text only (0.7 us in all).
    if path.translate(_MARKED).isalpha():
        text = path.decode("ascii")
        if text[0] == "/" and "//" not in text and "/." not in text:
            return tuple(text.strip("/").split("/")) if text != "/" else ()
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
