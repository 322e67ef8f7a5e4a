"""A client's request as people describe it, and the check request a gateway would send.

`/explain` and `policy explain` read the same description.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from verifier.check.forward_auth import DIALECTS, PREFIX, PlainCheckRequest
from verifier.check.policy import DEFAULT_POLICY

_TEXTS: Final = ("token", "policy", "dialect", "method", "host", "uri")
_MEMBERS: Final = (*_TEXTS, "headers")


class DescribedRequestError(ValueError):
    """The description cannot be used; the message says why, and repeats nothing."""


def read_described_request(described: Mapping[str, Any]) -> PlainCheckRequest:
    """Return the check request that a gateway would send about a request.

    Args:
        described: `token`, `policy`, `dialect` (the gateway, `nginx` when left out),
            `method`, `host`, `uri`, all texts; `headers` of the client, each a text or
            a list of texts. Without a token the request has no credential, unless it is
            one of the headers.

    Raises:
        DescribedRequestError: naming the member.
    """
    if not all(name in _MEMBERS for name in described):
        raise DescribedRequestError(
            f"Only these members are known: {', '.join(_MEMBERS)}; or decision_id alone."
        )
    for name in _TEXTS:
        if not isinstance(described.get(name, ""), str):
            raise DescribedRequestError(f"{name}: must be a text.")
    dialect = DIALECTS.get(described.get("dialect", "nginx").encode())
    if dialect is None:
        names = ", ".join(name.decode() for name in DIALECTS)
        raise DescribedRequestError(f"dialect: must be one of {names}.")
    # `%` is no policy's name: an empty one has no path.
    policy = quote(described.get("policy", DEFAULT_POLICY), safe="") or "%"
    target = b"%b%b/p/%b" % (PREFIX, dialect.name.encode(), policy.encode())
    headers = _read_headers(described.get("headers", {}))
    if "token" in described:
        headers.append((b"authorization", b"Bearer " + described["token"].encode()))
    method, host, uri = [
        described.get(name, "").encode() for name in ("method", "host", "uri")
    ]
    own_method = b"GET"
    if not dialect.uri_header:
        if uri and not uri.startswith(b"/"):
            raise DescribedRequestError("uri: must begin with / in this dialect.")
        # Envoy appends the client's path, and uses its method.
        target, own_method = target + uri, method or own_method
    for header, value in (
        (dialect.method_header, method),
        (dialect.host_header, host),
        (dialect.uri_header, uri),
    ):
        if header and value:
            headers.append((header, value))
    return PlainCheckRequest(own_method, target, headers, peer_is_trusted=True)


def _read_headers(headers: Any) -> list[tuple[bytes, bytes]]:
    """Return names in lower case, with their values.

    Raises:
        DescribedRequestError: for anything but an object of texts and lists of texts.
    """
    if not isinstance(headers, dict):
        raise DescribedRequestError("headers: must be an object of texts.")
    pairs = [
        (name.lower().encode(), value)
        for name, values in headers.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    if not all(isinstance(value, str) for _, value in pairs):
        raise DescribedRequestError("headers: must be texts, or lists of texts.")
    return [(name, value.encode()) for name, value in pairs]
