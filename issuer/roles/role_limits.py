"""Limits on what roles grant: all of it must fit into token and identity headers.

Names of roles and scopes are in every token of a holder, and a verifier reads 8,000
bytes at most (R17): 6,000 before base64, including the signature and all other claims.
They are also in the identity headers, percent-encoded, which have their own bound
(R63). A change that does not fit is refused here, not at the next login.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.errors import InvalidRequestError, InvalidScopeError
from issuer.http.authorization.scopes import format_scope, parse_scope
from issuer.storage.tables.roles import Role, UserRole
from shared.identity_headers import MAX_IDENTITY_BYTES, measure_words

#: Names are in identity headers, in paths and in lists separated by spaces.
ROLE_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
MAX_ROLES_PER_USER: Final = 32
MAX_SCOPES_PER_ROLE: Final = 64
MAX_DESCRIPTION_CHARS: Final = 200
#: A user's role names and scopes together, three more for each: quotes and comma.
MAX_GRANTED_CHARS: Final = 3_000
_PUNCTUATION: Final = 3
#: The same as header values. What `MAX_IDENTITY_BYTES` allows beyond is for the other
#: identity headers: a user name alone takes up to 768 bytes.
MAX_GRANTED_HEADER_BYTES: Final = MAX_IDENTITY_BYTES - 1_000
_TOO_MUCH_FOR_TOKEN: Final = (
    "would let a user's roles and scopes take more than "
    f"{MAX_GRANTED_CHARS:,} characters of an access token, "
    f"{_PUNCTUATION} for each added"
)
_TOO_MUCH_FOR_HEADERS: Final = (
    "would let a user's roles and scopes take more than "
    f"{MAX_GRANTED_HEADER_BYTES:,} bytes in the identity headers, "
    "where a comma or a percent sign takes three"
)


def read_scopes(words: Sequence[str]) -> str:
    """Return the canonical text of these scopes.

    Raises:
        InvalidRequestError: when one is malformed, or they are too long together.
    """
    try:
        # Each word first: one with a space would become two.
        if all(len(parse_scope(word)) == 1 for word in words):
            return format_scope(parse_scope(format_scope(words)))
    except InvalidScopeError:
        pass
    rule = "must be scope words (RFC 6749, section 3.3), together 1,000 characters"
    raise InvalidRequestError.of_field("scopes", rule)


def require_granted_fits(names: Collection[str], scopes_of: Mapping[str, str]) -> None:
    """Return when everything that these roles grant fits into an access token.

    Args:
        names: the roles.
        scopes_of: the scopes of each, space-delimited.

    Raises:
        InvalidRequestError: when it does not.
    """
    _require_fits("roles", names, scopes_of)


async def require_holders_fit(db: AsyncSession, changed: str, scopes: str) -> None:
    """Return when every holder of the role `changed` would still fit into a token.

    Args:
        db: a transaction with a lock on the role's row.
        changed: the role's name.
        scopes: that it will grant.

    Raises:
        InvalidRequestError: when one would not.
    """
    rows = await db.execute(select(Role.name, Role.scopes))
    scopes_of = {row.name: row.scopes for row in rows} | {changed: scopes}
    holders = select(UserRole.user_id).where(UserRole.role_name == changed)
    # Sets of roles, not users: many users have the same few.
    sets = await db.scalars(
        select(func.aggregate_strings(UserRole.role_name, " "))
        .where(UserRole.user_id.in_(holders))
        .group_by(UserRole.user_id)
        .distinct()
    )
    for names in [changed, *sets]:
        _require_fits("scopes", names.split(), scopes_of)


def _require_fits(
    field: str, names: Collection[str], scopes_of: Mapping[str, str]
) -> None:
    scopes = {scope for name in names for scope in scopes_of[name].split()}
    granted = [*names, *scopes]
    if sum(len(word) + _PUNCTUATION for word in granted) > MAX_GRANTED_CHARS:
        raise InvalidRequestError.of_field(field, _TOO_MUCH_FOR_TOKEN)
    if measure_words(granted) > MAX_GRANTED_HEADER_BYTES:
        raise InvalidRequestError.of_field(field, _TOO_MUCH_FOR_HEADERS)
