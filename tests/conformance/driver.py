"""Lets a foreign vector suite drive the product's own verification.

`verify` answers with a truth value because foreign suites want one; nothing else in
Gatehouse does. Every check it makes is the product's; the only thing of its own is to
leave a check out when a vector's policy says that the vector is not about it.
"""

from __future__ import annotations

import json
import time
from typing import Any

from shared.claims import ALGORITHM, DEFAULT_LEEWAY, MAX_TOKEN_BYTES
from shared.jose.jws import (
    CompactJws,
    JwsError,
    check_header,
    check_signature,
    check_typ,
    parse_compact,
    read_kid,
)
from shared.jose.strict_json import StrictJsonError, read_object
from shared.jose.verification_keys import JwksError
from verifier.check.claims import claims_of
from verifier.check.denials import Denied, DenyReason
from verifier.check.policy import TokenPolicy
from verifier.check.trust import KeySet, parse_jwks
from verifier.check.verify import SignedClaims, SignedToken, check_lifetime, check_time

#: The policy of `require` by default: a token that never ends is no token.
DEFAULT_REQUIRED = ("exp",)
#: The signature layer knows no size of its own; 8,000 bytes is our access tokens'
#: (R17).
SIGNATURE_LAYER_BYTES = 65_536
#: Claims of RFC 7519 that a vector's policy is about. The others (`scope`, `roles`,
#: `gen`...) are our profile's, and a foreign token may use the names otherwise.
REGISTERED = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})


def verify(token: str, jwks: dict[str, Any], policy: dict[str, Any] | None) -> bool:
    """Return whether the product accepts the token.

    Args:
        token: a compact JWS; any text at all.
        jwks: the key set; keys without kid get their thumbprint as name.
        policy: None for the signature layer alone, where the payload is opaque and the
            type is free; otherwise `{"iss", "aud", "leeway", "require", "require_kid",
            "typ": [accepted values], "max_lifetime"}`. A null `iss` or `aud` switches
            that check off.

    Raises:
        Nothing but what is a fault of the product.
    """
    try:
        _verify(token.encode("utf-8", "surrogatepass"), jwks, policy)
    except (Denied, JwsError, JwksError, StrictJsonError):
        return False
    return True


def _verify(token: bytes, jwks: dict[str, Any], policy: dict[str, Any] | None) -> None:
    keys, has_nameless = _read_keys(jwks)
    max_bytes = SIGNATURE_LAYER_BYTES if policy is None else MAX_TOKEN_BYTES
    jws = parse_compact(token, max_bytes)
    check_header(jws.unverified_header, frozenset({ALGORITHM}))
    rules = policy or {}
    accepted_typs = rules.get("typ")
    if accepted_typs is not None:
        check_typ(jws.unverified_header, frozenset(t.lower() for t in accepted_typs))
    requires_kid = rules.get("require_kid", policy is not None)
    kid = _check_any_key(jws, keys, requires_kid=requires_kid and not has_nameless)
    if policy is None:
        _ = jws.unverified_payload  # opaque, but canonically spelt
        return
    payload = read_object(jws.unverified_payload)
    required = rules.get("require", DEFAULT_REQUIRED)
    if not payload.keys() >= set(required):
        raise Denied(DenyReason.CLAIM_MISSING)
    registered = {n: v for n, v in payload.items() if n in REGISTERED}
    claims = claims_of(registered, frozenset())
    if rules.get("iss") is not None and claims.iss != rules["iss"]:
        raise Denied(DenyReason.ISSUER_MISMATCH)
    if rules.get("aud") is not None and rules["aud"] not in claims.audiences:
        raise Denied(DenyReason.AUDIENCE_MISMATCH)
    leeway = rules.get("leeway", DEFAULT_LEEWAY)
    TokenPolicy.own("any", "any", leeway)  # refuses a leeway the product would refuse
    if rules.get("max_lifetime") is not None:
        check_lifetime(claims, rules["max_lifetime"])
    signed = SignedToken(SignedClaims(claims), kid, "version")
    check_time(signed, leeway, int(time.time()))


def _read_keys(jwks: dict[str, Any]) -> tuple[KeySet, bool]:
    """Read the set with the product's parser, naming the nameless for it."""
    has_nameless = False
    named = []
    keys = jwks.get("keys")
    for jwk in keys if isinstance(keys, list) else []:
        if isinstance(jwk, dict) and "kid" not in jwk and jwk.get("kty") == "RSA":
            has_nameless = True
            jwk = {**jwk, "kid": f"nameless-{len(named)}"}
        named.append(jwk)
    return parse_jwks(json.dumps({**jwks, "keys": named}).encode()), has_nameless


def _check_any_key(jws: CompactJws, keys: KeySet, *, requires_kid: bool) -> str:
    """Check the signature with the named key, or with each when none need be named."""
    if requires_kid or "kid" in jws.unverified_header:
        kid = read_kid(jws.unverified_header)
        if kid in keys.keys or requires_kid:
            check_signature(jws, keys.find(kid))
            return kid
        # An unused name: only a key without a name can be meant.
        candidates = [k for k in keys.keys if k.startswith("nameless-")]
    else:
        candidates = list(keys.keys)
    for kid in candidates:
        try:
            check_signature(jws, keys.keys[kid])
        except JwsError:
            continue
        return kid
    raise Denied(DenyReason.SIGNATURE_INVALID)
