"""Claims of the wrong type are refused, never converted (R18)."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest

from shared.claims import REQUIRED_CLAIMS
from tests.support.tokens import good_claims
from verifier.check.claims import claims_of, read_claims
from verifier.check.denials import Denied, DenyReason

NOW = 1_795_000_000


def read(**changes: Any) -> Any:
    return read_claims(orjson.dumps(good_claims(NOW) | changes), REQUIRED_CLAIMS)


def reason_of(**changes: Any) -> DenyReason:
    with pytest.raises(Denied) as caught:
        read(**changes)
    return caught.value.reason


def test_good_claims_are_read() -> None:
    claims = read(nbf=NOW - 1)
    assert claims.iss == "https://issuer.test"
    assert claims.sub == "5f9c1e1e-0000-4000-8000-000000000001"
    assert claims.audiences == {"api"}
    assert (claims.exp, claims.iat, claims.nbf) == (NOW + 600, NOW, NOW - 1)
    assert (claims.jti, claims.sid, claims.gen) == ("jti-1", "sid-1", 0)
    assert claims.client_id == "gatehouse"
    assert claims.scopes == ("orders:read", "orders:write")
    assert claims.roles == ("clerk",)
    assert claims.username == "alice"


@pytest.mark.parametrize("name", sorted(REQUIRED_CLAIMS))
def test_each_required_claim_must_be_there(name: str) -> None:
    payload = good_claims(NOW, **{name: None})
    with pytest.raises(Denied) as caught:
        read_claims(orjson.dumps(payload), REQUIRED_CLAIMS)
    assert caught.value.reason is DenyReason.CLAIM_MISSING


def test_the_required_claims_are_those_of_the_rule() -> None:
    """R18, by name."""
    names = "iss sub aud exp iat jti sid gen client_id"
    assert set(names.split()) == REQUIRED_CLAIMS


@pytest.mark.parametrize("name", ["nbf", "scope", "roles", "username", "auth_time"])
def test_the_other_claims_may_be_absent(name: str) -> None:
    payload = good_claims(NOW, nbf=NOW) | {}
    del payload[name]
    claims = read_claims(orjson.dumps(payload), REQUIRED_CLAIMS)
    assert claims.sub == payload["sub"]


def test_absent_optional_claim_is_empty() -> None:
    """The conformance driver asks for less; the verifier never does."""
    claims = claims_of({}, frozenset())
    assert claims.exp == math.inf
    assert (claims.iat, claims.nbf, claims.gen) == (0, 0, 0)
    assert claims.iss == claims.sub == claims.jti == ""
    assert claims.audiences == frozenset()


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", [NOW, NOW + 0.5, 0, 253_402_300_799])
def test_a_date_is_a_json_number_up_to_the_year_9999(name: str, value: float) -> None:
    assert getattr(read_with(name, value), name) == value


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value", [-1, -0.5, 253_402_300_800, NOW * 1_000_000, 1 << 70, 1e300]
)
def test_date_out_of_range_is_malformed(name: str, value: float) -> None:
    """R53: revocations could not be kept until such a token ends."""
    with pytest.raises(Denied) as denied:
        read_with(name, value)
    assert denied.value.reason is DenyReason.CLAIMS_MALFORMED


def read_with(name: str, value: object) -> Any:
    return claims_of({**good_claims(NOW), name: value}, REQUIRED_CLAIMS)


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        "1795000600",
        "١٧٩٥٠٠٠٦٠٠",
        "",
        None,
        [],
        [NOW],
        {},
        math.nan,
        math.inf,
        -math.inf,
    ],
)
def test_a_date_is_nothing_else(name: str, value: object) -> None:
    """R18: booleans, text and NaN are not numbers (PyJWT took `"١٢"` as exp)."""
    with pytest.raises(Denied) as caught:
        read_with(name, value)
    assert caught.value.reason is DenyReason.CLAIMS_MALFORMED


@pytest.mark.parametrize("payload", [b'{"exp":NaN}', b'{"exp":1,"exp":2}', b"", b"[]"])
def test_a_payload_that_is_no_strict_object_is_malformed(payload: bytes) -> None:
    with pytest.raises(Denied) as caught:
        read_claims(payload, REQUIRED_CLAIMS)
    assert caught.value.reason is DenyReason.CLAIMS_MALFORMED


@pytest.mark.parametrize("value", [0, 1, 1 << 63])
def test_gen_is_a_whole_number(value: int) -> None:
    assert read(gen=value).gen == value


@pytest.mark.parametrize("value", [-1, 1.0, True, False, "1", None, [1]])
def test_gen_is_nothing_else(value: object) -> None:
    assert reason_of(gen=value) is DenyReason.CLAIMS_MALFORMED


@pytest.mark.parametrize("name", ["iss", "sub", "jti", "sid", "client_id"])
@pytest.mark.parametrize(
    "value",
    ["", None, 1, True, ["a"], {"a": 1}, "a" * 257, "a\nb", "a\x00", "a\u202eb"],
)
def test_an_identifier_is_plain_text(name: str, value: object) -> None:
    """R12: a subject with control characters is refused at verifying."""
    assert reason_of(**{name: value}) is DenyReason.CLAIMS_MALFORMED


@pytest.mark.parametrize(
    ("value", "audiences"),
    [("api", {"api"}), (["api"], {"api"}), (["a", "b", "a"], {"a", "b"})],
)
def test_aud_is_text_or_a_list_of_texts(value: object, audiences: set[str]) -> None:
    assert read(aud=value).audiences == audiences


@pytest.mark.parametrize(
    "value", [[], "", [""], None, 1, True, {"api": 1}, ["api", 1], ["api", None]]
)
def test_aud_is_nothing_else(value: object) -> None:
    """R18: a list with one bad member is a bad list."""
    assert reason_of(aud=value) is DenyReason.CLAIMS_MALFORMED


@pytest.mark.parametrize(
    ("value", "scopes"),
    [("", ()), ("a", ("a",)), ("a b a", ("a", "b", "a")), (" a  b ", ("a", "b"))],
)
def test_scope_is_one_text_of_words(value: str, scopes: tuple[str, ...]) -> None:
    assert read(scope=value).scopes == scopes


@pytest.mark.parametrize("value", [None, 1, ["a"], {}, "a\tb", "a\nb", "a\u2028b"])
def test_scope_is_nothing_else(value: object) -> None:
    assert reason_of(scope=value) is DenyReason.CLAIMS_MALFORMED


@pytest.mark.parametrize("value", [[], ["a"], ["a", "b c"]])
def test_roles_are_a_list_of_texts(value: list[str]) -> None:
    assert read(roles=value).roles == tuple(value)


@pytest.mark.parametrize(
    "value", [None, "admin", {"admin": 1}, [1], ["a", None], [""], ["a\r\nb"], [["a"]]]
)
def test_roles_are_nothing_else(value: object) -> None:
    assert reason_of(roles=value) is DenyReason.CLAIMS_MALFORMED


@pytest.mark.parametrize("value", ["", "alice", "Zoë Müller", "a" * 64])
def test_a_username_is_plain_text(value: str) -> None:
    assert read(username=value).username == value


@pytest.mark.parametrize("value", [None, 1, ["a"], "a" * 65, "a\nb", "a\x7f"])
def test_a_username_is_nothing_else(value: object) -> None:
    assert reason_of(username=value) is DenyReason.CLAIMS_MALFORMED
