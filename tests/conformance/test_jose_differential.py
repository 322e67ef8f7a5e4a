"""Mutated tokens of every algorithm: what we accept, PyJWT and joserfc accept, too.

They are asked about the tokens that pass here. What only they accept is the subject of
`test_differential.py`, for RS256. `make proof` asks about 200,000 of each algorithm.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import jwt
import pytest
from joserfc import jws as joserfc_jws
from joserfc.jwk import import_key
from joserfc.jws import JWSRegistry
from jwt.algorithms import OKPAlgorithm

from shared.jose.algorithms import ALGORITHMS
from shared.jose.jws import (
    JwsError,
    JwsFault,
    check_header,
    check_signature,
    check_typ,
    parse_compact,
    read_kid,
)
from shared.jose.verification_keys import VerificationKey
from tests.support.jose_keys import jose_key
from tests.support.jose_mutations import jose_mutant
from tests.support.proofs import examples, is_whole

#: Mutated tokens of each algorithm in every test run, and in a whole proof.
MUTANTS = 250
WHOLE = 200_000
TYPES = frozenset({"at+jwt", "jwt", ""})
#: Neither implementation has them; the third oracle is `cryptography` itself.
ML_DSA = frozenset(alg for alg in ALGORITHMS if alg.startswith("ML-DSA"))

Ask = Callable[[bytes], None]


class RoomyRegistry(JWSRegistry):
    """joserfc with room for any header that we have room for."""

    max_header_length = 32_768


PYJWT = jwt.PyJWS()
# PyJWT has the algorithm under its old name alone.
PYJWT.register_algorithm("Ed25519", OKPAlgorithm())


def names_of(alg: str) -> frozenset[str]:
    """Return what an issuer lists for the algorithm, its old name included."""
    return frozenset({alg, "EdDSA"} if alg == "Ed25519" else {alg})


def ask_us(token: bytes, keys: dict[str, VerificationKey], alg: str) -> None:
    """Do what a verifier does up to the signature.

    Raises:
        JwsError: the token is refused.
    """
    jws = parse_compact(token)
    check_header(jws.unverified_header, names_of(alg))
    check_typ(jws.unverified_header, TYPES)
    key = keys.get(read_kid(jws.unverified_header))
    if key is None:
        raise JwsError(JwsFault.KID_UNKNOWN)
    check_signature(jws, key)
    _ = jws.unverified_payload  # opaque, but canonically spelt


def _ask_pyjwt(alg: str) -> Ask:
    key, names = jose_key(alg).public().public_key, sorted(names_of(alg))

    def ask(token: bytes) -> None:
        PYJWT.decode_complete(token, key, algorithms=names)  # type: ignore[arg-type]

    return ask


def _ask_joserfc(alg: str) -> Ask:
    jwk = {n: v for n, v in jose_key(alg).jwk.items() if n not in ("alg", "kid")}
    key, names = import_key(jwk), sorted(names_of(alg))
    registry = RoomyRegistry(algorithms=names, strict_check_header=False)

    def ask(token: bytes) -> None:
        joserfc_jws.deserialize_compact(token, key, names, registry)

    return ask


def _ask_cryptography(alg: str) -> Ask:
    key: Any = jose_key(alg).public().public_key

    def ask(token: bytes) -> None:
        signing_input, _, signature = token.rpartition(b".")
        padding = b"=" * (-len(signature) % 4)
        key.verify(urlsafe_b64decode(signature + padding), signing_input)

    return ask


def oracles_of(alg: str) -> dict[str, Ask]:
    if alg in ML_DSA:
        return {"cryptography": _ask_cryptography(alg)}
    return {"PyJWT": _ask_pyjwt(alg), "joserfc": _ask_joserfc(alg)}


def refusal_of(ask: Ask, token: bytes) -> str:
    """Return the name of its refusal, empty when it accepts. Both raise all sorts."""
    try:
        ask(token)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def fault_of(token: bytes, keys: dict[str, VerificationKey], alg: str) -> str:
    """Return our refusal, empty when we accept."""
    try:
        ask_us(token, keys, alg)
    except JwsError as error:
        return error.fault
    return ""


@cache
def tally_of(alg: str, count: int) -> tuple[Counter[str], list[str]]:
    """Return our verdicts, and what we accept and an implementation refuses."""
    key = jose_key(alg).public()
    keys, oracles = {key.kid: key}, oracles_of(alg)
    verdicts: Counter[str] = Counter()
    looser = []
    for number in range(count):
        kind, token = jose_mutant(alg, number)
        fault = fault_of(token, keys, alg)
        verdicts[fault] += 1
        for name, ask in oracles.items() if not fault else ():
            if theirs := refusal_of(ask, token):
                looser.append(f"{alg} {number} {kind}: {name} refuses: {theirs}")
    return verdicts, looser


pytestmark = [
    pytest.mark.proof,
    # joserfc warns of the old name.
    pytest.mark.filterwarnings("ignore:EdDSA is deprecated"),
]
every_algorithm = pytest.mark.parametrize("alg", ALGORITHMS)


def count() -> int:
    return max(WHOLE, examples(MUTANTS)) if is_whole() else MUTANTS


@every_algorithm
def test_all_agree_on_a_good_token(alg: str) -> None:
    key = jose_key(alg).public()
    token = jose_key(alg).token(typ="at+jwt")
    assert fault_of(token, {key.kid: key}, alg) == ""
    assert {refusal_of(ask, token) for ask in oracles_of(alg).values()} == {""}


@every_algorithm
def test_tokens_we_accept_are_accepted_by_others(
    alg: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """R14 to R17, R67: no mutant passes here that does not pass there."""
    verdicts, looser = tally_of(alg, count())
    with capsys.disabled():
        shown = ", ".join(f"{n or 'accepted'} {c}" for n, c in verdicts.most_common())
        print(f"\n{sum(verdicts.values())} mutated tokens of {alg}: {shown}")
    assert looser == []


@every_algorithm
def test_many_mutants_are_accepted(alg: str) -> None:
    """A verifier that accepts nothing would pass the test above."""
    verdicts, _ = tally_of(alg, count())
    assert verdicts[""] > 0.1 * sum(verdicts.values())


def test_every_fault_occurs() -> None:
    seen = {fault for alg in ALGORITHMS for fault in tally_of(alg, count())[0]}
    assert seen == {"", *JwsFault}


def test_all_agree_on_the_old_name_of_ed25519() -> None:
    """`EdDSA` in the header, for a key of Ed25519 (RFC 9864)."""
    key = jose_key("Ed25519").public()
    token = jose_key("Ed25519").token(alg="EdDSA")
    assert fault_of(token, {key.kid: key}, "Ed25519") == ""
    assert {refusal_of(ask, token) for ask in oracles_of("Ed25519").values()} == {""}
