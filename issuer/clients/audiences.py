"""Audiences: for whom a client's tokens are meant. Touches nothing.

One token has one audience (RFC 9700, section 2.3): what one API gets shown it cannot
show to another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from issuer.errors import FieldProblem, InvalidRequestError, InvalidTargetError

#: The most audiences a client may have.
MAX_AUDIENCES: Final = 20
#: RFC 8707's parameter, and that of RFC 8693, which other servers know better.
TARGET_PARAMETERS: Final = ("resource", "audience")
_AUDIENCE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")


def format_audiences(audiences: Iterable[str]) -> str:
    """Return the one text that names these audiences, space-delimited.

    Raises:
        InvalidRequestError: for a malformed one, or too many.
    """
    wanted = sorted(set(audiences))
    if len(wanted) > MAX_AUDIENCES or not all(map(_AUDIENCE.fullmatch, wanted)):
        rule = (
            f"must be at most {MAX_AUDIENCES}, each of 1 to 256 printable ASCII "
            "characters without spaces, quotes and backslashes"
        )
        raise InvalidRequestError(problems=[FieldProblem("audiences", rule)])
    return " ".join(wanted)


def choose_audience(
    form: Mapping[str, str], allowed: frozenset[str], own_audience: str
) -> str:
    """Return the audience of a token.

    Args:
        form: the parameters of the request, among them perhaps `resource` or
            `audience`.
        allowed: the audiences the token may have; none: the issuer's own.
        own_audience: the issuer's, which is taken when none is named.

    Raises:
        InvalidTargetError: when it may not have the one that is named, when two are
            named, or none where none can be guessed (RFC 8707, section 2).
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
