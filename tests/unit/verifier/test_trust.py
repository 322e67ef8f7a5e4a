"""A JWKS is taken as a whole or not at all (R20)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from shared.jose.jwk import PRIVATE_MEMBERS
from shared.jose.verification_keys import MAX_KEYS, JwksError
from tests.support.tokens import signing_key
from verifier.check.denials import Denied, DenyReason
from verifier.check.trust import KeySet, Trust, parse_jwks

FIRST = signing_key("first").jwk.to_wire()
SECOND = signing_key("second").jwk.to_wire()
EC = {"kty": "EC", "crv": "P-256", "kid": "ec", "x": "AA", "y": "AA"}


def jwks(*keys: Any, **members: Any) -> bytes:
    return orjson.dumps({"keys": list(keys)} | members)


def test_keys_are_found_by_name_only() -> None:
    keys = parse_jwks(jwks(FIRST, SECOND))
    assert set(keys.keys) == {FIRST["kid"], SECOND["kid"]}
    assert keys.find(FIRST["kid"]).kid == FIRST["kid"]
    numbers = keys.find(FIRST["kid"]).public_key.public_numbers()
    assert numbers.n == signing_key("first").jwk.n


@pytest.mark.parametrize(
    "kid", ["", "unknown", FIRST["kid"].lower()], ids=["empty", "unknown", "lower case"]
)
def test_an_unknown_name_is_refused(kid: str) -> None:
    with pytest.raises(Denied) as caught:
        parse_jwks(jwks(FIRST)).find(kid)
    assert caught.value.reason is DenyReason.KID_UNKNOWN


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(EC, id="another type"),
        pytest.param({**SECOND, "use": "enc"}, id="another use"),
        pytest.param({**SECOND, "alg": "PS256"}, id="another algorithm"),
        pytest.param({**SECOND, "key_ops": ["encrypt"]}, id="another operation"),
        pytest.param({**SECOND, "e": "Aw"}, id="another exponent"),
        pytest.param({**SECOND, "n": "AQAB"}, id="too small"),
        pytest.param({n: v for n, v in SECOND.items() if n != "kid"}, id="no kid"),
        pytest.param({}, id="empty"),
        pytest.param({"kty": "oct", "kid": "o"}, id="symmetric without its member"),
    ],
)
def test_key_of_another_kind_is_ignored(other: dict[str, Any]) -> None:
    """RFC 7517, section 5."""
    assert set(parse_jwks(jwks(other, FIRST)).keys) == {FIRST["kid"]}


@pytest.mark.parametrize("member", sorted(PRIVATE_MEMBERS))
@pytest.mark.parametrize("other", [SECOND, EC, {}], ids=["RSA", "EC", "unknown type"])
def test_a_private_member_anywhere_refuses_the_whole_set(
    other: dict[str, Any], member: str
) -> None:
    """R20, R14: its author has lost control of it."""
    with pytest.raises(JwksError, match="private"):
        parse_jwks(jwks(FIRST, {**other, member: "AQAB"}))


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param((FIRST, FIRST), id="the same key twice"),
        pytest.param((FIRST, {**SECOND, "kid": FIRST["kid"]}), id="two keys"),
        pytest.param((FIRST, {**EC, "kid": FIRST["kid"]}), id="another type"),
    ],
)
def test_one_kid_twice_refuses_the_whole_set(keys: tuple[dict[str, Any], ...]) -> None:
    """R20: which of them is meant cannot be known."""
    with pytest.raises(JwksError, match="is repeated"):
        parse_jwks(jwks(*keys))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON"),
        (b"<html>", "JSON"),
        (b"[]", "object"),
        (jwks(FIRST)[:-1], "JSON"),
        (b'{"keys":[],"keys":[]}', "JSON"),
        (jwks(FIRST).decode().encode("utf-16"), "JSON"),
        (b"{}", "keys: must be a list"),
        (b'{"keys":null}', "keys: must be a list"),
        (b'{"keys":{}}', "keys: must be a list"),
        (b'{"keys":["a"]}', "keys: must be a list"),
        (orjson.dumps({"keys": [FIRST, 1]}), "keys: must be a list"),
        (jwks(), "no key for RS256 can be used"),
        (jwks(EC), "no key for RS256 can be used"),
        (jwks(*({"kid": f"k-{n}"} for n in range(MAX_KEYS)), FIRST), "more than 100"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused(body: bytes, message: str) -> None:
    """R20: an empty or broken set never replaces a good one."""
    with pytest.raises(JwksError, match=message):
        parse_jwks(body)


def test_the_version_changes_with_content_only() -> None:
    """R27: facts are bound to it."""
    version = parse_jwks(jwks(FIRST, SECOND)).version
    same = [
        jwks(SECOND, FIRST),
        jwks(FIRST, SECOND, note="x"),
        jwks(FIRST, EC, SECOND),
        jwks({**FIRST, "use": "sig", "x5t": "y"}, SECOND),
        orjson.dumps({"keys": [FIRST, SECOND]}, option=orjson.OPT_INDENT_2),
    ]
    assert {parse_jwks(body).version for body in same} == {version}
    other = [
        jwks(FIRST),
        jwks(SECOND),
        jwks({**FIRST, "kid": "a"}, SECOND),
        jwks({**FIRST, "n": SECOND["n"]}, SECOND),
        # two names exchanged
        jwks({**FIRST, "kid": SECOND["kid"]}, {**SECOND, "kid": FIRST["kid"]}),
    ]
    versions = {parse_jwks(body).version for body in other}
    assert len(versions) == len(other)
    assert version not in versions
    assert KeySet().version not in {version, *versions}


def test_a_verifier_begins_with_nothing_to_trust() -> None:
    """R9: before the first fetch every check is refused."""
    snapshot = Trust("https://issuer.test").snapshot
    assert not snapshot.own.keys.keys
    assert snapshot.own.fresh_until == snapshot.own.keys_until == 0.0


def test_keys_of_another_issuer_are_not_trusted() -> None:
    trust = Trust("https://issuer.test")
    with pytest.raises(ValueError, match=r"https://other\.test: is not"):
        trust.trust_keys("https://other.test", KeySet(version="1"), 10.0)
    assert trust.snapshot.own.keys_until == 0.0


def test_keys_with_the_same_content_stay_the_same_object() -> None:
    """Facts about tokens are bound to it."""
    trust = Trust("https://issuer.test")
    first = parse_jwks(jwks(FIRST, SECOND))
    trust.trust_keys("https://issuer.test", first, 10.0)
    trust.trust_keys("https://issuer.test", parse_jwks(jwks(SECOND, FIRST)), 20.0)
    assert trust.snapshot.own.keys is first
    assert trust.snapshot.own.keys_until == 20.0
