"""Cases for a policy file: requests, and what the file should decide about each.

The same `decide` as in the gate answers them (R66). Tokens are signed by a key that is
made for the run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from shared.claims import ACCESS_TOKEN_TYP, ALGORITHM
from shared.configuration.toml_fields import name_nearest
from shared.jose import base64url
from shared.jose.jwk import RsaPublicJwk
from verifier.check.answers import decision_of
from verifier.check.decision import Allowed, CheckPaths, Times, decide, rule_of
from verifier.check.denials import DenyReason
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.policy import (
    DEFAULT_POLICY,
    Policy,
    PolicyBook,
    PolicyError,
)
from verifier.check.revocations import RevocationIndex
from verifier.check.rules.rule import Rule
from verifier.check.trust import IssuerTrust, TrustSnapshot, key_set
from verifier.policies.fields import Fields

_FIELDS: Final = (
    *("name", "policy", "method", "host", "path", "headers", "token"),
    *("age", "auth_age", "expect"),
)
_ALLOWS: Final = ("allow", "allow-anonymous", "allow-shadow")
_EXPECTED: Final = frozenset({*_ALLOWS, *(reason.value for reason in DenyReason)})
#: What every token of ours has besides.
_OF_OUR_TOKENS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "client_id": "client",
        "jti": "token",
        "sid": "session",
        "gen": 0,
        "scope": "",
        "roles": [],
    }
)
#: Seconds that the tokens of cases live.
_LIFETIME: Final = 600
_MAX_AGE: Final = 10 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class Case:
    """One request, and the decision that is expected.

    Attributes:
        name: for people.
        policy: the policy of the check path.
        method, host, path: the client's request; host empty for none.
        headers: further headers of the client, names in lower case.
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
    claims: Mapping[str, Any] | None
    age: int
    auth_age: int
    expected: str


def parse_cases(text: str) -> tuple[str, list[Case]]:
    """Read a file of cases (docs/policies.md, "Test a policy file").

    Returns:
        The path of the policy file, as written, and the cases.

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
    fields = Fields("", document, ("policies", "cases"))
    path = fields.read_text("policies", "")
    if not path:
        raise fields.fail("policies", "is missing; it is the path of the policy file")
    cases = [
        _read_case(f"cases[{number}]", table)
        for number, table in enumerate(fields.read_list("cases"), 1)
    ]
    if not cases:
        raise fields.fail("cases", "is missing; begin each case with [[cases]]")
    return path, cases


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


def _signable(policy: Policy) -> Policy:
    """Return the policy, for tokens that are signed by the key of the run.

    The algorithm and the type of a token are not what a case is about.
    """
    issuers = tuple(
        replace(
            terms,
            algorithms=frozenset({ALGORITHM}),
            accepted_typs=frozenset({ACCESS_TOKEN_TYP}),
        )
        for terms in policy.token.issuers
    )
    return replace(policy, token=replace(policy.token, issuers=issuers))


class CaseRunner:
    """Decides cases by policies.

    Args:
        policies: by name.
        now: Unix seconds.
    """

    def __init__(self, policies: Mapping[str, Policy], now: int) -> None:
        self._policies = {name: _signable(one) for name, one in policies.items()}
        self._paths = CheckPaths(PolicyBook(self._policies))
        self._key = rsa.generate_private_key(65_537, 2_048)
        numbers = self._key.public_key().public_numbers()
        self._jwk = RsaPublicJwk.with_thumbprint(numbers.n, numbers.e)
        self._now = now

    def decide(self, case: Case) -> Decided:
        """Return the decision about a case.

        Raises:
            PolicyError: when the file has no policy of that name.
        """
        if case.policy not in self._policies:
            nearest = name_nearest(case.policy, self._policies)
            raise PolicyError(
                f"{case.name}: there is no policy {case.policy!r}{nearest}"
            )
        keys = key_set([self._jwk])
        held = IssuerTrust(keys, RevocationIndex(), 2, 2, has_revocations=True)
        issuers = [terms.issuer for terms in self._policies[case.policy].token.issuers]
        trust = TrustSnapshot(held, dict.fromkeys(issuers, held))
        headers = [
            ("x-original-method", case.method),
            ("x-original-uri", case.path),
            *case.headers,
        ]
        if case.host:
            headers.append(("x-original-host", case.host))
        if case.claims is not None:
            headers.append(("authorization", f"Bearer {self._mint(case)}"))
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        target = b"/verify/nginx/p/" + case.policy.encode()
        request = PlainCheckRequest(b"GET", target, encoded, peer_is_trusted=True)
        times = Times(self._now, 1)
        outcome = decide(request, trust, self._paths, times)
        if isinstance(outcome, Allowed):
            return Decided(decision_of(outcome.answer), outcome.rule)
        return Decided(outcome.reason.value, rule_of(outcome, request))

    def _mint(self, case: Case) -> str:
        terms = self._policies[case.policy].token.issuers[0]
        issued_at = self._now - case.age
        header = {"alg": ALGORITHM, "typ": ACCESS_TOKEN_TYP, "kid": self._jwk.kid}
        claims = {
            "iss": terms.issuer,
            "aud": terms.audience,
            "sub": "user",
            # Also an old token is still alive, as far as the gate allows.
            "exp": min(self._now + _LIFETIME, issued_at + terms.max_lifetime),
            "iat": issued_at,
            "auth_time": self._now - case.auth_age,
            **_OF_OUR_TOKENS,
            **(case.claims or {}),
        }
        parts = [base64url.encode(orjson.dumps(part)) for part in (header, claims)]
        signing_input = ".".join(parts).encode()
        signature = self._key.sign(signing_input, padding.PKCS1v15(), SHA256())
        return f"{signing_input.decode()}.{base64url.encode(signature)}"
