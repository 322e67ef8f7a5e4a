"""URLs in settings: those that are fetched or posted to, and those in tokens.

Each function takes the text of a setting and raises `ValueError` with a sentence for
the operator. The text is not repeated, because a URL may hold a secret (R35).
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from shared.configuration.addresses import MAX_PORT, parse_host

_MAX_LENGTH: Final = 2_000
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
#: The characters of a URL (RFC 3986, section 2).
_CHARACTERS: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def check_url(value: str) -> str:
    """Return a URL that secrets may travel to: https, or http to loopback (R21).

    Raises:
        ValueError: for anything else, or with user information, a query, a fragment or
            a trailing slash.
    """
    _check_form(value)
    if "?" in value or "#" in value or value.endswith("/"):
        raise ValueError("must have no query, no fragment and no trailing slash")
    return value


def check_foreign_url(value: str) -> str:
    """Return a URL that secrets may travel to, with any path and query.

    Raises:
        ValueError: as `check_url`, except for a query or a trailing slash.
    """
    _check_form(value)
    if "#" in value:
        raise ValueError("must have no fragment")
    return value


def _check_form(value: str) -> None:
    """Refuse a URL that secrets must not travel to, or that a client cannot read.

    urlsplit drops tabs and line breaks, so the characters are checked before.
    """
    _check_url_characters(value)
    try:
        parts = urlsplit(value)
    except ValueError:  # with a message that may repeat the value
        raise ValueError("must be a URL") from None
    if "@" in parts.netloc:
        raise ValueError("must hold no user name and no password; remove them")
    is_local = parts.hostname in _LOOPBACK
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local):
        raise ValueError("must be https://..., or http:// to loopback")
    _check_url_host(parts)
    if any(segment in {".", ".."} for segment in parts.path.split("/")):
        raise ValueError("must have no . or .. segment in its path")


def _check_url_characters(value: str) -> None:
    if len(value) > _MAX_LENGTH:
        raise ValueError(f"must have {_MAX_LENGTH} characters at most")
    if not value.isascii():
        raise ValueError(
            "must be ASCII; write the host's xn-- form, and %XX in the path"
        )
    if re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError("must have no blank, tab or line break in it; remove it")
    if not _CHARACTERS.fullmatch(value):
        raise ValueError(
            "must have no character that a URL cannot have; write it as %XX"
        )
    if _BAD_ESCAPE.search(value):
        raise ValueError("must have two hexadecimal digits after each %")


def _check_url_host(parts: SplitResult) -> None:
    name, colon, _ = parts.netloc.rpartition("]")[2].partition(":")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or (colon and port is None):
        raise ValueError(f"must have a port from 1 to {MAX_PORT} after its colon")
    try:
        if parts.netloc.startswith("["):
            IPv6Address(parts.hostname or "")
            is_host = not name and "%" not in parts.netloc
        else:
            is_host = bool(parse_host(name))
    except ValueError:
        is_host = False
    if not is_host:
        raise ValueError("must have a host name, an IPv4 or an [IPv6] address")
