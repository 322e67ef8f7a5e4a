"""A real HAProxy whose frontend and backend check a token each, in one request."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from shared.feed import EntryKind
from shared.jose import base64url
from tests.support.installed_gateways import require
from tests.support.native_haproxy import running_haproxy
from tests.support.native_tokens import CASES, our_token
from tests.support.processes import free_port
from tests.support.raw_http import RawAnswer, bearer, send
from tests.support.tokens import AUDIENCE, ISSUER, signing_key
from verifier.native.terms import NativeTerms

pytestmark = pytest.mark.processes

PLAIN = NativeTerms("default", ISSUER, AUDIENCE, 5, 3_600, (), (), (), (), ())
SECOND = PLAIN._replace(policy="second")
CLERKS = PLAIN._replace(policy="clerks", required_roles=("clerk",))
#: The second token comes in a header of its own, and is checked by a backend.
SECTIONS = """
frontend two from gatehouse-default
    bind 127.0.0.1:{port}
    timeout client 20s
    timeout http-request 20s
    http-request set-header Authorization %[req.hdr(second)]
    use_backend clerks if {{ req.hdr(policy) clerks }}
    default_backend two
backend two from gatehouse-second
    timeout connect 5s
    timeout server 20s
    http-request return status 200 hdr User %[req.hdr(x-auth-user)] \
        hdr Roles %[req.hdr(x-auth-roles)] hdr Session %[req.hdr(x-auth-session)] \
        hdr Scope %[req.hdr(x-auth-scope)]
backend clerks from gatehouse-clerks
    timeout connect 5s
    timeout server 20s
    http-request return status 200
"""
LIMIT = "global\n    tune.vars.txn-max-size 5500\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where a request is checked twice."""
    require("haproxy")
    port = free_port()
    further = SECTIONS.format(port=port)
    with running_haproxy([PLAIN, SECOND, CLERKS], [signing_key()], further):
        yield port


def ask(port: int, second: str, first: str = "", policy: str = "second") -> RawAnswer:
    lines = [("Second", f"Bearer {second}"), ("Policy", policy)]
    return send(port, headers=[bearer(first or our_token()), *lines])


def test_second_token_names_its_own_key(port: int) -> None:
    """What the first one has left is not the key of a header that nobody knows."""
    assert ask(port, our_token()).status == 200
    unknown = CASES["unknown kid"](int(time.time()))
    assert ask(port, unknown.decode()).status == 401


def test_second_token_without_a_user_has_none(port: int) -> None:
    assert ask(port, our_token()).header("User") == "alice"
    assert not ask(port, our_token(username=None)).header("User")


def test_second_token_without_roles_has_none(port: int) -> None:
    first, second = our_token(roles=["clerk"]), our_token(roles=[])
    assert ask(port, our_token(), first).header("Roles")
    assert not ask(port, second, first).header("Roles")
    assert ask(port, first, first, "clerks").status == 200
    assert ask(port, second, first, "clerks").status == 403


def test_second_token_whose_payload_is_no_base64url_has_no_claims(port: int) -> None:
    """R17: though our key has signed it, the claims of the first are not its own."""
    answers = set()
    # Of one of them the payload has as many bytes as are expected of the second one.
    for sid in ("s", "ss", "sss"):
        first = our_token(sid=sid)
        header, payload, _ = first.split(".")
        ending = "A" * ((1 - len(payload)) % 4)
        signed = f"{header}.{payload}{ending}"
        broken = f"{signed}.{base64url.encode(signing_key().sign(signed.encode()))}"
        assert len(broken.split(".")[1]) % 4 == 1
        answers.add(ask(port, broken, first).status)
    assert answers == {401}


def test_second_token_is_not_looked_up_as_the_first_where_it_has_no_room() -> None:
    """R26: the first one has left its identifiers, for which there was room."""
    require("haproxy")
    port = free_port()
    further = LIMIT + SECTIONS.format(port=port)
    with running_haproxy([PLAIN, SECOND, CLERKS], [signing_key()], further) as site:
        site.writing.confirm(EntryKind.SID, "gone")
        first = our_token(scope="first", sid="first", username="first", roles=["first"])
        statuses = set()
        for length in range(1, 900, 3):
            revoked = our_token(scope="s" * length, sid="gone")
            assert ask(port, revoked, first).status == 401
            # Longer roles than those of the first.
            good = our_token(scope="s" * length, sid="second", roles=["r" * 200])
            answer = ask(port, good, first)
            statuses.add(answer.status)
            assert answer.header("Session") in {None, "second"}
            assert "first" not in (answer.header("User"), answer.header("Roles"))
            assert answer.header("Scope") != "first"
        assert statuses == {200, 401}
