"""User names: one normal form, made once at the edge (requirement R36).

Two names that look or compare alike must not be two accounts: otherwise an attacker
could register the full-width spelling of an administrator's name.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from issuer.accounts.visible_text import is_visible_text
from issuer.errors import InvalidRequestError
from shared.claims import MAX_USERNAME_CHARS, is_plain_text

# Cn unassigned: a later Unicode version may fold it and so change the account's key. Co
# private use: may look like anything.
_UNSETTLED_CATEGORIES: Final = frozenset({"Cn", "Co"})


def normalise_username(text: str) -> str:
    """Return the normal form: NFKC and case-folded, the only key of an account.

    The normal form of a normal form is itself.

    Raises:
        InvalidRequestError: naming the rule, when the normal form does not have 1..64
            code points, begins or ends with white space, or has a control character, a
            direction mark, a lone surrogate or a code point without a fixed meaning.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Folding can produce characters that are not normalised (U+1E9E, for example).
    name = unicodedata.normalize("NFKC", folded)
    if not 1 <= len(name) <= MAX_USERNAME_CHARS:
        raise _refuse(f"must have 1 to {MAX_USERNAME_CHARS} characters")
    if name != name.strip():
        raise _refuse("must not begin or end with white space")
    if not is_plain_text(name) or not _is_settled(name):
        raise _refuse("must not hold control, direction or unassigned characters")
    return name


def read_new_username(text: str) -> str:
    """Return the normal form of a new name.

    Stricter than `normalise_username`, which existing accounts log in by.

    Raises:
        InvalidRequestError: as `normalise_username`, and when a character is invisible
            or blank.
    """
    name = normalise_username(text)
    require_visible(name)
    return name


def require_visible(name: str) -> None:
    """Return when every character of a name in normal form is visible.

    Raises:
        InvalidRequestError: when one is invisible or blank.
    """
    if not is_visible_text(name):
        raise _refuse("must not hold characters that show as nothing or as a blank")


def _is_settled(name: str) -> bool:
    return not any(unicodedata.category(c) in _UNSETTLED_CATEGORIES for c in name)


def _refuse(rule: str) -> InvalidRequestError:
    return InvalidRequestError.of_field("username", rule)
