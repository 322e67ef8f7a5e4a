"""What Envoy asks over gRPC and reads of the answer, with Envoy's own messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

from verifier.wire.grpc.service import METHOD, SERVICE

CHECK = f"/{SERVICE}/{METHOD}"


def check_message(
    token: bytes | None = None,
    *,
    method: str = "GET",
    path: str = "/orders",
    host: str = "shop.test",
    policy: str | None = "default",
    headers: Mapping[str, str] | None = None,
    lines: Sequence[tuple[str, bytes]] = (),
) -> bytes:
    """Return the CheckRequest for one request of a client.

    Args:
        token: the access token, in `headers`.
        method: the client's.
        path: with the query.
        host: empty for none.
        policy: None where the route names none.
        headers: as Envoy sends them usually, repeated ones joined.
        lines: as it sends them with `encode_raw_headers`.
    """
    message = CheckRequest()
    attributes: Any = message.attributes
    http = attributes.request.http
    http.method, http.path, http.host = method, path, host
    http.headers.update(headers or {})
    if token is not None:
        http.headers["authorization"] = f"Bearer {token.decode()}"
    for name, value in lines:
        http.header_map.headers.add(key=name, raw_value=value)
    if policy is not None:
        attributes.context_extensions["policy"] = policy
    # Else the order of a map differs between processes, and with it the names of tests.
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded


@dataclass(frozen=True, slots=True)
class Verdict:
    """A CheckResponse as Envoy acts on it.

    Attributes:
        lets_pass: whether the request goes to the application.
        status: of the answer to the client; 200 for one that passes.
        headers: that the application, or the client, gets.
        removed: headers of the client that the application does not get.
        body: of the answer to the client.
    """

    lets_pass: bool
    status: int
    headers: dict[str, str]
    removed: tuple[str, ...] = ()
    body: str = ""


def read_verdict(encoded: bytes) -> Verdict:
    """Read a CheckResponse; fails where a header could be one beside another."""
    response: Any = CheckResponse.FromString(encoded)
    # Envoy looks at the status alone: also at that of a message without one.
    if response.status.code == 0:
        allowed = response.ok_response
        removed = tuple(allowed.headers_to_remove)
        return Verdict(True, 200, _read_headers(allowed.headers), removed)
    denied = response.denied_response
    return Verdict(
        False, denied.status.code, _read_headers(denied.headers), body=denied.body
    )


def _read_headers(changes: Sequence[Any]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for change in changes:
        assert change.header.key not in headers
        assert change.HasField("append"), change
        assert not change.append.value
        assert change.append_action == change.OVERWRITE_IF_EXISTS_OR_ADD
        assert change.keep_empty_value
        headers[change.header.key] = change.header.value
    return headers
