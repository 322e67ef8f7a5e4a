"""Tokens in the form of an issuer, signed by a key that is made for the run."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from shared.claims import ACCESS_TOKEN_TYP
from shared.jose import base64url
from shared.jose.jws import NO_TYP
from verifier.check.claims import ClaimNames, ClaimPath
from verifier.check.policy import IssuerTerms
from verifier.check.trust import KeySet, keys_by_id
from verifier.policies.signing.run_keys import RunKey

#: Seconds that these tokens live.
_LIFETIME: Final = 600
#: What every token has besides, under the names of our own tokens.
_USUAL_FACTS: Final[Mapping[str, Any]] = MappingProxyType(
    {"client_id": "client", "sid": "session", "scope": "", "roles": []}
)
#: The facts by their claims in our own tokens.
_FACTS: Final = ClaimNames()


class ClaimPathError(ValueError):
    """A fact cannot stand where the issuer has it; the message names the claim."""


class TokenMaker:
    """Makes tokens of one issuer.

    Args:
        terms: what its tokens must be. Any of its algorithms and types is used.

    Attributes:
        keys: the only key of the issuer.
    """

    def __init__(self, terms: IssuerTerms) -> None:
        # Alphabetically, so that the keys that cost least to make come first.
        alg = sorted(terms.algorithms)[0]
        self._key = RunKey(alg, f"made for the run: {terms.name} {alg}")
        self._typ = _typ_of(terms.accepted_typs)
        self.keys: KeySet = keys_by_id([self._key.public])

    def make(
        self,
        terms: IssuerTerms,
        claims: Mapping[str, Any],
        *,
        issued_at: int,
        now: int,
        auth_time: int,
    ) -> str:
        """Return a token.

        Args:
            terms: of this issuer; its audience may be another one in each policy.
            claims: our facts under the names of our own tokens, written where the
                issuer has them; and further claims as they are.
            issued_at: when it was made, Unix seconds.
            now: Unix seconds.
            auth_time: when the person logged in, Unix seconds.

        Raises:
            ClaimPathError: a fact cannot stand where the issuer has it.
        """
        header = {"alg": self._key.alg, "kid": self._key.kid}
        if self._typ != NO_TYP:
            header["typ"] = self._typ
        times = {
            # Also an old token is still alive, as far as the gate allows.
            "exp": min(now + _LIFETIME, issued_at + terms.max_lifetime),
            "iat": issued_at,
            "auth_time": auth_time,
        }
        payload = _payload_of(terms, times, claims)
        parts = [base64url.encode(orjson.dumps(part)) for part in (header, payload)]
        signing_input = ".".join(parts)
        signature = self._key.sign(signing_input.encode())
        return f"{signing_input}.{base64url.encode(signature)}"


def _typ_of(accepted: frozenset[str]) -> str:
    """Return one of the accepted types: ours if it is one, no type only if need be."""
    if ACCESS_TOKEN_TYP in accepted:
        return ACCESS_TOKEN_TYP
    return max(accepted)


def _payload_of(
    terms: IssuerTerms, times: Mapping[str, int], claims: Mapping[str, Any]
) -> dict[str, Any]:
    begin = {"iss": terms.issuer, "aud": terms.audience, "sub": "user", **times}
    if terms.claims is None:
        ours = {"jti": "token", "gen": 0, **_USUAL_FACTS}
        return {**begin, **ours, **claims}
    facts = {claim: path for (claim,), path in zip(_FACTS, terms.claims, strict=True)}
    further = {name: value for name, value in claims.items() if name not in facts}
    payload = begin
    for claim, value in _USUAL_FACTS.items():
        _put(payload, facts[claim], claim, value)
    payload |= further
    for claim, path in facts.items():
        if claim in claims:
            _put(payload, path, claim, claims[claim])
    # Claims without which every token of the issuer is refused.
    missing = sorted(terms.required_claims - payload.keys())
    return payload | dict.fromkeys(missing, "required")


def _put(payload: dict[str, Any], path: ClaimPath, claim: str, value: Any) -> None:
    """Write a fact where the issuer has it.

    Raises:
        ClaimPathError: something else than an object is on the way.
    """
    *ways, name = path
    place = payload
    for way in ways:
        inner = place.get(way, {})
        if not isinstance(inner, dict):
            raise ClaimPathError(f"{claim}: is {'.'.join(path)}, and {way} is no table")
        # A copy: the case's own tables stay as they are.
        place[way] = place = dict(inner)
    place[name] = value
