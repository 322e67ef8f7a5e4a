"""Envoy and HAProxy that check tokens by themselves (docs/native.md).

What the common suite cannot show of them is left out here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tests.support.gateway_kinds.envoy import ENVOY
from tests.support.gateway_kinds.haproxy import HAPROXY
from verifier.doctor.differences import differences_of

_NO_QUESTION: Final = "no request asks a verifier"
_REFUSED_POLICY: Final = (
    "such a policy stops the start (unit/verifier/test_native_terms)"
)

#: Files of tests/gateways that are left out, by their names without `.py`, and why.
_LEFT_OUT: Final[Mapping[str, str]] = {
    "test_policies": f"R7, R8: rules by path and method; {_REFUSED_POLICY}",
    "test_preflight": f"R65: a preflight passes without a token; {_REFUSED_POLICY}",
    "test_decision_ids": "a gateway makes no decision ids; `native` needs none",
    "test_request_ids": f"an id that the verifier gets as well: {_NO_QUESTION}",
    "test_access_logs": f"refusals of the verifier, in the gateway's log: {_NO_QUESTION}",
    "test_identity_size": "R63: tokens of another issuer, which are not taken natively",
    "test_verifier_away": f"R38: {_NO_QUESTION}; without news it closes, in "
    "test_doctor, test_native_envoy and test_native_haproxy",
    "test_unix_sockets": _NO_QUESTION,
    "test_a_url_that_is_too_long_is_the_clients_fault": "R64: 8 kB are the limit of a "
    "question to the verifier; here that of the application counts",
    "test_foreign_answers": _NO_QUESTION,
    "test_end_of_session": "R24, R29: with every kind of revocation in "
    "test_native_envoy and test_native_haproxy, through the issuer in test_make_up",
}
#: What is the same text in the config of the kind that asks, and runs there
#: (unit/test_native_configs).
_SAME_LINES: Final[Mapping[str, str]] = dict.fromkeys(
    ("test_bodies", "test_grpc"), "R64: lines of the kind that asks"
)

#: They take minutes together, and show what test_scenarios, and real gateways in
#: test_native_envoy and test_native_haproxy, show of the same lines.
_IN_MATRIX_ONLY: Final = frozenset(
    ("test_requests", "test_kinds", "test_streams", "test_many_streams")
)

ENVOY_NATIVE: Final = replace(
    ENVOY,
    passes_by_prefix=False,
    passes_problems=False,
    can_ask_over_unix=False,
    add_log=None,
    left_out=_LEFT_OUT
    | _SAME_LINES
    | {
        "test_a_connection_serves_many_requests": "R64: Envoy refuses a request with a "
        "body before its end, and says that it closes the connection",
    },
    in_matrix_only=_IN_MATRIX_ONLY,
    differences=differences_of("envoy-native"),
)
HAPROXY_NATIVE: Final = replace(
    HAPROXY,
    passes_by_prefix=False,
    passes_problems=False,
    can_ask_over_unix=False,
    left_out=_LEFT_OUT | _SAME_LINES,
    in_matrix_only=_IN_MATRIX_ONLY,
    differences=differences_of("haproxy-native"),
)
