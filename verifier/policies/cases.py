"""Cases for a policy file: requests, and what the file should decide about each.

The same `decide` as in the gate answers them (R66). A token has the form of its issuer,
and is signed by a key that is made for the run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from shared.claims import OWN_ISSUER, is_identifier
from shared.configuration.toml_fields import name_nearest
from verifier.check.answers import decision_of
from verifier.check.decision import Allowed, CheckPaths, Times, decide, rule_of
from verifier.check.denials import DenyReason
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.policy import (
    DEFAULT_POLICY,
    IssuerTerms,
    Policy,
    PolicyBook,
    PolicyError,
)
from verifier.check.revocations import RevocationIndex
from verifier.check.rules.rule import Rule
from verifier.check.trust import IssuerTrust, TrustSnapshot
from verifier.policies.fields import Fields
from verifier.policies.signing.run_tokens import ClaimPathError, TokenMaker

_FIELDS: Final = (
    *("name", "policy", "method", "host", "path", "headers", "issuer", "token"),
    *("age", "auth_age", "expect"),
)
_ALLOWS: Final = ("allow", "allow-anonymous", "allow-shadow")
_EXPECTED: Final = frozenset({*_ALLOWS, *(reason.value for reason in DenyReason)})
#: Reasons for which a token of an issuer that the policy does not accept is refused. A
#: policy of one issuer never reads which other issuer it is from.
_FOREIGN_REASONS: Final = (
    *("issuer_mismatch", "alg_not_allowed", "typ_not_allowed", "kid_unknown"),
)
_MAX_AGE: Final = 10 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class Case:
    """One request, and the decision that is expected.

    Attributes:
        name: for people.
        policy: the policy of the check path.
        method, host, path: the client's request; host empty for none.
        headers: further headers of the client, names in lower case.
        issuer: the configured name of the token's issuer.
        claims: claims of the token beside those that every token has; None: no token.
        age: seconds since the token was made.
        auth_age: seconds since the person logged in.
        expected: `allow`, `allow-anonymous` or the reason of a refusal.
    """

    name: str
    policy: str
    method: str
    host: str
    path: str
    headers: tuple[tuple[str, str], ...]
    issuer: str
    claims: Mapping[str, Any] | None
    age: int
    auth_age: int
    expected: str


class CaseFile(NamedTuple):
    """A file of cases.

    Attributes:
        policies: the path of the policy file, as written.
        issuers: the path of the issuers file, as written; empty for none.
        own_issuer: the `iss` of our own tokens; empty: any.
        cases: at least one.
    """

    policies: str
    issuers: str
    own_issuer: str
    cases: list[Case]


def parse_cases(text: str) -> CaseFile:
    """Read a file of cases (docs/policies.md, "Test a policy file").

    Raises:
        PolicyError: naming the field that is wrong.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyError(f"not TOML: {error}") from None
    if isinstance(document.get("policies"), dict):
        raise PolicyError(
            "policies: this is a policy file; use it with `policy check`. A file of "
            'cases names it: policies = "policies.toml"'
        )
    fields = Fields("", document, ("policies", "issuers", "own_issuer", "cases"))
    path = fields.read_text("policies", "")
    if not path:
        raise fields.fail("policies", "is missing; it is the path of the policy file")
    cases = [
        _read_case(f"cases[{number}]", table)
        for number, table in enumerate(fields.read_list("cases"), 1)
    ]
    if not cases:
        raise fields.fail("cases", "is missing; begin each case with [[cases]]")
    own_issuer = fields.read_text("own_issuer", "")
    if "own_issuer" in fields and not is_identifier(own_issuer):
        raise fields.fail("own_issuer", "must be text of 1..256 characters")
    return CaseFile(path, fields.read_text("issuers", ""), own_issuer, cases)


def _read_case(where: str, table: Any) -> Case:
    fields = Fields(where, table, _FIELDS)
    expected = fields.read_text("expect", "")
    if expected not in _EXPECTED:
        raise fields.fail(
            "expect",
            'must be "allow", "allow-anonymous", "allow-shadow" or the reason of a '
            'refusal, such as "scope_insufficient" (docs/metrics.md has all)'
            f"{name_nearest(expected, _EXPECTED)}",
        )
    claims = fields.read_table("token") if "token" in fields else None
    try:
        orjson.dumps(claims)
    except orjson.JSONEncodeError as error:
        raise fields.fail("token", f"cannot be written as JSON: {error}") from None
    if claims is None and "issuer" in fields:
        raise fields.fail("issuer", "has no effect without token; write token = {}")
    headers = fields.read_table("headers")
    if not all(isinstance(value, str) for value in headers.values()):
        raise fields.fail("headers", "must be texts")
    return Case(
        name=fields.read_text("name", where),
        policy=fields.read_text("policy", DEFAULT_POLICY),
        method=fields.read_text("method", "GET"),
        host=fields.read_text("host", ""),
        path=fields.read_text("path", "/"),
        headers=tuple((name.lower(), value) for name, value in headers.items()),
        issuer=fields.read_text("issuer", OWN_ISSUER),
        claims=claims,
        age=_read_age(fields, "age"),
        auth_age=_read_age(fields, "auth_age"),
        expected=expected,
    )


def _read_age(fields: Fields, name: str) -> int:
    return fields.read_seconds(name, largest=_MAX_AGE) if name in fields else 0


class Decided(NamedTuple):
    """The decision about a case.

    Attributes:
        word: `allow`, `allow-anonymous`, `allow-shadow`, or why it is refused.
        rule: the rule that matches; None for none.
    """

    word: str
    rule: Rule | None


class CaseRunner:
    """Decides cases by policies.

    Args:
        policies: by name.
        now: Unix seconds.
        issuers: the terms of every other issuer that a case can name.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        now: int,
        issuers: Iterable[IssuerTerms] = (),
    ) -> None:
        self._policies = policies
        self._paths = CheckPaths(PolicyBook(policies))
        self._now = now
        own = [
            terms
            for policy in policies.values()
            for terms in policy.token.issuers
            if terms.name == OWN_ISSUER
        ]
        self._issuers = {terms.name: terms for terms in (*own, *issuers)}
        self._makers: dict[str, TokenMaker] = {}

    def decide(self, case: Case) -> Decided:
        """Return the decision about a case.

        Raises:
            PolicyError: when the files have no such policy or issuer, or the token
                cannot be made.
        """
        policy = self._policies.get(case.policy)
        if policy is None:
            nearest = name_nearest(case.policy, self._policies)
            raise PolicyError(
                f"{case.name}: there is no policy {case.policy!r}{nearest}"
            )
        headers = [
            ("x-original-method", case.method),
            ("x-original-uri", case.path),
            *case.headers,
        ]
        if case.host:
            headers.append(("x-original-host", case.host))
        if case.claims is not None:
            token = self._mint(case, policy, case.claims)
            headers.append(("authorization", f"Bearer {token}"))
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        target = b"/verify/nginx/p/" + case.policy.encode()
        request = PlainCheckRequest(b"GET", target, encoded, peer_is_trusted=True)
        trust = self._trust_of(policy)
        outcome = decide(request, trust, self._paths, Times(self._now, 1))
        if isinstance(outcome, Allowed):
            return Decided(decision_of(outcome.answer), outcome.rule)
        return Decided(outcome.reason.value, rule_of(outcome, request))

    def _trust_of(self, policy: Policy) -> TrustSnapshot:
        """Return the keys of the run, and no revocations."""
        held = {
            terms.issuer: IssuerTrust(
                self._maker(terms).keys, RevocationIndex(), 2, 2, has_revocations=True
            )
            for terms in policy.token.issuers
        }
        # `own` is the issuer of the feed. No case is about revocations.
        return TrustSnapshot(next(iter(held.values())), held)

    def _mint(self, case: Case, policy: Policy, claims: Mapping[str, Any]) -> str:
        terms = self._terms_of(case, policy)
        try:
            return self._maker(terms).make(
                terms,
                claims,
                issued_at=self._now - case.age,
                now=self._now,
                auth_time=self._now - case.auth_age,
            )
        except ClaimPathError as error:
            raise PolicyError(f"{case.name}: token.{error}") from None

    def _terms_of(self, case: Case, policy: Policy) -> IssuerTerms:
        """Return what the token of a case must be.

        Raises:
            PolicyError: there is no such issuer, or the policy does not accept it and
                the case does not expect that.
        """
        accepted = {terms.name: terms for terms in policy.token.issuers}
        if case.issuer in accepted:
            return accepted[case.issuer]
        terms = self._issuers.get(case.issuer)
        if terms is None:
            hint = name_nearest(case.issuer, self._issuers)
            if len(self._issuers) == 1:
                hint = '; name the file that has it: issuers = "issuers.toml"'
            raise PolicyError(f"{case.name}: issuer: there is no {case.issuer!r}{hint}")
        if case.expected not in _FOREIGN_REASONS:
            raise PolicyError(
                f"{case.name}: issuer: policy {case.policy} accepts "
                f"{', '.join(accepted)} only, not {case.issuer}; name an accepted one, "
                f"or expect one of {', '.join(_FOREIGN_REASONS)}"
            )
        return terms

    def _maker(self, terms: IssuerTerms) -> TokenMaker:
        # One key for each issuer, whatever audience a policy has.
        if terms.name not in self._makers:
            self._makers[terms.name] = TokenMaker(terms)
        return self._makers[terms.name]
