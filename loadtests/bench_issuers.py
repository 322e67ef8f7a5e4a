"""`python -m loadtests.bench_issuers`: what tokens of other issuers cost a check.

In the process, without a network: a gate that knows our own issuer alone and one whose
policy accepts ten others as well take turns, so that a ratio is one of the same moment.
It measures the gate by itself; `loadtests.bench` has whole servers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import orjson
from tqdm import tqdm

from loadtests.bench.servers import BenchError
from shared.claims import ALGORITHM
from shared.jose import base64url
from verifier.check import gate as gate_module
from verifier.check.cache import FactCache
from verifier.check.claims import ClaimNames
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.gate import Gate, GateDependencies
from verifier.check.policy import IssuerTerms, Policy, PolicyBook, TokenPolicy
from verifier.check.refusal_log import RefusalLog
from verifier.check.trust import Trust, keys_by_id
from verifier.check.verify import read_signed
from verifier.policies.signing.run_keys import RunKey

#: The other issuers in force.
OTHERS = 10
#: A warm check with the others in force at most, times that with ours alone.
BOUND = 1.05
#: Algorithms of a cold check, against RS256.
ALGORITHMS = ("PS256", "ES256", "Ed25519", "ML-DSA-65")
_OWN = "https://auth.example.com"
_NOW = 1_795_000_000
_FRESH = 1e12
_TOKENS = 200
_CHECKS = 4_000
_COLD_CHECKS = 300


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return 1 when the bound is passed."""
    options = parser().parse_args(arguments)
    found = measure(options.rounds, is_quiet=options.json)
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(
                f"{name}: {value:.3f}"
                if isinstance(value, float)
                else f"{name}: {value}"
            )
    return 0 if found["warm, ours of eleven issuers / ours alone"] <= BOUND else 1


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    made = argparse.ArgumentParser(
        prog="python -m loadtests.bench_issuers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--rounds", type=int, default=40, help="turns of each (40)")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def measure(rounds: int, *, is_quiet: bool) -> dict[str, float | bool]:
    """Return the ratios by name, medians of all rounds.

    Raises:
        BenchError: a gate does not let a good token pass.
    """
    site = _Site()
    alone, several = site.gate(others=0), site.gate(others=OTHERS)
    ours = [site.token(None, number) for number in range(_TOKENS)]
    theirs = [
        site.token(site.terms[number % OTHERS], number) for number in range(_TOKENS)
    ]
    warm: dict[str, Callable[[], float]] = {
        "alone": lambda: _time_checks(alone, ours),
        "several": lambda: _time_checks(several, ours),
        "theirs": lambda: _time_checks(several, theirs),
    }
    cold = {name: _ColdCheck(name) for name in (ALGORITHM, *ALGORITHMS)}
    measures = {**warm, **{name: one.time for name, one in cold.items()}}
    for act in measures.values():
        act()
    times: dict[str, list[float]] = {name: [] for name in measures}
    for number in tqdm(range(rounds), desc="rounds", disable=is_quiet):
        # Back and forth, so that nothing always comes after the same neighbour.
        for name in sorted(measures, reverse=number % 2 == 1):
            times[name].append(measures[name]())

    def ratio(name: str, base: str) -> float:
        pairs = zip(times[name], times[base], strict=True)
        return statistics.median(one / other for one, other in pairs)

    return {
        "compiled": not gate_module.__file__.endswith(".py"),
        "warm, ours of eleven issuers / ours alone": ratio("several", "alone"),
        "warm, theirs / ours alone": ratio("theirs", "alone"),
        **{
            f"cold, {name} / {ALGORITHM}": ratio(name, ALGORITHM) for name in ALGORITHMS
        },
    }


class _Site:
    """Our own issuer, ten others, and the trust in all of them."""

    def __init__(self) -> None:
        self.own = IssuerTerms(_OWN, "api")
        self._own_key = RunKey(ALGORITHM, "own")
        self.terms = [
            IssuerTerms(
                issuer=f"https://id-{number}.example.com",
                audience="api",
                name=f"other-{number}",
                algorithms=frozenset({"ES256"}),
                accepted_typs=frozenset({"jwt"}),
                required_claims=frozenset({"sub", "exp", "iat"}),
                claims=ClaimNames(client=("azp",), user=("preferred_username",)),
            )
            for number in range(OTHERS)
        ]
        self._keys = [RunKey("ES256", "their-key") for _ in self.terms]

    def gate(self, others: int) -> Gate:
        """Return a gate whose policy accepts our issuer, and so many others."""
        terms = self.terms[:others]
        trust = Trust(_OWN)
        trust.follow(one.issuer for one in terms)
        trust.trust_keys(_OWN, keys_by_id([self._own_key.public]), _FRESH)
        for one, key in zip(terms, self._keys, strict=False):
            trust.trust_keys(one.issuer, keys_by_id([key.public]), _FRESH)
        trust.renew(_FRESH)
        policy = TokenPolicy((self.own, *terms))
        return Gate(
            PolicyBook({"default": Policy("default", policy)}),
            GateDependencies(
                trust=trust,
                now=lambda: float(_NOW),
                boottime=lambda: 1.0,
                request_keys=lambda _policy: None,
                refusals=RefusalLog(0, trust, 0.0),
                shadow_refusals=RefusalLog(0, trust, 0.0),
                record=lambda *_: b"",
            ),
            lambda: FactCache(max_entries=10_000, max_bytes=1 << 30),
        )

    def token(self, terms: IssuerTerms | None, number: int) -> bytes:
        """Return a token of our issuer, or of that with these terms."""
        if terms is None:
            return make_token(self._own_key, _OWN, "at+jwt", number)
        key = self._keys[self.terms.index(terms)]
        return make_token(key, terms.issuer, "JWT", number)


class _ColdCheck:
    """Checks 1 to 6 of tokens that are not in a cache, signed with one algorithm."""

    def __init__(self, algorithm: str) -> None:
        key = RunKey(algorithm, "key")
        own = IssuerTerms(_OWN, "api")
        self._policy = TokenPolicy((replace(own, algorithms=frozenset({algorithm})),))
        trust = Trust(_OWN)
        trust.trust_keys(_OWN, keys_by_id([key.public]), _FRESH)
        self._snapshot = trust.snapshot
        self._tokens = [
            make_token(key, _OWN, "at+jwt", number) for number in range(_COLD_CHECKS)
        ]

    def time(self) -> float:
        """Return nanoseconds of the processor for all tokens."""
        begun = time.process_time_ns()
        for token in self._tokens:
            read_signed(token, self._snapshot, self._policy, 1.0)
        return time.process_time_ns() - begun


def make_token(key: RunKey, issuer: str, typ: str, number: int) -> bytes:
    """Return a good token; the claims are the same for every key."""
    claims = {
        "iss": issuer,
        "sub": f"user-{number}",
        "aud": "api",
        "exp": _NOW + 600,
        "iat": _NOW,
        "jti": f"jti-{number}",
        "client_id": "app",
        "azp": "app",
        "scope": "orders:read orders:write",
        "sid": f"sid-{number}",
        "gen": 0,
        "roles": ["clerk"],
    }
    header = {"alg": key.alg, "typ": typ, "kid": key.kid}
    parts = [base64url.encode(orjson.dumps(part)) for part in (header, claims)]
    signing_input = ".".join(parts).encode()
    signature = base64url.encode(key.sign(signing_input))
    return signing_input + b"." + signature.encode()


def _time_checks(gate: Gate, tokens: Sequence[bytes]) -> float:
    """Return nanoseconds of the processor for `_CHECKS` checks.

    Raises:
        BenchError: when one is refused.
    """
    requests = [
        PlainCheckRequest(
            b"GET",
            b"/verify/nginx",
            [(b"authorization", b"Bearer " + token)],
            peer_is_trusted=True,
        )
        for token in tokens
    ]
    answers = [gate.answer(request).status for request in requests]
    if set(answers) != {200}:
        raise BenchError(f"the gate answers {sorted(set(answers))}")
    begun = time.process_time_ns()
    for _ in range(_CHECKS // len(requests)):
        for request in requests:
            gate.answer(request)
    return time.process_time_ns() - begun


if __name__ == "__main__":
    sys.exit(main())
