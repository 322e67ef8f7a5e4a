"""The ids of a request that other programs write to their logs, too. Pure.

A client can choose both, so only a bounded plain word is taken: it goes into log lines
and into answers as it is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import Final

#: Written by gateways; its name in HTTP/2 and in ASGI is in lower case.
REQUEST_ID: Final = "X-Request-ID"
RAW_REQUEST_ID: Final = b"x-request-id"
RAW_TRACEPARENT: Final = b"traceparent"
_REQUEST_ID_FORM: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
#: W3C Trace Context, section 3.2: version 00, a trace id and a parent id that are not
#: all zeros, flags; lower case.
_TRACEPARENT_FORM: Final = re.compile(
    rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)

#: Names in lower case.
Headers = Iterable[tuple[bytes, bytes]]


def find_request_id(headers: Headers) -> str:
    """Return the one `X-Request-ID` of a plain form; empty when there is none."""
    found = _REQUEST_ID_FORM.fullmatch(find_only(headers, RAW_REQUEST_ID))
    return found[0].decode("ascii") if found else ""


def find_trace_id(headers: Headers) -> str:
    """Return the trace id of the one valid `traceparent`; empty when there is none."""
    found = _TRACEPARENT_FORM.fullmatch(find_only(headers, RAW_TRACEPARENT))
    return found[1].decode("ascii") if found else ""


def find_only(headers: Headers, name: bytes) -> bytes:
    """Return the value of a header; empty when it is missing or repeated."""
    found = [value for header, value in headers if header == name]
    return found[0] if len(found) == 1 else b""


def make_id() -> str:
    """Return a new id: 32 hexadecimal digits.

    It must be unique, not secret: no system call is needed. A forked process has random
    numbers of its own.
    """
    return f"{random.getrandbits(128):032x}"
