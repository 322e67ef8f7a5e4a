"""The filters that check a token: Envoy's `jwt_authn`, and RBAC for what it lacks.

`jwt_authn` compares signature, `iss`, `exp` and `nbf`, and `aud` loosely. RBAC refuses
what it lets through: other types and header members, an `aud` that is only alike,
missing claims, and what the policy asks besides (docs/gateways.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
from envoy.extensions.filters.http.jwt_authn.v3.config_pb2 import JwtAuthentication
from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBAC
from google.protobuf.json_format import ParseDict

from shared.claims import ACCEPTED_TYPS, ALGORITHM, MAX_TOKEN_BYTES
from shared.jose.jwk import RsaPublicJwk
from verifier.check.claims import ClaimPath, Scalar
from verifier.native.envoy.names import (
    HEADER_KEY,
    IDENTITY,
    INSUFFICIENT_NAME,
    INTERNAL,
    JWT_NAMESPACE,
    PAYLOAD_KEY,
    UNSOUND_NAME,
)
from verifier.native.terms import NativeTerms

#: Tokens whose signature Envoy remembers, per worker.
JWT_CACHE: Final = 10_000
#: Header members that would change what is signed, or by which key (R16).
_FORBIDDEN: Final = ("crit", "b64", "jku", "x5u", "x5c", "jwk", "zip", "cty")
#: A value that our own encoding leaves as it is (shared/identity_headers.py). Envoy
#: writes claims as they are, so another value could be two, or none.
_WORD: Final = r"[!-$&-+\--~]{1,256}"
_WORDS: Final = rf"{_WORD}( {_WORD})*"
#: Envoy writes a number that is no whole one, or a negative one, with a point.
_GENERATION: Final = "[0-9]{1,15}"


def token_filter(
    terms: NativeTerms, keys: Sequence[RsaPublicJwk], revision: str
) -> JwtAuthentication:
    """Return the `jwt_authn` filter of a policy.

    Args:
        terms: of the policy.
        keys: the only ones that may have signed; at least one.
        revision: makes this content another one than any before. It is an inert name.
    """
    provider = {
        "issuer": terms.issuer,
        "audiences": [terms.audience],
        "require_expiration": True,
        "max_lifetime": f"{terms.max_lifetime}s",
        "clock_skew_seconds": terms.leeway,
        "local_jwks": {"inline_string": _jwks(keys)},
        # One header alone, and no query (R13): the application still gets it.
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "forward": True,
        "header_in_metadata": HEADER_KEY,
        "payload_in_metadata": PAYLOAD_KEY,
        "claim_to_headers": [
            {"header_name": header, "claim_name": claim}
            for header, claim in (*IDENTITY.items(), *INTERNAL.items())
        ],
        "jwt_cache_config": {
            "jwt_cache_size": JWT_CACHE,
            "jwt_max_token_size": MAX_TOKEN_BYTES,
        },
    }
    name = f"own-{revision}"
    return ParseDict(
        {
            "providers": {name: provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": name}}],
            # What is wrong with a token is for our logs, not for its bearer.
            "strip_failure_response": True,
        },
        JwtAuthentication(),
    )


def _jwks(keys: Sequence[RsaPublicJwk]) -> str:
    return orjson.dumps({"keys": [key.to_wire() for key in keys]}).decode()


def requirements_filter(terms: NativeTerms, revision: str) -> RBAC:
    """Return the RBAC filter that refuses what `jwt_authn` and the policy do not.

    Args:
        terms: of the policy.
        revision: makes this content another one than any before; an inert path.
    """
    insufficient = list(_requirements(terms))
    # A permission that no request has: no path contains a space.
    inert = {"url_path": {"path": {"exact": f"/ {revision}"}}}
    policies = {UNSOUND_NAME: _unless(list(_sound(terms)), inert)}
    if insufficient:
        policies[INSUFFICIENT_NAME] = _unless(insufficient, inert)
    return ParseDict({"rules": {"action": "DENY", "policies": policies}}, RBAC())


def _unless(conditions: list[dict[str, Any]], inert: dict[str, Any]) -> dict[str, Any]:
    """Return the RBAC policy that matches unless all the conditions hold."""
    return {
        "permissions": [{"any": True}, inert],
        "principals": [{"not_id": {"and_ids": {"ids": conditions}}}],
    }


def _sound(terms: NativeTerms) -> Iterable[dict[str, Any]]:
    """Yield what every token of ours has (R14 to R18, R12)."""
    yield _one_of([_exactly(HEADER_KEY, "typ", typ) for typ in sorted(ACCEPTED_TYPS)])
    yield _exactly(HEADER_KEY, "alg", ALGORITHM)
    yield _metadata(HEADER_KEY, ["kid"], {"string_match": _regex(".{1,256}")})
    for member in _FORBIDDEN:
        path = _metadata(HEADER_KEY, [member], {"present_match": True})
        yield {"not_id": path}
    yield _one_of(_having(["aud"], terms.audience))
    for name in ("x-auth-subject", "x-auth-client", "x-auth-session"):
        yield _header(name, _WORD)
    yield _header("x-gatehouse-jti", _WORD)
    yield _header("x-gatehouse-gen", _GENERATION)
    yield _metadata(PAYLOAD_KEY, ["iat"], {"double_match": {"range": _DATES}})
    for name, form in (("x-auth-user", _WORD), ("x-auth-scope", _WORDS)):
        absent = {"header": {"name": name, "present_match": False}}
        yield _one_of([absent, _header(name, form)])


_DATES: Final = {"start": 0, "end": 253_402_300_800}


def _requirements(terms: NativeTerms) -> Iterable[dict[str, Any]]:
    """Yield what the policy asks besides (`verifier/check/rules/requirements.py`)."""
    for scope in terms.required_scopes:
        yield _header("x-auth-scope", _containing([scope]))
    if terms.any_scopes:
        yield _header("x-auth-scope", _containing(terms.any_scopes))
    if terms.required_roles:
        roles = [_having(["roles"], role)[1] for role in terms.required_roles]
        yield _one_of(roles)
    if terms.client_ids:
        names = "|".join(map(re.escape, terms.client_ids))
        yield _header("x-auth-client", names)
    for path, accepted in terms.claims:
        yield _one_of([m for value in accepted for m in _having(path, value)])


def _containing(scopes: Sequence[str]) -> str:
    """Return the form of a list of words with one of these in it."""
    return f"(.* )?({'|'.join(map(re.escape, scopes))})( .*)?"


def _having(path: Sequence[str] | ClaimPath, value: Scalar) -> list[dict[str, Any]]:
    """Return what matches a claim that is this value, and one that lists it."""
    match = _value(value)
    return [
        _metadata(PAYLOAD_KEY, path, match),
        _metadata(PAYLOAD_KEY, path, {"list_match": {"one_of": match}}),
    ]


def _value(value: Scalar) -> dict[str, Any]:
    # True is no 1, as in JSON: the type is a part of the match.
    if isinstance(value, bool):
        return {"bool_match": value}
    if isinstance(value, int):
        return {"double_match": {"exact": float(value)}}
    return {"string_match": {"exact": value}}


def _exactly(key: str, member: str, text: str) -> dict[str, Any]:
    return _metadata(key, [member], {"string_match": {"exact": text}})


def _metadata(
    key: str, path: Sequence[str] | ClaimPath, value: dict[str, Any]
) -> dict[str, Any]:
    segments = [{"key": name} for name in (key, *path)]
    return {"metadata": {"filter": JWT_NAMESPACE, "path": segments, "value": value}}


def _header(name: str, form: str) -> dict[str, Any]:
    return {"header": {"name": name, "string_match": _regex(form)}}


def _regex(form: str) -> dict[str, Any]:
    return {"safe_regex": {"regex": form}}


def _one_of(conditions: list[dict[str, Any]]) -> dict[str, Any]:
    return {"or_ids": {"ids": conditions}}
