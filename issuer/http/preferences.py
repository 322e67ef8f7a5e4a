"""The `Prefer` header (RFC 7240); only the preference `wait` is used."""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers

#: The longest wait of a request, in seconds.
MAX_PREFERRED_WAIT: Final = 30
_PREFERENCE: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_NAME: Final = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)")
_SECONDS: Final = re.compile(
    r'\s*wait\s*=\s*("?)([0-9]{1,18})\1\s*(?:;.*)?', re.I | re.S
)


def read_preferred_wait(headers: Headers) -> int | None:
    """Return the seconds of `Prefer: wait=S`, capped; None without that preference.

    A malformed preference is ignored (RFC 7240, section 2), and only the first of
    several counts.
    """
    for preference in _PREFERENCE.findall(",".join(headers.getlist("Prefer"))):
        name = _NAME.match(preference)
        if name is not None and name[1].lower() == "wait":
            seconds = _SECONDS.fullmatch(preference)
            return min(int(seconds[2]), MAX_PREFERRED_WAIT) if seconds else None
    return None
