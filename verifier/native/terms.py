"""What of a policy a gateway can check by itself; the rest is named, and refused.

A gateway sees the path in another form than our rules do, keeps no time of a login, and
answers in its own words. What it cannot check in the way of `verifier/check/` it must
not pretend to check.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from shared.claims import ACCEPTED_TYPS, ALGORITHM, OWN_ISSUER, REQUIRED_CLAIMS
from shared.log import event
from verifier.check.claims import ClaimPath, Scalar
from verifier.check.policy import IssuerTerms, Policy, PolicyBook
from verifier.check.rules.requirements import Requirements

_LOG: Final = logging.getLogger(__name__)
#: Fields of a policy that no gateway can check, and what they would need.
_NOT_IN_POLICY: Final = {
    "rules": "rules: rules match a path in our canonical form, and a gateway has another",
    "allows_stale": 'on_stale = "allow": a gateway without news closes',
    "allows_preflight": "allow_cors_preflight: a request passes without a token",
    "is_public": "public: no token is read",
    "is_optional": "optional: a request passes without a token",
    "is_shadow": 'mode = "shadow": a gateway counts no refusals',
    "has_decision_ids": "decision_ids: a gateway makes none",
    "resource_metadata": "resource_metadata: a gateway answers in its own words",
}
_AGES: Final = {
    "max_age": "max_age: a gateway does not compare the age of a token",
    "max_auth_age": "max_auth_age: a gateway does not compare the time of a login",
}


#: Seconds. Gateways take 0 for their own default, and Envoy is sent one second less.
MIN_LEEWAY: Final = 2


class InexpressibleError(ValueError):
    """A gateway cannot check what a policy asks; the message names policy and field."""


class NoPolicyError(InexpressibleError):
    """There is no policy of a name; the message names it."""


class NativeTerms(NamedTuple):
    """What a gateway checks for one policy, besides signature and revocation.

    Attributes:
        policy: its name.
        issuer: the exact `iss`.
        audience: one of the token's `aud`.
        leeway: seconds clocks may differ, at least `MIN_LEEWAY`.
        max_lifetime: the longest `exp - iat`, seconds.
        required_scopes: all of these are needed.
        any_scopes: one of these is needed; empty for none.
        required_roles: one of these is needed; empty for none.
        client_ids: the client is one of these; empty for any.
        claims: one of the values is needed at each path.
    """

    policy: str
    issuer: str
    audience: str
    leeway: int
    max_lifetime: int
    required_scopes: tuple[str, ...]
    any_scopes: tuple[str, ...]
    required_roles: tuple[str, ...]
    client_ids: tuple[str, ...]
    claims: tuple[tuple[ClaimPath, tuple[Scalar, ...]], ...]


class NativePolicies:
    """The terms of the policies that gateways check, also when a file has changed.

    A policy that can no longer be native keeps its last terms there (R65); a log line
    says so.

    Args:
        names: of the policies.
        policies: gives the policies in force.
        check: raises `InexpressibleError` for terms that this kind of gateway cannot
            check.

    Attributes:
        errors: why a policy keeps its last terms, by its name; empty for none.

    Raises:
        InexpressibleError: one of them is not there, or cannot be native.
    """

    def __init__(
        self,
        names: Sequence[str],
        policies: Callable[[], PolicyBook],
        check: Callable[[Mapping[str, NativeTerms]], None],
    ) -> None:
        self._names = tuple(names)
        self._policies = policies
        self._check = check
        self._book = policies()
        self._terms = {name: self._terms_in(self._book, name) for name in self._names}
        self.errors = dict.fromkeys(self._names, "")

    def terms(self) -> Mapping[str, NativeTerms]:
        """Return the terms of each policy, by its name."""
        book = self._policies()
        if book is not self._book:
            self._book = book
            terms = dict(self._terms)
            for name in self._names:
                self.errors[name] = ""
                try:
                    terms[name] = self._terms_in(book, name)
                except InexpressibleError as error:
                    self.errors[name] = str(error)
                    event(
                        _LOG, logging.ERROR, "native.policy_not_taken", error=str(error)
                    )
            self._terms = terms
        return self._terms

    def _terms_in(self, book: PolicyBook, name: str) -> NativeTerms:
        policy = book.policies.get(name)
        if policy is None:
            raise NoPolicyError(f"policy {name}: there is none of that name")
        terms = native_terms(policy)
        self._check({name: terms})
        return terms


def native_terms(policy: Policy) -> NativeTerms:
    """Return what a gateway is to check for this policy.

    Raises:
        InexpressibleError: naming every field that a gateway cannot check.
    """
    faults = [text for name, text in _NOT_IN_POLICY.items() if getattr(policy, name)]
    asked = policy.requirements
    faults += [text for name, text in _AGES.items() if getattr(asked, name)]
    faults += _faults_of_token(policy)
    if faults:
        listed = "; ".join(faults)
        raise InexpressibleError(f"policy {policy.name}: cannot be native: {listed}")
    return _terms(policy, policy.token.issuers[0], asked)


def _faults_of_token(policy: Policy) -> list[str]:
    token, sole = policy.token, policy.token.sole
    faults = []
    if sole is None or sole.name != OWN_ISSUER:
        faults.append("issuers: only tokens of our own issuer can be revoked natively")
    elif not _is_usual(sole):
        faults.append("issuers: our own issuer has other terms than usual")
    if token.leeway < MIN_LEEWAY:
        faults.append(f"VERIFIER_LEEWAY: gateways need at least {MIN_LEEWAY} s")
    if token.headers:
        faults.append("headers: a gateway does not encode them as we do")
    return faults


def _is_usual(terms: IssuerTerms) -> bool:
    """Whether these are the terms that the gateways' configurations state."""
    usual = (frozenset({ALGORITHM}), ACCEPTED_TYPS, REQUIRED_CLAIMS, None)
    return usual == (
        terms.algorithms,
        terms.accepted_typs,
        terms.required_claims,
        terms.claims,
    )


def _terms(policy: Policy, issuer: IssuerTerms, asked: Requirements) -> NativeTerms:
    return NativeTerms(
        policy=policy.name,
        issuer=issuer.issuer,
        audience=issuer.audience,
        leeway=policy.token.leeway,
        max_lifetime=issuer.max_lifetime,
        required_scopes=tuple(sorted(asked.required_scopes)),
        any_scopes=tuple(sorted(asked.any_scopes)),
        required_roles=tuple(sorted(asked.required_roles)),
        client_ids=tuple(sorted(asked.client_ids)),
        claims=asked.claims,
    )
