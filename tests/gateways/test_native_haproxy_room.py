"""A real HAProxy that has no room for some of its variables (tune.vars.*-max-size).

It sets a variable for whose text it has no room to a 0 or a 1, and one for which it has
no room at all not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shared.feed import EntryKind
from tests.support.installed_gateways import require
from tests.support.native_haproxy import NativeHaproxy, running_haproxy
from tests.support.native_tokens import our_token
from tests.support.raw_http import bearer, send
from tests.support.tokens import AUDIENCE, ISSUER, signing_key
from verifier.native.terms import NativeTerms

pytestmark = pytest.mark.processes

PLAIN = NativeTerms("default", ISSUER, AUDIENCE, 5, 3_600, (), (), (), (), ())
#: Lengths of a scope. The variables of a short one fit, and those of a long one do not.
LENGTHS = range(1, 900)


@pytest.fixture(scope="module")
def site() -> Iterator[NativeHaproxy]:
    require("haproxy")
    limit = "global\n    tune.vars.txn-max-size 5500\n"
    with running_haproxy([PLAIN], [signing_key()], limit) as site:
        yield site


@pytest.mark.parametrize(
    ("kind", "claims", "key", "generation"),
    [
        (EntryKind.JTI, {"jti": "gone"}, "gone", 0),
        (EntryKind.SID, {"sid": "gone"}, "gone", 0),
        (EntryKind.USER, {"sub": "gone", "gen": 2}, "gone", 3),
    ],
)
def test_revoked_token_does_not_pass_whatever_has_no_room(
    site: NativeHaproxy,
    kind: EntryKind,
    claims: dict[str, Any],
    key: str,
    generation: int,
) -> None:
    tokens = [our_token(**claims, scope="s" * length) for length in LENGTHS]
    before = [site.ask(token) for token in tokens]
    assert {200, 401} <= set(before)
    site.writing.confirm(kind, key, generation)
    passing = [n for n, t in zip(LENGTHS, tokens, strict=True) if site.ask(t) == 200]
    assert passing == []


def test_subject_and_session_are_those_of_the_token(site: NativeHaproxy) -> None:
    found = set()
    for length in LENGTHS:
        token = our_token(scope="s" * length)
        answer = send(site.ports["default"], headers=[bearer(token)])
        if answer.status == 200:
            headers = dict(answer.json())
            found.add((headers["x-auth-subject"], headers["x-auth-session"]))
    assert found == {("5f9c1e1e-0000-4000-8000-000000000001", "sid-1")}
