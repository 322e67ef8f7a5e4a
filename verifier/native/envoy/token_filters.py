"""What checks a token in Envoy: `jwt_authn`, and look-ups for what that lacks.

`jwt_authn` compares signature, `iss`, `exp` and `nbf`, and `aud` loosely: `api/` counts
as `api`. The look-ups refuse what it lets through: another header than our issuer
writes, an `aud` that is only alike, and what the policy asks besides (docs/native.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson
from cel.expr.syntax_pb2 import Expr
from envoy.extensions.filters.http.jwt_authn.v3.config_pb2 import JwtAuthentication
from google.protobuf.json_format import ParseDict

from shared.claims import MAX_TOKEN_BYTES
from shared.jose.jwk import RsaPublicJwk
from shared.token_form import encode_beginning, encode_header
from verifier.check.claims import ClaimPath, Scalar
from verifier.native.envoy import cel
from verifier.native.envoy.matchers import (
    OnMatch,
    Predicate,
    any_of,
    beginnings,
    begins,
    fails,
    first_of,
    has_form,
    holds,
    is_exactly,
)
from verifier.native.envoy.names import (
    EXP_HEADER,
    GEN_HEADER,
    IDENTITY,
    INTERNAL,
    JWT_NAMESPACE,
    PAYLOAD_KEY,
)
from verifier.native.terms import NativeTerms

#: Tokens whose signature Envoy remembers, per worker.
JWT_CACHE: Final = 10_000
#: How Envoy writes a generation: not the words and lists of other types. Most are 0.
_GEN_FORM: Final = "[0-9].*"
_USUAL_GEN: Final = "0"
#: Seconds of this time, until the year 2286. Envoy takes a number from 2^63 to 2^64 for
#: a time that is always to come, and `max_lifetime` does not see it (R18, R53).
_EXP_FORM: Final = r"[0-9]{10}(\.[0-9]*)?"


def jwt_filter(
    terms: NativeTerms, keys: Sequence[RsaPublicJwk], revision: str
) -> JwtAuthentication:
    """Return the `jwt_authn` filter of a policy.

    Args:
        terms: of the policy.
        keys: the only ones that may have signed; at least one.
        revision: makes this content another one than any before. It is an inert name.
    """
    provider: dict[str, Any] = {
        "issuer": terms.issuer,
        "audiences": [terms.audience],
        "require_expiration": True,
        # Compared with the time that is left, by a clock that may be behind.
        "max_lifetime": f"{terms.max_lifetime + terms.leeway}s",
        # Envoy accepts in the second `exp + skew`, and we do not (`check_time`). It
        # takes 0 for a minute (`terms.MIN_LEEWAY`).
        "clock_skew_seconds": terms.leeway - 1,
        "local_jwks": {"inline_string": _jwks(keys)},
        # One header alone, and no query (R13). The application still gets it.
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "forward": True,
        "claim_to_headers": [
            {"header_name": header, "claim_name": claim}
            for header, claim in (*IDENTITY.items(), *INTERNAL.items())
        ],
        "jwt_cache_config": {
            "jwt_cache_size": JWT_CACHE,
            "jwt_max_token_size": MAX_TOKEN_BYTES,
        },
    }
    if _reads_payload(terms):
        # A tenth of the check's cost, so only where it is read.
        provider["payload_in_metadata"] = PAYLOAD_KEY
    name = f"own-{revision}"
    rule = {"match": {"prefix": "/"}, "requires": {"provider_name": name}}
    return ParseDict(
        {
            "providers": {name: provider},
            "rules": [rule],
            # What is wrong with a token is for our logs, not for its bearer.
            "strip_failure_response": True,
        },
        JwtAuthentication(),
    )


def _jwks(keys: Sequence[RsaPublicJwk]) -> str:
    return orjson.dumps({"keys": [key.to_wire() for key in keys]}).decode()


def token_checks(
    terms: NativeTerms,
    keys: Sequence[RsaPublicJwk],
    passed: OnMatch,
    unsound: OnMatch,
    insufficient: OnMatch,
) -> OnMatch:
    """Return what refuses the tokens that `jwt_authn` lets through.

    What it does not find, it refuses. Without a subject, a session or an id a token is
    refused by the filter that looks them up (`settled_filter`).

    Args:
        terms: of the policy.
        keys: the only ones that may have signed; at least one.
        passed: where all else leads.
        unsound: where a token leads that our issuer does not make.
        insufficient: where a token leads that lacks what the policy asks.
    """
    # Header, `iss` and `aud` as our issuer writes them.
    claims = encode_beginning(terms.issuer, terms.audience)
    known = [f"Bearer {encode_header(key.kid)}.{claims}" for key in keys]
    sound = (
        begins("authorization", known),
        # A text is compared for less than a form. It is one of that form: a beginning
        # would let a line end pass behind it.
        any_of([is_exactly(GEN_HEADER, _USUAL_GEN), has_form(GEN_HEADER, _GEN_FORM)]),
        has_form(EXP_HEADER, _EXP_FORM),
    )
    conditions = [(fails(condition), unsound) for condition in sound]
    conditions += [
        (fails(condition), insufficient) for condition in _requirements(terms)
    ]
    # Conditions, where a tree would have a copy of all that follows behind each key.
    rest = first_of(conditions, passed)
    # Envoy has no header where a claim is missing or empty (R18).
    return beginnings("x-auth-client", {"": rest}, unsound)


def _requirements(terms: NativeTerms) -> tuple[Predicate, ...]:
    """Return what the policy asks besides (`verifier/check/rules/requirements.py`)."""
    # By their text: 1 and true are equal in Python.
    return _kept_requirements(repr(terms), terms)


@lru_cache(maxsize=100)
def _kept_requirements(_text: str, terms: NativeTerms) -> tuple[Predicate, ...]:
    """Return them; nothing changes them, as they are copied into each filter.

    500 values of a claim would take 135 ms for each revocation. Kept, they take 1 ms.
    """
    return tuple(_make_requirements(terms))


def _make_requirements(terms: NativeTerms) -> Iterator[Predicate]:
    for scope in terms.required_scopes:
        yield has_form("x-auth-scope", _containing([scope]))
    if terms.any_scopes:
        yield has_form("x-auth-scope", _containing(terms.any_scopes))
    if terms.client_ids:
        names = "|".join(map(re.escape, terms.client_ids))
        yield has_form("x-auth-client", names)
    if terms.required_roles:
        yield holds(_lists_one(("roles",), terms.required_roles))
    for path, accepted in terms.claims:
        yield holds(_has_one(path, accepted))


def _reads_payload(terms: NativeTerms) -> bool:
    return bool(terms.required_roles or terms.claims)


def _containing(scopes: Sequence[str]) -> str:
    """Return the form of a list of words with one of these in it."""
    return f"(.* )?({'|'.join(map(re.escape, scopes))})( .*)?"


def _claim_at(path: ClaimPath) -> Expr:
    claim = cel.member(cel.name("metadata.filter_metadata"), JWT_NAMESPACE)
    for name in (PAYLOAD_KEY, *path):
        claim = cel.member(claim, name)
    return claim


def _has_one(path: ClaimPath, accepted: Sequence[Scalar]) -> Expr:
    """Return whether a claim is one of these values, or a list with one of them."""
    claim = _claim_at(path)
    is_one = [cel.call("_==_", claim, cel.constant(value)) for value in accepted]
    return cel.any_of([*is_one, _lists_one(path, accepted)])


def _lists_one(path: ClaimPath, accepted: Sequence[Scalar]) -> Expr:
    """Return whether a claim is a list with one of these values."""
    claim = _claim_at(path)
    # In CEL the name of a member is in an object, too.
    is_list = cel.call("_==_", cel.call("type", claim), cel.name("list"))
    found = [cel.call("@in", cel.constant(value), claim) for value in accepted]
    return cel.call("_&&_", is_list, cel.any_of(found))
