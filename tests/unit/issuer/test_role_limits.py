"""The grants of roles fit into a token and into the identity headers (R17, R63)."""

from __future__ import annotations

import pytest

from issuer.errors import InvalidRequestError
from issuer.http.authorization.scopes import format_scope
from issuer.roles.role_limits import (
    MAX_GRANTED_CHARS,
    MAX_GRANTED_HEADER_BYTES,
    require_granted_fits,
)
from shared.claims import MAX_IDENTIFIER_CHARS, MAX_USERNAME_CHARS
from shared.identity_headers import MAX_IDENTITY_BYTES


def scopes_of_commas(words: int) -> str:
    """Return scopes of 100 characters, 99 of them commas (2,778 characters: issue
    9).
    """
    return format_scope("," * 99 + chr(ord("a") + number) for number in range(words))


def rule_for(names: list[str], scopes_of: dict[str, str]) -> str:
    with pytest.raises(InvalidRequestError) as raised:
        require_granted_fits(names, scopes_of)
    (problem,) = raised.value.problems
    assert problem.field == "roles"
    return problem.rule


def test_scopes_are_counted_as_in_the_identity_headers() -> None:
    """R63: 2,400 characters of a token are 7,176 bytes in a header."""
    rule = rule_for(["clerk"], {"clerk": scopes_of_commas(24)})
    assert f"{MAX_GRANTED_HEADER_BYTES:,} bytes" in rule
    assert "identity headers" in rule
    require_granted_fits(["clerk"], {"clerk": scopes_of_commas(23)})


def test_percent_signs_count_as_they_are_written() -> None:
    """R63: each is three bytes."""
    scopes = scopes_of_commas(24).replace(",", "%")
    assert "identity headers" in rule_for(["clerk"], {"clerk": scopes})


def test_scopes_of_several_roles_count_together_and_once() -> None:
    """R63."""
    first, second = scopes_of_commas(14), scopes_of_commas(24)
    scopes_of = {"first": first, "second": second, "third": first}
    require_granted_fits(["first", "third"], scopes_of)
    rule_for(["first", "second"], scopes_of)


def test_a_token_that_would_be_too_long_names_its_own_rule() -> None:
    """R17."""
    scopes = format_scope(f"scope-{number:03}" + "x" * 90 for number in range(31))
    rule = rule_for(["clerk"], {"clerk": scopes})
    assert f"{MAX_GRANTED_CHARS:,} characters" in rule


def test_the_largest_grant_leaves_room_for_every_other_header() -> None:
    """R63: user names have up to 4 bytes a character, each written as three."""
    username = MAX_USERNAME_CHARS * 4 * 3
    assert MAX_IDENTIFIER_CHARS == 256
    # A UUID for the user, one with a status mark for the session, our own client_id.
    others = username + 36 + 64 + 16
    assert MAX_GRANTED_HEADER_BYTES + others <= MAX_IDENTITY_BYTES
