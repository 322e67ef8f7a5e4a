"""Audiences of a client's tokens. Pure.

A token has one audience (RFC 9700, section 2.3): an API cannot use it at another API.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from issuer.errors import InvalidRequestError, InvalidTargetError

#: The most audiences a client may have.
MAX_AUDIENCES: Final = 20
#: The parameters of RFC 8707 and of RFC 8693, which more servers support.
TARGET_PARAMETERS: Final = ("resource", "audience")
_AUDIENCE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")


def format_audiences(audiences: Iterable[str]) -> str:
    """Return the canonical, space-delimited text of these audiences.

    Raises:
        InvalidRequestError: for a malformed one, or too many.
    """
    wanted = sorted(set(audiences))
    if len(wanted) > MAX_AUDIENCES or not all(map(_AUDIENCE.fullmatch, wanted)):
        rule = (
            f"must be at most {MAX_AUDIENCES}, each of 1 to 256 printable ASCII "
            "characters without spaces, quotes and backslashes"
        )
        raise InvalidRequestError.of_field("audiences", rule)
    return " ".join(wanted)


def choose_audience(
    form: Mapping[str, str], allowed: frozenset[str], own_audience: str
) -> str:
    """Return the audience of a token.

    Args:
        form: the parameters of the request, which may include `resource` or `audience`.
        allowed: the audiences the token may have; if empty, the issuer's own.
        own_audience: the issuer's, used when none is named.

    Raises:
        InvalidTargetError: when the named one is not allowed, when two are named, or
            when none is named and several are allowed (RFC 8707, section 2).
    """
    possible = allowed or frozenset([own_audience])
    named = {form[name] for name in TARGET_PARAMETERS if name in form}
    if not named:
        named = {own_audience} if own_audience in possible else set(possible)
    if len(named) != 1:
        raise InvalidTargetError("Name one audience in resource or in audience.")
    (audience,) = named
    if audience not in possible:
        raise InvalidTargetError
    return audience
