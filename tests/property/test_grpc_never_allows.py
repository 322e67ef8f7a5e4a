"""For any bytes the gRPC port answers with a refusal, unless the gate allows.

An empty CheckResponse lets a request pass, so a fault must never end in one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gatehouse_verifier import SimulatedVerifier, started
from tests.support.grpc_checks import check_message, read_verdict
from verifier.check.answers import IDENTITY_HEADERS, Answer
from verifier.check.denials import DenyReason
from verifier.wire.grpc.responses import encode_answer
from verifier.wire.grpc.service import Authorization

IDENTITY = {name.decode().lower() for name in IDENTITY_HEADERS}
POLICIES = '[policies.default]\nrequired_scopes = ["orders:read"]\n'


@pytest.fixture(scope="module")
def verifier() -> SimulatedVerifier:
    return asyncio.run(started(policies=POLICIES))


def assert_refused(encoded: bytes) -> None:
    verdict = read_verdict(encoded)
    assert encoded
    assert not verdict.lets_pass
    assert verdict.status in (400, 401, 403, 503)


@given(message=st.binary(max_size=200))
def test_random_bytes_are_refused(verifier: SimulatedVerifier, message: bytes) -> None:
    assert_refused(Authorization(verifier.gate).check(message))


TEXTS = st.text(max_size=20)
NAMES = st.sampled_from(
    ["authorization", "Authorization", "host", "x-auth-user", "x_auth_user", ":path"]
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "method": TEXTS | st.just("OPTIONS"),
        "path": TEXTS | st.builds("/{}".format, TEXTS),
        "host": TEXTS,
        "policy": st.none() | TEXTS | st.just("default"),
        "headers": st.dictionaries(NAMES | TEXTS, TEXTS, max_size=4),
        "lines": st.lists(st.tuples(NAMES | TEXTS, st.binary(max_size=20)), max_size=4),
    },
)


@given(fields=FIELDS)
def test_messages_without_a_token_are_refused(
    verifier: SimulatedVerifier, fields: dict[str, Any]
) -> None:
    assert_refused(Authorization(verifier.gate).check(check_message(**fields)))


@given(fields=FIELDS, cut=st.integers(min_value=0, max_value=3_000))
def test_messages_with_a_token_pass_with_its_identity_or_not_at_all(
    verifier: SimulatedVerifier, fields: dict[str, Any], cut: int
) -> None:
    """Whole, and cut off anywhere."""
    message = check_message(verifier.issuer.mint(), **fields)
    for sent in (message, message[:cut]):
        encoded = Authorization(verifier.gate).check(sent)
        verdict = read_verdict(encoded)
        if verdict.lets_pass:
            assert verdict.headers.keys() == IDENTITY
            assert verdict.headers["x-auth-user"] == "alice"
            assert "authorization" in verdict.removed
        else:
            assert_refused(encoded)


@given(
    status=st.integers(min_value=-1, max_value=600) | st.just(200),
    names=st.sets(st.sampled_from(IDENTITY_HEADERS)),
    body=st.binary(max_size=20),
)
def test_an_answer_without_the_whole_identity_is_a_refusal(
    status: int, names: set[bytes], body: bytes
) -> None:
    lines = b"".join(b"%b: x\r\n" % name for name in sorted(names))
    answer = Answer(status, b"HTTP/1.1 200 OK\r\n%b\r\n" % lines, body)
    try:
        encoded = encode_answer(answer)
    except UnicodeDecodeError:
        # The service answers such a fault with a refusal.
        return
    is_allow = status == 200 and names == set(IDENTITY_HEADERS)
    assert read_verdict(encoded).lets_pass == is_allow


@pytest.mark.parametrize("reason", list(DenyReason))
def test_every_reason_is_refused(
    verifier: SimulatedVerifier, reason: DenyReason
) -> None:
    assert_refused(encode_answer(verifier.gate.refuse(reason)))
