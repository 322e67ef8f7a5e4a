"""Scopes: sets of words, as text sorted and space-delimited (RFC 6749, section 3.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from typing import Final

from issuer.errors import InvalidScopeError

#: Everything an administrator may do.
ADMIN_SCOPE: Final = "gatehouse:admin"
#: Lets a client ask about tokens that were issued to others.
INTROSPECT_SCOPE: Final = "gatehouse:introspect"
#: Lets a client revoke tokens that were issued to others.
REVOKE_SCOPE: Final = "gatehouse:revoke"

_MAX_SCOPE_CHARS: Final = 1_000
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")


def parse_scope(text: str) -> frozenset[str]:
    """Return the scopes that space-delimited `text` names; none for the empty text.

    Raises:
        InvalidScopeError: for two spaces in a row, a character or a length that RFC
            6749 or we do not allow.
    """
    if not text:
        return frozenset()
    words = text.split(" ")
    if len(text) > _MAX_SCOPE_CHARS or not all(map(_SCOPE_TOKEN.fullmatch, words)):
        raise InvalidScopeError("The scope is malformed.")
    return frozenset(words)


def read_scopes(words: Iterable[str]) -> frozenset[str]:
    """Return the scopes of a list, each word one scope.

    Raises:
        InvalidScopeError: when one is empty, or of a character or a length that RFC
            6749 or we do not allow.
    """
    wanted = frozenset(words)
    # Joined, "a b" would be two.
    if not all(map(_SCOPE_TOKEN.fullmatch, wanted)):
        raise InvalidScopeError("The scope is malformed.")
    return parse_scope(format_scope(wanted))


def require_subset(wanted: frozenset[str], allowed: Set[str]) -> frozenset[str]:
    """Return the wanted scopes, all of which are allowed.

    Raises:
        InvalidScopeError: when one is not (RFC 6749, sections 4.4.2 and 6).
    """
    if not wanted <= allowed:
        raise InvalidScopeError("The scope exceeds what may be granted.")
    return wanted


def narrow_scope(wanted: frozenset[str] | None, allowed: str) -> str:
    """Return what is granted of a space-delimited scope.

    Args:
        wanted: the part that is asked for; None: all of it.
        allowed: all of it.

    Raises:
        InvalidScopeError: when more is asked for.
    """
    if wanted is None:
        return allowed
    return format_scope(require_subset(wanted, frozenset(allowed.split())))


def format_scope(scopes: Iterable[str]) -> str:
    """Return the one text that names these scopes."""
    return " ".join(sorted(set(scopes)))
