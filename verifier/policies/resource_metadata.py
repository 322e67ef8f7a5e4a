"""Reads what a policy says of its resource to OAuth clients (RFC 9728).

An MCP client, for example, learns from the challenge of a 401 where this document is,
and from the document which authorization server has tokens for the resource.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from verifier.check.policy import ResourceMetadata, TokenPolicy
from verifier.policies.fields import Fields

_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
#: Only what can stand between quotes in a challenge (RFC 9110, section 5.6.4).
_URL: Final = re.compile(r"https?://[!#-\[\]-~]+", re.IGNORECASE)
_USER: Final = re.compile(r"[^/?#]*//[^/?#]*@")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
#: RFC 6749, section 3.3.
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")
_MAX_URL: Final = 500
_MAX_TEXT: Final = 200
#: Of all scopes of one challenge. Gateways hold the head of an answer in one buffer.
_MAX_SCOPES: Final = 1_000
_MAX_DOCUMENT: Final = 8_192
_TEXTS: Final = ("resource_name",)
_URLS: Final = (
    "resource_documentation",
    "resource_policy_uri",
    "resource_tos_uri",
)
_FIELDS: Final = (
    "resource",
    "authorization_servers",
    "scopes_supported",
    *_TEXTS,
    *_URLS,
)


def read_resource_metadata(
    where: str, table: Any, token: TokenPolicy, scopes: Iterable[frozenset[str]]
) -> ResourceMetadata:
    """Return the document and its address.

    Args:
        where: names the table in messages.
        table: what the file has there.
        token: of the policy; its issuers are the authorization servers by default.
        scopes: those of one challenge, for the policy and each rule.

    Raises:
        PolicyError: naming the field that is wrong.
    """
    fields = Fields(where, table, _FIELDS)
    resource = _read_url(fields, "resource", required=True)
    parts = urlsplit(resource)
    if parts.query or parts.fragment or "?" in resource:
        raise fields.fail("resource", "must have no query and no fragment")
    for together in scopes:
        _check_scopes(fields, together)
    document: dict[str, Any] = {
        "resource": resource,
        "authorization_servers": _read_servers(
            fields, [terms.issuer for terms in token.issuers]
        ),
        # Never in a query or a body: those end up in logs (RFC 9700, section 4.3.2).
        "bearer_methods_supported": ["header"],
    }
    supported = fields.read_words("scopes_supported", is_choice=True)
    if supported:
        _check_scopes(fields, supported)
        document["scopes_supported"] = sorted(supported)
    for name in _TEXTS:
        if name in fields:
            document[name] = _read_name(fields, name)
    for name in _URLS:
        if name in fields:
            document[name] = _read_url(fields, name)
    encoded = orjson.dumps(document)
    if len(encoded) > _MAX_DOCUMENT:
        raise fields.fail("resource", f"the document is over {_MAX_DOCUMENT} bytes")
    return ResourceMetadata(_well_known_url(resource), encoded)


def _well_known_url(resource: str) -> str:
    """Put the well-known path between host and path (RFC 9728, section 3.1)."""
    parts = urlsplit(resource)
    path = "" if parts.path == "/" else parts.path
    return f"{parts.scheme}://{parts.netloc}{_WELL_KNOWN}{path}"


def _read_url(fields: Fields, name: str, *, required: bool = False) -> str:
    url = fields.read_text(name, "")
    if required and name not in fields:
        raise fields.fail(name, "is missing; it is the URL that clients call")
    _check_url(fields, name, url)
    return url


def _check_url(fields: Fields, name: str, url: str) -> None:
    if _USER.match(url):
        # Not repeated: it may have a password.
        raise fields.fail(name, "must be a URL with no user name and no password")
    rule = f"{url[:_MAX_URL]!r} is no https URL of at most {_MAX_URL} characters"
    if not _URL.fullmatch(url) or len(url) > _MAX_URL:
        raise fields.fail(name, rule)
    try:
        parts = urlsplit(url)
        port_is_good = parts.port != 0
    except ValueError:
        raise fields.fail(name, rule) from None
    if not parts.hostname or parts.username is not None or not port_is_good:
        raise fields.fail(name, rule)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise fields.fail(name, "must begin with https:// (http for loopback only)")


def _read_servers(fields: Fields, issuers: list[str]) -> list[str]:
    """Return the authorization servers in their order; the client takes the first."""
    servers = fields.read_list("authorization_servers")
    if "authorization_servers" in fields and not servers:
        raise fields.fail("authorization_servers", "must not be empty")
    for server in servers:
        if not isinstance(server, str):
            raise fields.fail("authorization_servers", "must be a list of URLs")
        _check_url(fields, "authorization_servers", server)
    return servers or issuers


def _read_name(fields: Fields, name: str) -> str:
    text = fields.read_text(name, "")
    if not text or not text.isprintable() or len(text) > _MAX_TEXT:
        raise fields.fail(name, f"must be a text of 1..{_MAX_TEXT} characters")
    return text


def _check_scopes(fields: Fields, scopes: frozenset[str]) -> None:
    for scope in sorted(scopes):
        if not _SCOPE.fullmatch(scope):
            rule = f"the scope {scope!r} cannot stand in a challenge (RFC 6749, 3.3)"
            raise fields.fail("scopes_supported", rule)
    if len(" ".join(scopes)) > _MAX_SCOPES:
        raise fields.fail(
            "scopes_supported",
            f"the scopes of one challenge are over {_MAX_SCOPES} characters",
        )
