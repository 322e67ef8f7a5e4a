"""Public vectors of every algorithm against `shared.jose`.

The corpus has few tokens that are not RS256, and says what a verifier of RS256 alone
answers. Here their keys are bound to their algorithms. Wycheproof's files (C2SP) are
read from the folder `wycheproof` beside the corpus, if it is there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from shared.jose import base64url
from shared.jose.algorithms import ALGORITHMS, canonical_name
from shared.jose.jwk import JwkError
from shared.jose.jws import (
    JwsError,
    JwsFault,
    check_header,
    check_signature,
    parse_compact,
    read_kid,
)
from shared.jose.verification_keys import (
    SECRET_MEMBERS,
    JwksError,
    VerificationKey,
    read_key,
    read_keys,
)
from tests.conformance.vectors import DEFAULT

Json = dict[str, Any]

ALL = frozenset(ALGORITHMS) | {"EdDSA"}
#: Examples of the corpus with a good signature, by id: the algorithm of their key.
GOOD_EXAMPLES = {
    "cookbook/4_2.rsa-pss_signature/compact": "PS384",
    "cookbook/4_3.ecdsa_signature/compact": "ES512",
    "cookbook/jws/compact": "EdDSA",
    "golang-jwt/rsa_test.go/Basic RS384": "RS384",
    "golang-jwt/rsa_test.go/Basic RS512": "RS512",
    "golang-jwt/none_test.go/Signed": "RS384",
}
#: Of another family than the key that is published with it.
BAD_EXAMPLES = {"node-jsonwebtoken/verify.tests.js/3": "ES256"}


def public_key(jwk: Json, alg: str) -> VerificationKey:
    """Return a published key, without private members, for one algorithm."""
    kept = {n: v for n, v in jwk.items() if n not in SECRET_MEMBERS}
    return read_key({**kept, "kid": "published", "alg": alg}, ALL)


def check(token: bytes, key: VerificationKey) -> None:
    """Check the signature layer of a token.

    Raises:
        JwsError: the token is refused.
    """
    jws = parse_compact(token, 65_536)
    check_header(jws.unverified_header, ALL)
    check_signature(jws, key)
    _ = jws.unverified_payload


def fault_of(token: bytes, key: VerificationKey) -> str:
    try:
        check(token, key)
    except JwsError as error:
        return error.fault
    return ""


def other_algorithms(corpus: list[Json]) -> Iterator[tuple[Json, str]]:
    """Yield each case of an algorithm of ours other than RS256, and the algorithm."""
    for case in corpus:
        try:
            header = parse_compact(case.get("token", "").encode()).unverified_header
        except JwsError:
            continue
        alg = header.get("alg")
        if isinstance(alg, str) and alg in ALL - {"RS256"}:
            yield case, alg


def test_every_case_of_another_algorithm_is_known(corpus: list[Json]) -> None:
    found = {case["id"]: alg for case, alg in other_algorithms(corpus)}
    assert found == GOOD_EXAMPLES | BAD_EXAMPLES


def test_published_examples_are_accepted(corpus: list[Json]) -> None:
    for case, alg in other_algorithms(corpus):
        if case["id"] in GOOD_EXAMPLES:
            key = public_key(case["keys"]["keys"][0], alg)
            assert fault_of(case["token"].encode(), key) == "", case["id"]


def test_published_examples_are_refused_by_a_key_of_another_algorithm(
    corpus: list[Json],
) -> None:
    for case, alg in other_algorithms(corpus):
        for other in ALGORITHMS:
            if other == canonical_name(alg):
                continue
            try:
                key = public_key(case["keys"]["keys"][0], other)
            except JwkError:
                continue  # the key is of another family
            fault = fault_of(case["token"].encode(), key)
            assert fault == JwsFault.ALG_NOT_ALLOWED, (case["id"], other)


def test_published_examples_with_one_changed_bit_are_refused(
    corpus: list[Json],
) -> None:
    for case, alg in other_algorithms(corpus):
        if case["id"] not in GOOD_EXAMPLES:
            continue
        key = public_key(case["keys"]["keys"][0], alg)
        front, _, encoded = case["token"].rpartition(".")
        signature = base64url.decode(encoded.encode())
        for at in range(len(signature)):
            changed = bytearray(signature)
            changed[at] ^= 1 << at % 8
            token = f"{front}.{base64url.encode(bytes(changed))}".encode()
            assert fault_of(token, key) == JwsFault.SIGNATURE_INVALID, (case["id"], at)


# Wycheproof.

#: File and algorithm; the last is whether its signatures are the algorithm's at all.
FILES: dict[str, tuple[str, bool]] = {
    "ecdsa_secp256r1_sha256_p1363": ("ES256", True),
    "ecdsa_secp384r1_sha384_p1363": ("ES384", True),
    "ecdsa_secp521r1_sha512_p1363": ("ES512", True),
    "ed25519": ("Ed25519", True),
    "mldsa_44_verify": ("ML-DSA-44", True),
    "mldsa_65_verify": ("ML-DSA-65", True),
    "mldsa_87_verify": ("ML-DSA-87", True),
    "rsa_pss_2048_sha256_mgf1_32": ("PS256", True),
    "rsa_pss_3072_sha256_mgf1_32": ("PS256", True),
    "rsa_pss_4096_sha256_mgf1_32": ("PS256", True),
    "rsa_pss_2048_sha384_mgf1_48": ("PS384", True),
    "rsa_pss_4096_sha384_mgf1_48": ("PS384", True),
    "rsa_pss_4096_sha512_mgf1_64": ("PS512", True),
    # another length of the salt
    "rsa_pss_2048_sha256_mgf1_0": ("PS256", False),
    "rsa_pss_4096_sha512_mgf1_32": ("PS512", False),
    **{
        f"rsa_signature_{bits}_sha{size}": (f"RS{size}", True)
        for bits in (2048, 3072, 4096)
        for size in (256, 384, 512)
    },
}


@cache
def _read(path: Path) -> Json:
    document: Json = json.loads(path.read_text("utf-8"))
    return document


@pytest.fixture(scope="session")
def wycheproof(request: pytest.FixtureRequest) -> Path:
    """The folder of Wycheproof's files."""
    named: Path | None = request.config.getoption("--vectors")
    folder = (named or DEFAULT) / "wycheproof"
    if not folder.is_dir():
        pytest.skip(f"no Wycheproof vectors in {folder}")
    return folder


def jwk_of(group: Json, alg: str) -> Json:
    """Return the key of a group as a JWK, in the form of its file."""
    if alg.startswith("ML-DSA"):
        data = bytes.fromhex(group["publicKey"])
        return {"kty": "AKP", "pub": base64url.encode(data)}
    numbers = group.get("publicKey", {}) or group.get("keyJwk", {}).get("publicKey", {})
    if "modulus" in numbers:
        texts = {"n": numbers["modulus"], "e": numbers["publicExponent"]}
        values = {name: int(text, 16) for name, text in texts.items()}
        return {"kty": "RSA"} | {
            name: base64url.encode(n.to_bytes((n.bit_length() + 7) // 8, "big"))
            for name, n in values.items()
        }
    if "publicKeyJwk" in group:
        jwk: Json = group["publicKeyJwk"]
        return jwk
    point = bytes.fromhex(numbers["uncompressed"])[1:]
    halves = point[: len(point) // 2], point[len(point) // 2 :]
    texts = dict(zip("xy", map(base64url.encode, halves), strict=True))
    return {"kty": "EC", "crv": ALGORITHMS[alg].curve, **texts}


def verdict_of(test: Json, key: VerificationKey) -> bool:
    try:
        key.algorithm.verify(
            key.public_key, bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"])
        )
    except InvalidSignature:
        return False
    return True


def must_pass(test: Json, fits: bool) -> bool:
    """Return the verdict that is right for JOSE, which has no context.

    Keys with the exponent 3 are refused: "SmallPublicKey". What is "acceptable" is an
    old or lax form, and refused.
    """
    if test.get("ctx") or "SmallPublicKey" in test["flags"]:
        return False
    # "s_len changed to 32", for another length: good for the algorithm of JOSE.
    if not fits:
        return bool(re.fullmatch(r"s_len changed to (32|64)", test["comment"]))
    return bool(test["result"] == "valid")


@pytest.mark.parametrize("file", FILES)
def test_wycheproof(wycheproof: Path, file: str) -> None:
    alg, fits = FILES[file]
    wrong, counts = [], Counter[str]()
    for group in _read(wycheproof / f"{file}_test.json")["testGroups"]:
        try:
            key = public_key(jwk_of(group, alg), alg)
        except JwkError as error:
            counts[f"key refused, {error}"] += len(group["tests"])
            wrong += [t["tcId"] for t in group["tests"] if must_pass(t, fits)]
            continue
        for test in group["tests"]:
            counts[test["result"]] += 1
            if verdict_of(test, key) is not must_pass(test, fits):
                wrong.append(test["tcId"])
    print(file, dict(counts))
    assert wrong == []


#: Good tokens whose key says another algorithm than their header: PS256 for PS384, and
#: "ES521", which does not exist.
CONTRADICTORY = (346, 347, 350, 351)


def test_wycheproof_tokens(wycheproof: Path) -> None:
    """Compact JWS, with a key in JWK form for each group."""
    wrong, counts = [], Counter[str]()
    for group in _read(wycheproof / "json_web_signature_test.json")["testGroups"]:
        jwk = group.get("public") or group["private"]
        for test in group["tests"]:
            token, number = str(test["jws"]).encode(), test["tcId"]
            expected = test["result"] == "valid" and jwk["kty"] != "oct"
            alg = jwk.get("alg", "RS256" if jwk["kty"] == "RSA" else "ES256")
            if number in CONTRADICTORY:
                counts["contradictory"] += passes_with(jwk, alg, token)
                alg = parse_compact(token).unverified_header["alg"]
            counts[f"{alg} {test['result']}"] += 1
            if passes_with(jwk, alg, token) is not expected:
                wrong.append(number)
    print(dict(counts))
    assert wrong == []
    assert counts["contradictory"] == 0


def test_wycheproof_keys(wycheproof: Path) -> None:
    """Sets with weak, changed and contradictory keys, each with a token."""
    wrong, counts = [], Counter[str]()
    for group in _read(wycheproof / "json_web_key_test.json")["testGroups"]:
        public = group.get("public")
        # Others have symmetric keys alone.
        if public is None:
            continue
        for test in group["tests"]:
            counts[test["result"]] += 1
            jwks = public if "keys" in public else {"keys": [public]}
            is_right = passes_with_set(jwks, str(test["jws"]).encode())
            if is_right is not (test["result"] == "valid"):
                wrong.append(test["tcId"])
    print(dict(counts))
    assert wrong == []
    assert counts["valid"]
    assert counts["invalid"]


def passes_with_set(jwks: Json, token: bytes) -> bool:
    try:
        keys = read_keys(json.dumps(jwks).encode(), ALL).keys
        kid = read_kid(parse_compact(token).unverified_header)
        (key,) = [key for key in keys if key.kid == kid]
        check(token, key)
    except (JwksError, JwsError):
        return False
    return True


def passes_with(jwk: Json, alg: str, token: bytes) -> bool:
    try:
        check(token, public_key(jwk, alg))
    except (JwkError, JwsError):
        return False
    return True
