"""Explains a request by a policy file, without a verifier (R66).

The same `decide` as in the gate decides. What only a running verifier knows is shown as
`not_checked`: the gateway, the age of the trust, the revocations. Without the issuer's
keys neither the key nor the signature can be checked: the token's claims, which may be
anybody's, are then decided under a signature that is made for the run. It counts for
the issuer that the token names, if the policy accepts that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.claims import OWN_ISSUER, is_identifier
from shared.jose import base64url
from shared.jose.jws import JwsError, parse_compact, read_kid
from shared.jose.strict_json import StrictJsonError, read_object
from shared.jose.verification_keys import read_keys
from verifier.check.decision import CheckPaths, Times, decide
from verifier.check.policy import (
    DEFAULT_POLICY,
    IssuerTerms,
    Policy,
    PolicyBook,
    TokenPolicy,
)
from verifier.check.trust import KeySet, Trust, keys_by_id, parse_jwks
from verifier.policies.described_decision import describe_decision
from verifier.policies.described_request import read_described_request
from verifier.policies.document import parse_policies
from verifier.policies.explanation import PRESUMED, Check
from verifier.policies.signing.run_keys import RunKey

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
        jwks: the keys of the token's issuer, as it serves them; None when they are not
            known.
        others: the terms of every issuer of the issuers file.
    """

    issuer: str = ""
    audience: str = ""
    jwks: bytes | None = None
    others: tuple[IssuerTerms, ...] = ()


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
        JwksError: the keys cannot be used.
        DescribedRequestError: the description cannot be used.
    """
    token = str(described.get("token", "")).encode()
    unverified = _read_unverified(token)
    book, unknown = _read_book(policy_file, expected, unverified)
    policy = book.policies.get(described.get("policy", DEFAULT_POLICY))
    terms = _choose_terms(policy, book, unverified)
    if not expected.audience and _takes_audience(terms, policy, unverified):
        unknown.add(Check.TOKEN_AUDIENCE)
    is_signed = expected.jwks is not None
    if not is_signed:
        unknown |= {Check.TOKEN_KEY, Check.TOKEN_SIGNATURE}
    token, keys = _settle_keys(token, terms, expected.jwks)
    if "token" in described:
        described = {**described, "token": token.decode()}
    request = read_described_request(described)
    trust = _trust(_NO_NAME if terms is None else terms.issuer, keys)
    outcome = decide(request, trust.snapshot, CheckPaths(book), Times(now, 1))
    said = describe_decision(outcome, request, trust.snapshot, now, unknown)
    if not is_signed:
        # Trap 6 of the style guide: nothing of an unverified token leaves here.
        said.pop("claims", None)
        said["kid"] = ""
    needs_none = said["auth_decision"] == "allow-anonymous" or "token" not in described
    return {"signature_checked": is_signed or needs_none, **said}


def _read_book(
    policy_file: str, expected: Expected, unverified: _Unverified
) -> tuple[PolicyBook, set[Check]]:
    """Return the policies, and the checks whose passing would say nothing.

    Without an expected issuer, the one that the token names is ours, unless the issuers
    file has it.
    """
    unknown = set(_OF_A_VERIFIER)
    issuer = expected.issuer
    if not issuer:
        is_other = any(one.issuer == unverified.issuer for one in expected.others)
        issuer = _NO_NAME if is_other else unverified.issuer
        if not is_other:
            unknown.add(Check.TOKEN_ISSUER)
    own = TokenPolicy.own(issuer, expected.audience or unverified.audience)
    return PolicyBook(parse_policies(policy_file, own, expected.others)), unknown


def _choose_terms(
    policy: Policy | None, book: PolicyBook, unverified: _Unverified
) -> IssuerTerms | None:
    """Return the terms that the token is held against, as `read_signed` chooses them.

    None when it names none of several issuers: it is refused before a key is looked
    for.
    """
    token = (policy or book.policies[DEFAULT_POLICY]).token
    if token.sole is not None:
        return token.sole
    named = [one for one in token.issuers if one.issuer == unverified.issuer]
    return named[0] if named else None


def _takes_audience(
    terms: IssuerTerms | None, policy: Policy | None, unverified: _Unverified
) -> bool:
    """Return whether the token's own audience is taken for the verifier's.

    A policy of another audience names it in the policy file, and an issuer of another
    one in the issuers file.
    """
    if policy is None or terms is None:
        return True
    return terms.name == OWN_ISSUER and terms.audience == unverified.audience


def _settle_keys(
    token: bytes, terms: IssuerTerms | None, jwks: bytes | None
) -> tuple[bytes, KeySet]:
    """Return the token, and the keys of its issuer; without a JWKS both
    are made for the run.

    Raises:
        JwksError: the JWKS cannot be used.
    """
    if terms is None:
        return token, KeySet()
    if jwks is None:
        return _sign(token, terms)
    if terms.name == OWN_ISSUER:
        return token, parse_jwks(jwks)
    return token, keys_by_id(read_keys(jwks, terms.algorithms).keys)


def _trust(issuer: str, keys: KeySet) -> Trust:
    """Return the trust in the one issuer whose terms the token is held against."""
    trust = Trust(issuer)
    trust.trust_keys(issuer, keys, 2)
    trust.renew(2)
    return trust


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


def _sign(token: bytes, terms: IssuerTerms) -> tuple[bytes, KeySet]:
    """Return the token under a signature of our own, and the key that verifies it.

    A token that is refused before its signature is looked at stays as it is.
    """
    try:
        jws = parse_compact(token)
        unverified_kid = read_kid(jws.unverified_header)
    except JwsError:
        return token, KeySet()
    alg = jws.unverified_header.get("alg")
    if not isinstance(alg, str) or alg not in terms.algorithms:
        return token, KeySet()
    key = RunKey(alg, unverified_kid)
    signature = base64url.encode(key.sign(jws.signing_input)).encode()
    return b"%b.%b" % (jws.signing_input, signature), keys_by_id([key.public])
