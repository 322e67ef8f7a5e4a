"""Any text that may stand in a token becomes a header value and can be read back
(R12).
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.claims import REQUIRED_CLAIMS, is_identifier, is_plain_text
from tests.support.proofs import examples
from tests.support.tokens import good_claims
from verifier.check.answers import IDENTITY_HEADERS, allow_answer
from verifier.check.claims import claims_of
from verifier.check.denials import Denied
from verifier.check.verify import SignedClaims

pytestmark = pytest.mark.proof

# words of visible ASCII without "," separated by one space; or nothing
VALUE = re.compile(rb"(?:[!-+\--~]+(?: [!-+\--~]+)*)?")
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.text("ab ,%\r\n\x00é\u202e\ud800", max_size=8),
)


@settings(deadline=None, max_examples=examples(400))
@given(TEXTS, TEXTS, TEXTS, TEXTS, st.lists(TEXTS, max_size=3), TEXTS)
def test_any_accepted_text_is_visible_ascii_and_decodes_back(
    sub: str, username: str, client_id: str, sid: str, roles: list[str], scope: str
) -> None:
    changes: dict[str, Any] = {
        "sub": sub,
        "username": username,
        "client_id": client_id,
        "sid": sid,
        "roles": roles,
        "scope": scope,
    }
    identifiers = [sub, client_id, sid, *roles]
    is_acceptable = all(map(is_identifier, identifiers)) and all(
        map(is_plain_text, (username, scope))
    )
    try:
        claims = claims_of(good_claims(0) | changes, REQUIRED_CLAIMS)
    except Denied:
        assert not is_acceptable
        return
    assert is_acceptable
    answer = allow_answer(SignedClaims(claims), b"allow")
    headers = dict(answer.headers)
    assert list(headers) == [b"Content-Length", *IDENTITY_HEADERS]
    assert all(VALUE.fullmatch(value) for value in headers.values())
    assert answer.head.count(b"\r\n") == len(headers) + 2

    def decoded(name: str) -> str:
        return unquote(headers[b"X-Auth-" + name.encode()].decode("ascii"))

    def words(name: str) -> list[str]:
        value = headers[b"X-Auth-" + name.encode()].decode("ascii")
        return [unquote(word) for word in value.split(" ")] if value else []

    assert decoded("Subject") == sub
    assert decoded("User") == username
    assert decoded("Client") == client_id
    assert decoded("Session") == sid
    assert words("Roles") == roles
    assert words("Scope") == [word for word in scope.split(" ") if word]


@settings(deadline=None, max_examples=examples(200))
@given(TEXTS)
def test_characters_that_hide_or_break_a_line_are_never_accepted(text: str) -> None:
    for hostile in (f"{text}\r\n", f"\x00{text}", f"{text}\ud800", f"\u202e{text}"):
        for changes in (
            {"sub": hostile},
            {"username": hostile},
            {"roles": ["a", hostile]},
            {"scope": hostile},
        ):
            try:
                claims_of(good_claims(0) | changes, REQUIRED_CLAIMS)
            except Denied:
                continue
            raise AssertionError(f"accepted: {changes!r}")
