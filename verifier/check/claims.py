"""The claims of an access token, read from a payload with their types checked.

Reading does not verify. These claims become `SignedClaims` and `VerifiedClaims` in
`verify.py` only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from shared.claims import (
    MAX_NUMERIC_DATE,
    MAX_USERNAME_CHARS,
    is_identifier,
    is_plain_text,
)
from shared.jose.strict_json import StrictJsonError, read_object
from verifier.check.denials import Denied, DenyReason

#: Names from the payload to a claim: one for a claim itself.
ClaimPath = tuple[str, ...]
#: A claim's value that a policy can compare or send.
Scalar = str | int | bool
_NONE_KEPT: Final[Mapping[ClaimPath, tuple[Scalar, ...]]] = MappingProxyType({})


class ClaimNames(NamedTuple):
    """Where an issuer's tokens have our facts. The defaults are our own tokens.

    Attributes:
        client: the id of the client that asked for the token.
        scopes: text separated by spaces, or a list.
        roles: a list of texts.
        user: the name of the person.
        session: the id of the session.
    """

    client: ClaimPath = ("client_id",)
    scopes: ClaimPath = ("scope",)
    roles: ClaimPath = ("roles",)
    user: ClaimPath = ("username",)
    session: ClaimPath = ("sid",)


class Claims(NamedTuple):
    """The claims we act on; everything else in the payload is ignored.

    Attributes:
        iss, sub, jti, sid, client_id: text; empty when absent and not required.
        audiences: the `aud` claim; a single string becomes a set of one.
        exp, iat, nbf: NumericDate, seconds; `nbf` is 0 when absent.
        gen: the subject's generation when the token was minted; 0 for tokens of other
            issuers.
        scopes: the scopes, in their order.
        roles: the roles, in their order.
        username: the name of the person, empty for programs.
        auth_time: when the person logged in, Unix seconds; 0 when unknown.
        kept: the values at the paths that policies read, those of a list one by one.
    """

    iss: str
    sub: str
    audiences: frozenset[str]
    exp: float
    iat: float
    nbf: float
    jti: str
    sid: str
    gen: int
    client_id: str
    scopes: tuple[str, ...]
    roles: tuple[str, ...]
    username: str
    auth_time: float = 0
    kept: Mapping[ClaimPath, tuple[Scalar, ...]] = _NONE_KEPT


def read_claims(
    unverified_payload: bytes,
    required: AbstractSet[str],
    kept: AbstractSet[ClaimPath] = frozenset(),
    names: ClaimNames | None = None,
) -> Claims:
    """Read the payload's claims (RFC 7519 section 4, RFC 9068 section 2.2).

    Args:
        unverified_payload: the JWS payload.
        required: names of claims that must be present.
        kept: paths of further claims that policies read.
        names: where the claims of another issuer are; None for our own tokens.

    Raises:
        Denied: `claims_malformed` when a claim has the wrong type, `claim_missing`.
    """
    try:
        payload = read_object(unverified_payload)
    except StrictJsonError:
        raise Denied(DenyReason.CLAIMS_MALFORMED) from None
    if names is not None:
        return _foreign_claims_of(payload, required, kept, names)
    return claims_of(payload, required, kept)


def read_unverified_iss(unverified_payload: bytes) -> str:
    """Return the `iss` of a payload whose signature was not checked (R67).

    It may only choose whose keys and terms the token is held against.

    Raises:
        Denied: `issuer_mismatch` when it names none.
    """
    try:
        iss = read_object(unverified_payload).get("iss")
    except StrictJsonError:
        iss = None
    if not isinstance(iss, str):
        raise Denied(DenyReason.ISSUER_MISMATCH)
    return iss


def claims_of(
    payload: dict[str, Any],
    required: AbstractSet[str],
    kept: AbstractSet[ClaimPath] = frozenset(),
) -> Claims:
    """Return the claims of one of our own tokens, whose payload was read.

    Raises:
        Denied: as `read_claims`.
    """
    if not payload.keys() >= required:
        raise Denied(DenyReason.CLAIM_MISSING)
    gen = payload.get("gen", 0)
    # `type(x) is int`: JSON's true is an int to isinstance, and not a generation.
    if type(gen) is not int or gen < 0:
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    return Claims(
        _read_identifier(payload, "iss"),
        _read_identifier(payload, "sub"),
        _read_audiences(payload),
        _read_date(payload, "exp", math.inf),
        _read_date(payload, "iat", 0),
        _read_date(payload, "nbf", 0),
        _read_identifier(payload, "jti"),
        _read_identifier(payload, "sid"),
        gen,
        _read_identifier(payload, "client_id"),
        _read_scopes(payload),
        _read_roles(payload),
        _read_username(payload),
        _read_auth_time(payload),
        {path: _read_values(payload, path) for path in kept} if kept else _NONE_KEPT,
    )


def _foreign_claims_of(
    payload: dict[str, Any],
    required: AbstractSet[str],
    kept: AbstractSet[ClaimPath],
    names: ClaimNames,
) -> Claims:
    """Return the claims of another issuer's token; our facts are where `names` says.

    Raises:
        Denied: as `read_claims`.
    """
    if not payload.keys() >= required:
        raise Denied(DenyReason.CLAIM_MISSING)
    scopes = _find(payload, names.scopes, ())
    return Claims(
        _read_identifier(payload, "iss"),
        _read_identifier(payload, "sub"),
        _read_audiences(payload),
        _read_date(payload, "exp", math.inf),
        _read_date(payload, "iat", 0),
        _read_date(payload, "nbf", 0),
        _read_identifier(payload, "jti"),
        _identifier(_find(payload, names.session, "")),
        0,
        _identifier(_find(payload, names.client, "")),
        _split_scope(scopes) if isinstance(scopes, str) else _words(scopes),
        _words(_find(payload, names.roles, ())),
        _identifier(_find(payload, names.user, "")),
        _read_auth_time(payload),
        {path: _read_values(payload, path) for path in kept} if kept else _NONE_KEPT,
    )


def _find(payload: dict[str, Any], path: ClaimPath, default: Any) -> Any:
    """Return the value at a path; the default where there is none.

    Raises:
        Denied: `claims_malformed` when the path leads through something else than
            objects: the claim has another form than the configuration says.
    """
    found: Any = payload
    for name in path:
        if not isinstance(found, dict):
            raise Denied(DenyReason.CLAIMS_MALFORMED)
        if name not in found:
            return default
        found = found[name]
    return found


def _identifier(value: Any) -> str:
    if value == "":
        return ""
    if not isinstance(value, str) or not is_identifier(value):
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    return value


def _words(value: Any) -> tuple[str, ...]:
    if value == ():
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    return _keep_roles(tuple(value))


def _read_identifier(payload: dict[str, Any], name: str) -> str:
    if name not in payload:
        return ""
    value = payload[name]
    if not isinstance(value, str) or not is_identifier(value):
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    return value


# Most tokens share their scopes, roles and audience with many others. Each distinct
# value is read once and kept once, which halves the size of a fact.


def _read_scopes(payload: dict[str, Any]) -> tuple[str, ...]:
    scope = payload.get("scope", "")
    if not isinstance(scope, str):
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    return _split_scope(scope)


@lru_cache(maxsize=1_024)
def _split_scope(scope: str) -> tuple[str, ...]:
    if not is_plain_text(scope):
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    return tuple(filter(None, scope.split(" ")))


def _read_audiences(payload: dict[str, Any]) -> frozenset[str]:
    """RFC 7519, section 4.1.3: a string, or a list of strings; ours is not empty."""
    if "aud" not in payload:
        return frozenset()
    aud = payload["aud"]
    values = [aud] if isinstance(aud, str) else aud
    if not isinstance(values, list) or not values:
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    if not all(isinstance(value, str) and value for value in values):
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    return _keep_audiences(tuple(values))


@lru_cache(maxsize=256)
def _keep_audiences(values: tuple[str, ...]) -> frozenset[str]:
    return frozenset(values)


def _read_date(payload: dict[str, Any], name: str, default: float) -> float:
    """RFC 7519, section 2 (NumericDate): a number, integer or not; never text or true.

    A date below 0 or past the year 9999 is refused: it is in another unit, and an entry
    of the feed could not be kept until it is over (R53).
    """
    if name not in payload:
        return default
    value = payload[name]
    # A NaN fails both comparisons.
    if type(value) in (int, float) and 0 <= value <= MAX_NUMERIC_DATE:
        date: float = value
        return date
    raise Denied(DenyReason.CLAIMS_MALFORMED)


def _read_roles(payload: dict[str, Any]) -> tuple[str, ...]:
    roles = payload.get("roles", [])
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    return _keep_roles(tuple(roles))


@lru_cache(maxsize=1_024)
def _keep_roles(roles: tuple[str, ...]) -> tuple[str, ...]:
    if not all(map(is_identifier, roles)):
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    return roles


def _read_username(payload: dict[str, Any]) -> str:
    username = payload.get("username", "")
    if not isinstance(username, str) or not is_plain_text(username):
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    if len(username) > MAX_USERNAME_CHARS:
        raise Denied(DenyReason.CLAIMS_MALFORMED)
    return username


def _read_auth_time(payload: dict[str, Any]) -> float:
    """Return 0 for what is no date: only policies with `max_auth_age` read it, and 0
    fails there.
    """
    value = payload.get("auth_time", 0)
    if type(value) in (int, float) and 0 <= value <= MAX_NUMERIC_DATE:
        date: float = value
        return date
    return 0


def _read_values(payload: dict[str, Any], path: ClaimPath) -> tuple[Scalar, ...]:
    """Return the values at a path; none where there is an object or nothing."""
    found: Any = payload
    for name in path:
        if not isinstance(found, dict):
            return ()
        found = found.get(name)
    values = found if isinstance(found, list) else [found]
    return tuple([value for value in values if isinstance(value, str | int)])
