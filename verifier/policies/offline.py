"""Explains a request by a policy file, without a verifier (R66).

The same `decide` as in the gate decides. What only a running verifier knows is shown as
`not_checked`: the gateway, the age of the trust, the revocations. Without the issuer's
keys neither the key nor the signature can be checked: the token's claims, which may be
anybody's, are then decided under a signature that is made for the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from shared.claims import ALGORITHM, MIN_RSA_BITS, RSA_EXPONENT, is_identifier
from shared.jose import base64url
from shared.jose.algorithms import ALGORITHMS
from shared.jose.jws import JwsError, parse_compact, read_kid
from shared.jose.strict_json import StrictJsonError, read_object
from shared.jose.verification_keys import VerificationKey
from verifier.check.decision import CheckPaths, Times, decide
from verifier.check.policy import DEFAULT_POLICY, PolicyBook, TokenPolicy
from verifier.check.trust import KeySet, Trust
from verifier.policies.described_decision import describe_decision
from verifier.policies.described_request import read_described_request
from verifier.policies.document import parse_policies
from verifier.policies.explanation import PRESUMED, Check

#: A verifier's own: its keys and revocations, and how old they are.
_OF_A_VERIFIER = frozenset(
    {*PRESUMED, Check.KEYS_AGE, Check.REVOCATIONS_AGE, Check.REVOCATION}
)
#: Where a token names none that could be expected.
_NO_NAME = "https://unknown.invalid"


class Expected(NamedTuple):
    """What a verifier's settings and keys would say.

    Attributes:
        issuer: `VERIFIER_ISSUER_URL`; empty: what the token says is taken for granted.
        audience: `VERIFIER_AUDIENCE`; empty: as for the issuer.
        keys: the issuer's keys; None when they are not known.
    """

    issuer: str = ""
    audience: str = ""
    keys: KeySet | None = None


def explain_offline(
    policy_file: str, described: Mapping[str, Any], expected: Expected, now: int
) -> dict[str, Any]:
    """Decide about a request by a policy file, and explain it.

    Args:
        policy_file: the file's text.
        described: the request, as `read_described_request` takes it.
        expected: issuer, audience and keys, as far as they are known.
        now: Unix seconds.

    Returns:
        As `describe_decision`, and `signature_checked`: false when the decision is
        about claims that may be anybody's. Nothing of those is in it.

    Raises:
        PolicyError: the file cannot be used.
        DescribedRequestError: the description cannot be used.
    """
    token = str(described.get("token", "")).encode()
    unverified = _read_unverified(token)
    unknown = set(_OF_A_VERIFIER)
    issuer, audience, keys = expected
    if not issuer:
        issuer = unverified.issuer
        unknown.add(Check.TOKEN_ISSUER)
    book = PolicyBook(
        parse_policies(
            policy_file, TokenPolicy.own(issuer, audience or unverified.audience)
        )
    )
    policy = book.policies.get(described.get("policy", DEFAULT_POLICY))
    # A policy of another audience names it in the file.
    is_named = policy is not None and all(
        terms.audience != unverified.audience for terms in policy.token.issuers
    )
    if not audience and not is_named:
        unknown.add(Check.TOKEN_AUDIENCE)
    if keys is None:
        unknown |= {Check.TOKEN_KEY, Check.TOKEN_SIGNATURE}
        signed, keys = _sign(token)
        if "token" in described:
            described = {**described, "token": signed.decode()}
    request = read_described_request(described)
    trust = Trust(issuer)
    trust.trust_keys(issuer, keys, 2)
    trust.renew(2)
    outcome = decide(request, trust.snapshot, CheckPaths(book), Times(now, 1))
    said = describe_decision(outcome, request, keys, now, unknown)
    is_signed = expected.keys is not None
    if not is_signed:
        # Trap 6 of the style guide: nothing of an unverified token leaves here.
        said.pop("claims", None)
        said["kid"] = ""
    needs_none = said["auth_decision"] == "allow-anonymous" or "token" not in described
    return {"signature_checked": is_signed or needs_none, **said}


class _Unverified(NamedTuple):
    issuer: str
    audience: str


def _read_unverified(token: bytes) -> _Unverified:
    """Return issuer and audience that a token names; anybody may have made it."""
    try:
        payload = read_object(parse_compact(token).unverified_payload)
    except (JwsError, StrictJsonError):
        return _Unverified(_NO_NAME, _NO_NAME)
    audiences = payload.get("aud")
    first = audiences[0] if isinstance(audiences, list) and audiences else audiences
    return _Unverified(_name_or_none(payload.get("iss")), _name_or_none(first))


def _name_or_none(value: Any) -> str:
    return value if isinstance(value, str) and is_identifier(value) else _NO_NAME


def _sign(token: bytes) -> tuple[bytes, KeySet]:
    """Return the token under a signature of our own, and the key that verifies it.

    A token that is refused before its signature is looked at stays as it is.
    """
    try:
        jws = parse_compact(token)
        unverified_kid = read_kid(jws.unverified_header)
    except JwsError:
        return token, KeySet()
    key = rsa.generate_private_key(RSA_EXPONENT, MIN_RSA_BITS)
    verification_key = VerificationKey(
        unverified_kid, ALGORITHMS[ALGORITHM], key.public_key()
    )
    signature = key.sign(jws.signing_input, padding.PKCS1v15(), SHA256())
    signed = b"%b.%b" % (jws.signing_input, base64url.encode(signature).encode())
    keys = MappingProxyType({unverified_kid: verification_key})
    return signed, KeySet(keys, "made for the run")
