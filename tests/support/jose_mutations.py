"""Bad tokens of every algorithm in bulk, and good ones that look unusual among them.

A mutant is known by its algorithm and number: every choice comes from that seed. Only
PSS and ML-DSA sign the same bytes differently each time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from random import Random
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

from shared.jose import base64url
from shared.jose.algorithms import ALGORITHMS, CURVES
from tests.support.fixed_key import fixed_key
from tests.support.jose_keys import JoseKey, jose_key, text
from tests.support.mutation_values import (
    ENCODINGS,
    FORBIDDEN,
    HEADER_VALUES,
    VALUES,
    WRITINGS,
    encode_otherwise,
    write_otherwise,
)

#: Good tokens of an algorithm, of which mutants that need no new signature are made.
_GOOD_TOKENS = 16
_ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


class JoseMutant(NamedTuple):
    """One token.

    Attributes:
        kind: the name of the edit.
        token: the result.
    """

    kind: str
    token: bytes


def jose_mutant(alg: str, number: int) -> JoseMutant:
    """Return the mutant of that number."""
    chance = Random(f"{alg} {number}")
    edit = chance.choices(list(_EDITS), list(_EDITS.values()))[0]
    return JoseMutant(edit.__name__, edit(chance, jose_key(alg)))


def header_of(alg: str) -> bytes:
    """Return the header of a good token."""
    return f'{{"alg":"{alg}","kid":"key-{alg}","typ":"at+jwt"}}'.encode()


@cache
def _good_token(alg: str, number: int) -> bytes:
    return jose_key(alg).compact(header_of(alg), b'{"sub":"%d"}' % number)


def _good(chance: Random, key: JoseKey) -> list[bytes]:
    return _good_token(key.alg, chance.randrange(_GOOD_TOKENS)).split(b".")


def header_value(chance: Random, key: JoseKey) -> bytes:
    """Replace or add a member of the header, and sign."""
    values = {**HEADER_VALUES, **FORBIDDEN}
    name = chance.choice(list(values))
    value = chance.choice(values[name])
    if name == "alg" and chance.random() < 0.5:
        value = json.dumps(chance.choice([*ALGORITHMS, "EdDSA", "ES256K"]))
    members = json.loads(header_of(key.alg))
    members.pop(name, None)
    parts = [f"{json.dumps(n)}:{json.dumps(v)}" for n, v in members.items()]
    parts.insert(chance.randrange(len(parts) + 1), f'"{name}":{value}')
    header = "{" + ",".join(parts) + "}"
    return key.compact(header.encode("utf-8", "surrogatepass"), b"{}")


def header_more(chance: Random, key: JoseKey) -> bytes:
    """Add a member that is ignored, or one twice, and sign."""
    value = chance.choice(VALUES[chance.choice(list(VALUES))])
    name = chance.choice(["x-note", "x-note", "iss", "exp", "alg", "kid"])
    header = header_of(key.alg)[:-1] + f',"{name}":{value}}}'.encode(
        "utf-8", "surrogatepass"
    )
    return key.compact(header, b"{}")


def header_spaced(chance: Random, key: JoseKey) -> bytes:
    """Write the same header with white space, or in another order."""
    members = list(json.loads(header_of(key.alg)).items())
    chance.shuffle(members)
    indent = chance.choice([None, 0, 1, 4])
    return key.compact(json.dumps(dict(members), indent=indent).encode(), b"{}")


def header_written(chance: Random, key: JoseKey) -> bytes:
    """Write the header in another coding, and sign."""
    header = write_otherwise(header_of(key.alg), chance.choice(WRITINGS))
    return key.compact(header, b"{}")


def payload_any(chance: Random, key: JoseKey) -> bytes:
    """Sign any payload: it is opaque."""
    return key.compact(header_of(key.alg), chance.randbytes(chance.randrange(60)))


def segment_encoded(chance: Random, key: JoseKey) -> bytes:
    """Spell a segment otherwise; half of the time the spelling is signed."""
    header, payload, signature = _good(chance, key)
    how = chance.choice(ENCODINGS)
    place = chance.randrange(3)
    if place == 2:
        signature = encode_otherwise(signature, how)
    elif place == 1:
        payload = encode_otherwise(payload, how)
    else:
        header = encode_otherwise(header, how)
    if place < 2 and chance.random() < 0.5:
        signature = text(key.sign(header + b"." + payload))
    return b".".join((header, payload, signature))


def bytes_noise(chance: Random, key: JoseKey) -> bytes:
    """Change, remove or insert bytes anywhere."""
    token = bytearray(b".".join(_good(chance, key)))
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(token))
        match chance.randrange(4):
            case 0:
                token[at] ^= 1 << chance.randrange(8)
            case 1:
                del token[at]
            case 2:
                token.insert(at, chance.choice(b"=.-_+/ \n\0AZaz09\xff"))
            case _:
                token[at] = chance.choice(token)
    return bytes(token)


def segments_moved(chance: Random, key: JoseKey) -> bytes:
    """Take segments of two tokens, too few, too many, or in another order."""
    first, second = _good(chance, key), _good(chance, key)
    segments = [chance.choice(pair) for pair in zip(first, second, strict=True)]
    match chance.randrange(5):
        case 0:
            chance.shuffle(segments)
        case 1:
            segments.pop(chance.randrange(3))
        case 2:
            segments.insert(chance.randrange(4), chance.choice(second))
        case 3:
            segments[chance.randrange(3)] = b""
        case _:
            pass
    return b".".join(segments)


def signature_edited(chance: Random, key: JoseKey) -> bytes:
    """Change the bytes of the signature in a way that its algorithm invites."""
    header, payload, encoded = _good(chance, key)
    signature = base64url.decode(encoded)
    family = ALGORITHMS[key.alg].kty
    edits = [_flip, _cut, _extend, _blank, *_BY_FAMILY.get(family, ())]
    changed = chance.choice(edits)(chance, key, signature)
    return b".".join((header, payload, text(changed)))


def signed_otherwise(chance: Random, key: JoseKey) -> bytes:
    """Sign with another key, or with another algorithm of the same key."""
    header, payload = header_of(key.alg), b'{"sub":"mallory"}'
    others = [jose_key(key.alg, "theirs")]
    others += [jose_key(alg) for alg in ALGORITHMS if alg != key.alg]
    if ALGORITHMS[key.alg].kty == "RSA" and chance.random() < 0.5:
        return _with_other_rsa_padding(chance, header, payload)
    return chance.choice(others).compact(header, payload)


def _with_other_rsa_padding(chance: Random, header: bytes, payload: bytes) -> bytes:
    """RSASSA-PSS with another salt, or another hash in MGF1."""
    signing_input = text(header) + b"." + text(payload)
    inner, outer = chance.choice(_DIGESTS), chance.choice(_DIGESTS)
    salt = chance.choice((0, 20, 32, 48, 64, 65))
    scheme = padding.PSS(padding.MGF1(inner), salt)
    signature = fixed_key("ours").private_key.sign(signing_input, scheme, outer)
    return signing_input + b"." + text(signature)


_DIGESTS = (SHA256(), SHA384(), SHA512())
_SignatureEdit = Callable[[Random, JoseKey, bytes], bytes]


def _flip(chance: Random, _key: JoseKey, signature: bytes) -> bytes:
    changed = bytearray(signature)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(chance: Random, _key: JoseKey, signature: bytes) -> bytes:
    count = chance.choice((1, 1, 2, len(signature) // 2, len(signature)))
    return signature[count:] if chance.random() < 0.5 else signature[:-count]


def _extend(chance: Random, _key: JoseKey, signature: bytes) -> bytes:
    more = chance.choice((b"\0", b"\0\0", b"\x01", signature))
    return signature + more if chance.random() < 0.5 else more + signature


def _blank(chance: Random, _key: JoseKey, signature: bytes) -> bytes:
    return bytes([chance.choice((0, 1, 0x7F, 0xFF))]) * len(signature)


def _rsa_plus_modulus(_chance: Random, key: JoseKey, signature: bytes) -> bytes:
    """The same number modulo n, which a lax reader takes."""
    total = int.from_bytes(signature, "big") + fixed_key("ours").jwk.n
    return total.to_bytes((total.bit_length() + 7) // 8, "big")


def _ecdsa_numbers(chance: Random, key: JoseKey, signature: bytes) -> bytes:
    """Other numbers that satisfy the equation, or the edges of their range."""
    curve = CURVES[ALGORITHMS[key.alg].curve]
    order, length = curve.group_order, len(signature) // 2
    r = int.from_bytes(signature[:length], "big")
    s = int.from_bytes(signature[length:], "big")
    edges = (0, 1, order - 1, order, order + 1, (1 << 8 * length) - 1)
    match chance.randrange(6):
        case 0:
            s = order - s  # the other signature that is good for everyone
        case 1:
            r, s = s, r
        case 2:
            r = chance.choice(edges)
        case 3:
            s = chance.choice(edges)
        case 4:
            r, s = chance.choice(edges), chance.choice(edges)
        case _:
            return encode_dss_signature(r, s)
    if chance.random() < 0.2:
        length += chance.choice((-1, 1))
    whole = 1 << 8 * length
    return (r % whole).to_bytes(length, "big") + (s % whole).to_bytes(length, "big")


def _ed25519_scalar(chance: Random, _key: JoseKey, signature: bytes) -> bytes:
    """S plus the order: RFC 8032, section 5.1.7, refuses it."""
    s = int.from_bytes(signature[32:], "little") + _ED25519_ORDER
    s *= chance.choice((1, 2))
    return signature[:32] + (s % (1 << 256)).to_bytes(32, "little")


_BY_FAMILY: Mapping[str, tuple[_SignatureEdit, ...]] = {
    "RSA": (_rsa_plus_modulus,),
    "EC": (_ecdsa_numbers, _ecdsa_numbers, _ecdsa_numbers),
    "OKP": (_ed25519_scalar,),
}
#: Every edit, and how often it is drawn.
_EDITS: Mapping[Callable[[Random, JoseKey], bytes], int] = {
    header_value: 5,
    header_more: 3,
    header_spaced: 1,
    header_written: 2,
    payload_any: 3,
    segment_encoded: 7,
    bytes_noise: 8,
    segments_moved: 4,
    signature_edited: 16,
    signed_otherwise: 1,
}
