"""Thousands of bad tokens, checked by us and by two independent implementations.

What we accept, PyJWT and joserfc accept too, under equivalent options. What they accept
and we refuse, a numbered rule explains. `make proof` asks about many more of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry

from shared.claims import ACCEPTED_TYPS, DEFAULT_LEEWAY, REQUIRED_CLAIMS
from shared.jose.jws import parse_compact
from tests.support.fixed_key import fixed_key
from tests.support.mutation_values import NOW
from tests.support.mutations import Mutant, mutants
from tests.support.proofs import examples
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, make_token
from tests.support.trusting import trust_in
from verifier.check.denials import Denied, DenyReason
from verifier.check.policy import TokenPolicy
from verifier.check.trust import key_set
from verifier.check.verify import verify

#: Mutated tokens that every test run tries.
MUTANTS = 5_000
#: The rule by which we refuse what this implementation accepts. A reason that is not
#: here explains nothing: of a signature, an audience or a date there is one true
#: opinion.
STRICTER = {
    (DenyReason.TOKEN_TOO_LARGE, "PyJWT"): "R17",
    (DenyReason.TOKEN_TOO_LARGE, "joserfc"): "R17",
    # padding
    (DenyReason.TOKEN_MALFORMED, "PyJWT"): "R17",
    # UTF-16 and UTF-32, duplicate members, NaN, nesting
    (DenyReason.HEADER_MALFORMED, "PyJWT"): "R17",
    (DenyReason.HEADER_MALFORMED, "joserfc"): "R17",
    (DenyReason.HEADER_FORBIDDEN, "PyJWT"): "R16",
    (DenyReason.HEADER_FORBIDDEN, "joserfc"): "R16",
    # they are handed the one key and never ask for its name
    (DenyReason.KID_MISSING, "PyJWT"): "R22",
    (DenyReason.KID_MISSING, "joserfc"): "R22",
    (DenyReason.KID_UNKNOWN, "PyJWT"): "R22",
    (DenyReason.KID_UNKNOWN, "joserfc"): "R22",
    # R17 as in the header; R18 text and true for dates; R12 controls in what becomes a
    # header
    (DenyReason.CLAIMS_MALFORMED, "PyJWT"): "R12, R17, R18",
    (DenyReason.CLAIMS_MALFORMED, "joserfc"): "R12, R17, R18",
    # they know no longest lifetime
    (DenyReason.LIFETIME_TOO_LONG, "PyJWT"): "R53",
    (DenyReason.LIFETIME_TOO_LONG, "joserfc"): "R53",
}


Json = dict[str, Any]


def _has_fraction(_header: Json, claims: Json) -> bool:
    return any(
        type(claims.get(name)) is float and not claims[name].is_integer()
        for name in ("exp", "iat", "nbf")
    )


def _has_odd_x5t(header: Json, _claims: Json) -> bool:
    given = [header[name] for name in ("x5t", "x5t#S256") if name in header]
    return any(not isinstance(value, str) for value in given)


#: Where an implementation decides otherwise in its own way, and we keep to the RFC.
#: Each: its name, our verdict, its refusal; and what must be so of header and claims.
THEIR_WAYS: dict[tuple[str, str, str], Callable[[Json, Json], bool]] = {
    # RFC 7519, section 2: a NumericDate may have a fraction. PyJWT cuts it off, which
    # ends a token up to a second too soon, or begins it as much too soon.
    ("PyJWT", "", "ExpiredSignatureError"): _has_fraction,
    ("PyJWT", DenyReason.NOT_YET_VALID, ""): _has_fraction,
    # RFC 7515, section 4: what is not understood is ignored. joserfc types a member
    # that it does not use either.
    ("joserfc", "", "InvalidHeaderValueError"): _has_odd_x5t,
}


class StandingPyJWT(jwt.PyJWT):
    """PyJWT on a clock that stands still: its checks are its own, only `now` is
    ours.
    """

    def _validate_iat(self, payload: Json, now: float, leeway: float) -> None:
        super()._validate_iat(payload, NOW, leeway)

    def _validate_nbf(self, payload: Json, now: float, leeway: float) -> None:
        super()._validate_nbf(payload, NOW, leeway)

    def _validate_exp(self, payload: Json, now: float, leeway: float) -> None:
        super()._validate_exp(payload, NOW, leeway)


class RoomyRegistry(JWSRegistry):
    """joserfc with room for any header that we have room for."""

    max_header_length = 32_768


PYJWT = StandingPyJWT()
REGISTRY = RoomyRegistry(algorithms=["RS256"], strict_check_header=False)
REQUIRED: Json = {name: {"essential": True} for name in REQUIRED_CLAIMS}
CLAIMS_REGISTRY = joserfc_jwt.JWTClaimsRegistry(
    NOW,
    DEFAULT_LEEWAY,
    **REQUIRED
    | {
        "iss": {"essential": True, "value": ISSUER},
        "aud": {"essential": True, "value": AUDIENCE},
    },
)


@cache
def _joserfc_key() -> RSAKey:
    public_key = fixed_key("ours").private_key.public_key()
    return RSAKey.import_key(
        public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )


def check_typ_by_hand(header: Json) -> None:
    """Neither implementation looks at the type (RFC 9068, section 4)."""
    typ = header.get("typ")
    if not isinstance(typ, str) or typ.lower() not in ACCEPTED_TYPS:
        raise ValueError("typ")


def ask_pyjwt(token: bytes) -> None:
    decoded = PYJWT.decode_complete(
        token,
        fixed_key("ours").private_key.public_key(),
        algorithms=["RS256"],
        audience=AUDIENCE,
        issuer=ISSUER,
        leeway=DEFAULT_LEEWAY,
        options={"require": list(REQUIRED_CLAIMS)},
    )
    check_typ_by_hand(decoded["header"])


def ask_joserfc(token: bytes) -> None:
    decoded = joserfc_jwt.decode(token, _joserfc_key(), ["RS256"], REGISTRY)
    check_typ_by_hand(decoded.header)
    CLAIMS_REGISTRY.validate(decoded.claims)


ORACLES = {"PyJWT": ask_pyjwt, "joserfc": ask_joserfc}


def refusal_of(ask: Callable[[bytes], None], token: bytes) -> str:
    """Return the name of its refusal, empty when it accepts. Both raise all sorts."""
    try:
        ask(token)
    except Exception as error:
        return type(error).__name__
    return ""


@dataclass
class Tally:
    """The outcome of all mutants.

    Attributes:
        verdicts: mutants by our reason; the empty one counts accepted mutants.
        explained: differences by our reason and the implementation that accepts.
        their_ways: differences by the entry of `THEIR_WAYS`.
        looser: accepted by us and refused by an implementation, unexplained.
        unexplained: accepted by an implementation, and refused by no rule of ours.
        refused_good: tokens that every verifier must accept, and we do not.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    explained: Counter[tuple[DenyReason, str]] = field(default_factory=Counter)
    their_ways: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    looser: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    refused_good: list[str] = field(default_factory=list)

    def add(self, mutant: Mutant, ours: DenyReason | None) -> None:
        """Note our verdict and ask the others."""
        self.verdicts[ours or ""] += 1
        where = f"mutant {mutant.number} {mutant.kinds}: ours {ours or 'accepts'}"
        # A date moved by a mutation may make the lifetime longer than ours (R53).
        if mutant.must_pass and ours not in (None, DenyReason.LIFETIME_TOO_LONG):
            self.refused_good.append(where)
        for name, ask in ORACLES.items():
            theirs = refusal_of(ask, mutant.token)
            if bool(theirs) == bool(ours):
                continue
            way = (name, ours or "", theirs)
            if way in THEIR_WAYS and THEIR_WAYS[way](*_read(mutant.token)):
                self.their_ways[way] += 1
            elif ours is None:
                self.looser.append(f"{where}, {name}: {theirs}")
            elif (ours, name) in STRICTER:
                self.explained[ours, name] += 1
            else:
                self.unexplained.append(f"{where}, {name} accepts")

    def lines(self) -> list[str]:
        """Return the counts as a table."""
        lines = [f"{sum(self.verdicts.values())} mutated tokens"]
        for reason, count in self.verdicts.most_common():
            rules = {STRICTER.get((DenyReason(reason), n)) for n in ORACLES if reason}
            others = [
                f"{name} accepts {self.explained[DenyReason(reason), name]}"
                for name in ORACLES
                if reason and (DenyReason(reason), name) in self.explained
            ]
            rule = ", ".join(sorted(filter(None, rules))) if others else ""
            shown = f"; {rule}: {', '.join(others)}" if others else ""
            lines.append(f"  {reason or 'accepted':18} {count:7}{shown}")
        for (name, ours, theirs), count in self.their_ways.items():
            shown = f"ours {ours or 'accepts'}, {name} {theirs or 'accepts'}"
            lines.append(f"  their own way: {shown}: {count}")
        return lines


def _read(token: bytes) -> tuple[Json, Json]:
    """Return header and claims of a token that somebody accepts."""
    jws = parse_compact(token)
    return dict(jws.unverified_header), orjson.loads(jws.unverified_payload)


@cache
def tally_of(count: int) -> Tally:
    """Ask everybody about that many mutants, once."""
    trust = trust_in(key_set([fixed_key("ours").jwk]))
    policy = TokenPolicy.own(ISSUER, AUDIENCE)
    tally = Tally()
    for mutant in mutants(count):
        try:
            verify(mutant.token, trust, policy, NOW)
        except Denied as denied:
            tally.add(mutant, denied.reason)
        else:
            tally.add(mutant, None)
    return tally


@pytest.fixture
def tally() -> Tally:
    return tally_of(examples(MUTANTS))


pytestmark = pytest.mark.proof


def test_all_agree_on_a_good_token() -> None:
    token = make_token(good_claims(NOW), key=fixed_key("ours"))
    assert [refusal_of(ask, token) for ask in ORACLES.values()] == ["", ""]


def test_tokens_we_accept_are_accepted_by_others(
    tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    """R14 to R18: no mutant passes here that does not pass there."""
    with capsys.disabled():
        print("", *tally.lines(), sep="\n")
    assert tally.looser == []


def test_tokens_only_we_refuse_are_explained_by_a_rule(tally: Tally) -> None:
    """R12, R16, R17, R18, R22: and each of them is needed to explain something."""
    assert tally.unexplained == []
    assert set(tally.explained) == set(STRICTER)
    assert set(tally.their_ways) == set(THEIR_WAYS)


def test_tokens_that_others_must_accept_are_accepted(tally: Tally) -> None:
    """A gate that is always shut would pass the other tests."""
    assert tally.refused_good == []
    assert tally.verdicts[""] > 0.1 * sum(tally.verdicts.values())


def test_every_refusal_of_a_token_occurs(tally: Tally) -> None:
    expected = {
        *(DenyReason.TOKEN_TOO_LARGE, DenyReason.TOKEN_MALFORMED),
        *(DenyReason.HEADER_MALFORMED, DenyReason.HEADER_FORBIDDEN),
        *(DenyReason.ALG_NOT_ALLOWED, DenyReason.TYP_NOT_ALLOWED),
        *(DenyReason.KID_MISSING, DenyReason.KID_UNKNOWN),
        *(DenyReason.SIGNATURE_INVALID, DenyReason.CLAIMS_MALFORMED),
        *(DenyReason.CLAIM_MISSING, DenyReason.ISSUER_MISMATCH),
        *(DenyReason.AUDIENCE_MISMATCH, DenyReason.EXPIRED, DenyReason.NOT_YET_VALID),
        DenyReason.LIFETIME_TOO_LONG,
    }
    assert set(tally.verdicts) == {"", *expected}
