"""Scopes: sets of words, as text sorted and space-delimited (RFC 6749, section 3.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from typing import Final

from issuer.errors import InvalidScopeError

#: Everything an administrator may do.
ADMIN_SCOPE: Final = "gatehouse:admin"
#: Lets a client introspect tokens issued to others.
INTROSPECT_SCOPE: Final = "gatehouse:introspect"
#: Lets a client revoke tokens issued to others.
REVOKE_SCOPE: Final = "gatehouse:revoke"

_MAX_SCOPE_CHARS: Final = 1_000
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")


def parse_scope(text: str) -> frozenset[str]:
    """Return the scopes in space-delimited text; none for an empty text.

    Raises:
        InvalidScopeError: for two spaces in a row, or a character or length that RFC
            6749 or this issuer does not allow.
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
        InvalidScopeError: when one is empty, or has a character or length that RFC 6749
            or this issuer does not allow.
    """
    wanted = frozenset(words)
    # Joined with others, "a b" would become two scopes.
    if not all(map(_SCOPE_TOKEN.fullmatch, wanted)):
        raise InvalidScopeError("The scope is malformed.")
    return parse_scope(format_scope(wanted))


def require_subset(wanted: frozenset[str], allowed: Set[str]) -> frozenset[str]:
    """Return the requested scopes; all must be allowed.

    Raises:
        InvalidScopeError: when one is not (RFC 6749, sections 4.4.2 and 6).
    """
    if not wanted <= allowed:
        raise InvalidScopeError("The scope exceeds what may be granted.")
    return wanted


def narrow_scope(wanted: frozenset[str] | None, allowed: str) -> str:
    """Return the granted part of a space-delimited scope.

    Args:
        wanted: the requested part; None requests all.
        allowed: the whole scope.

    Raises:
        InvalidScopeError: when the request exceeds it.
    """
    if wanted is None:
        return allowed
    return format_scope(require_subset(wanted, frozenset(allowed.split())))


def format_scope(scopes: Iterable[str]) -> str:
    """Return the canonical text of these scopes."""
    return " ".join(sorted(set(scopes)))
