"""The edits a mutated token goes through: each changes a draft in one place.

Those of header, claims, bytes and segments happen before the signature is made: what
they change is validly signed. Those called `carried_...` happen to the finished token.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from random import Random

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.fixed_key import fixed_key
from tests.support.mutation_values import (
    ALIKE,
    ALIKE_TYPS,
    CLAIM_VALUES,
    DATES,
    ENCODINGS,
    FORBIDDEN,
    HEADER_VALUES,
    NOW,
    VALUES,
    WRITINGS,
    encode_otherwise,
    write_otherwise,
)
from tests.support.token_draft import Draft, Members, Part, good_draft, signed_by_us
from tests.support.tokens import good_claims


def _any_value(chance: Random) -> str:
    return chance.choice(VALUES[chance.choice(tuple(VALUES))])


def _replace(part: Part, name: str, value: str) -> None:
    """Give the member another value; add it when it is not there."""
    for at, (given, _) in enumerate(part.members):
        if given == json.dumps(name):
            part.members[at] = (given, value)
            return
    part.members.append((json.dumps(name), value))


def _escaped(name: str) -> str:
    """Return the JSON text of `name` with its first character as an escape."""
    first = "".join(f"\\u{ord(char):04x}" for char in name[:1])
    return f'"{first}{name[1:]}"'


def _insert(chance: Random, part: Part, member: tuple[str, str]) -> None:
    part.members.insert(chance.randint(0, len(part.members)), member)


def _write_twice(chance: Random, part: Part) -> None:
    """Add a member that is there already, as it stands or by another spelling."""
    name, value = chance.choice(part.members)
    other = chance.choice((value, '"none"', "null", _any_value(chance)))
    _insert(chance, part, (chance.choice((name, _escaped(json.loads(name)))), other))


def _rename(chance: Random, part: Part) -> None:
    at = chance.randrange(len(part.members))
    name, value = part.members[at]
    bare = json.loads(name)
    other = chance.choice((bare.upper(), bare.title(), f"{bare} ", f"\ufeff{bare}"))
    part.members[at] = (json.dumps(other), value)


def _rewrite(chance: Random, part: Part) -> None:
    write, how = part.write, chance.choice(WRITINGS)
    part.write = lambda members: write_otherwise(write(members), how)


def _reencode(chance: Random, part: Part) -> None:
    encode, how = part.encode, chance.choice(ENCODINGS)
    part.encode = lambda data: encode_otherwise(encode(data), how)


# --- the header
# ------------------------------------------------------------------------


def header_value(chance: Random, draft: Draft) -> None:
    name = chance.choice(tuple(HEADER_VALUES))
    _replace(draft.header, name, chance.choice(HEADER_VALUES[name]))


def header_any_type(chance: Random, draft: Draft) -> None:
    name = chance.choice(("alg", "typ", "kid", "x5t", "x5t#S256", "foo"))
    _replace(draft.header, name, _any_value(chance))


def header_forbidden(chance: Random, draft: Draft) -> None:
    name = chance.choice((*FORBIDDEN, "jwk"))
    if name == "jwk":
        value = json.dumps(fixed_key(chance.choice(("ours", "theirs"))).jwk.to_wire())
    else:
        value = chance.choice(FORBIDDEN[name])
    if name == "b64" and chance.random() < 0.5:
        draft.header.members.append(('"crit"', '["b64"]'))
    written = _escaped(name) if chance.random() < 0.2 else json.dumps(name)
    _insert(chance, draft.header, (written, value))


def header_key_of_theirs(chance: Random, draft: Draft) -> None:
    """Their key brought along, and their signature by it."""
    _replace(draft.header, "jwk", json.dumps(fixed_key("theirs").jwk.to_wire()))
    draft.sign = fixed_key("theirs").sign


def header_gone(chance: Random, draft: Draft) -> None:
    del draft.header.members[chance.randrange(len(draft.header.members))]


def header_renamed(chance: Random, draft: Draft) -> None:
    _rename(chance, draft.header)


def header_twice(chance: Random, draft: Draft) -> None:
    _write_twice(chance, draft.header)


def header_bytes(chance: Random, draft: Draft) -> None:
    _rewrite(chance, draft.header)


def header_encoding(chance: Random, draft: Draft) -> None:
    _reencode(chance, draft.header)


def header_more(chance: Random, draft: Draft) -> None:
    """Harmless: members that are not understood are ignored (RFC 7515, section 4)."""
    name = chance.choice(("foo", "Crit", "JKU", "iss", "exp", "x-b64", "crit "))
    value = chance.choice(('"x"', "1", "{}"))
    _insert(chance, draft.header, (json.dumps(name), value))


def header_typ_alike(chance: Random, draft: Draft) -> None:
    """Harmless: the same media type in another spelling (RFC 9068, section 4)."""
    _replace(draft.header, "typ", chance.choice(ALIKE_TYPS))


# --- the claims
# ------------------------------------------------------------------------

_CLAIMS = (*good_claims(NOW), "nbf")


def claim_value(chance: Random, draft: Draft) -> None:
    name = chance.choice(tuple(CLAIM_VALUES))
    _replace(draft.claims, name, chance.choice(CLAIM_VALUES[name]))


def claim_date(chance: Random, draft: Draft) -> None:
    name = chance.choice(("exp", "nbf", "iat"))
    _replace(draft.claims, name, chance.choice(DATES))


def claim_any_type(chance: Random, draft: Draft) -> None:
    _replace(draft.claims, chance.choice(_CLAIMS), _any_value(chance))


def claim_gone(chance: Random, draft: Draft) -> None:
    del draft.claims.members[chance.randrange(len(draft.claims.members))]


def claim_twice(chance: Random, draft: Draft) -> None:
    _write_twice(chance, draft.claims)


def claim_renamed(chance: Random, draft: Draft) -> None:
    _rename(chance, draft.claims)


def claim_odd(chance: Random, draft: Draft) -> None:
    """An unused member, of a value that not every parser accepts."""
    _insert(chance, draft.claims, ('"odd"', _any_value(chance)))


def claims_large(chance: Random, draft: Draft) -> None:
    """Around the size from which a token is refused."""
    size = chance.choice((5_000, 5_090, 5_100, 5_110, 5_200, 6_000, 20_000))
    pad = "x" * (size + chance.randrange(100))
    draft.claims.members.append(('"pad"', f'"{pad}"'))


def claims_bytes(chance: Random, draft: Draft) -> None:
    _rewrite(chance, draft.claims)


def claims_byte_flipped(chance: Random, draft: Draft) -> None:
    """One byte of the payload is another, and that is signed."""
    write, place, other = draft.claims.write, chance.random(), chance.randrange(1, 256)

    def flipped(members: Members) -> bytes:
        data = bytearray(write(members))
        if data:
            data[int(place * len(data))] ^= other
        return bytes(data)

    draft.claims.write = flipped


def claims_encoding(chance: Random, draft: Draft) -> None:
    _reencode(chance, draft.claims)


def claims_reordered(chance: Random, draft: Draft) -> None:
    """Harmless."""
    chance.shuffle(draft.claims.members)
    chance.shuffle(draft.header.members)


def claim_more(chance: Random, draft: Draft) -> None:
    """Harmless: a claim that is not understood is ignored (RFC 7519, section 4)."""
    value = chance.choice(("null", "[1,2.5]", '{"a":[true]}', '"日本"', "1e5", "-0.0"))
    name = chance.choice(("act", "Exp", ""))
    _insert(chance, draft.claims, (json.dumps(name), value))


def claim_alike(chance: Random, draft: Draft) -> None:
    """Harmless: the same facts otherwise written."""
    name = chance.choice(tuple(ALIKE))
    _replace(draft.claims, name, chance.choice(ALIKE[name]))


def claims_spaced(chance: Random, draft: Draft) -> None:
    """Harmless: white space where JSON allows it."""
    write, space = draft.claims.write, chance.choice((b" ", b"\n", b"\t", b"\r\n  "))

    def spaced(members: Members) -> bytes:
        members = [(name, f" {value}") for name, value in members]
        return space + write(members) + space

    draft.claims.write = spaced


# --- the signature
# ---------------------------------------------------------------------


def signature_encoding(chance: Random, draft: Draft) -> None:
    encode, how = draft.encode_signature, chance.choice(ENCODINGS)
    draft.encode_signature = lambda data: encode_otherwise(encode(data), how)


def signature_other(chance: Random, draft: Draft) -> None:
    draft.sign = chance.choice(_SIGNERS)


def _by_hmac(data: bytes) -> bytes:
    """RFC 8725, section 2.1: the public key taken for a shared secret."""
    public_key = fixed_key("ours").private_key.public_key()
    pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hmac.digest(pem, data, hashlib.sha256)


def _by_another_hash(data: bytes) -> bytes:
    hash_ = SHA1() if len(data) % 2 else SHA512()
    return fixed_key("ours").private_key.sign(data, padding.PKCS1v15(), hash_)


def _by_pss(data: bytes) -> bytes:
    pss = padding.PSS(padding.MGF1(SHA256()), 32)
    return fixed_key("ours").private_key.sign(data, pss, SHA256())


def _plus_modulus(data: bytes) -> bytes:
    """Another number that is the same to the modulus."""
    number = int.from_bytes(signed_by_us(data), "big") + fixed_key("ours").jwk.n
    return number.to_bytes(257, "big")


_SIGNERS: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: fixed_key("theirs").sign(data),
    _by_hmac,
    _by_another_hash,
    _by_pss,
    _plus_modulus,
    lambda _: b"",
    lambda _: bytes(256),
    lambda data: signed_by_us(data.swapcase()),
    lambda data: signed_by_us(data)[::-1],
    lambda data: signed_by_us(data) + b"\0",
    lambda data: b"\0" + signed_by_us(data),
    lambda data: signed_by_us(data)[:-1],
    lambda data: signed_by_us(data) * 2,
)


# --- the finished token
# ------------------------------------------------------------------


def carried_flipped(chance: Random, draft: Draft) -> None:
    """Up to three bytes change, each a little or wholly, in any segment."""
    changes = [
        (
            chance.random(),
            chance.choice((1, 2, 4, 0x20, 0x80, chance.randrange(1, 256))),
        )
        for _ in range(chance.randint(1, 3))
    ]
    carry = draft.carry

    def flipped(token: bytes) -> bytes:
        data = bytearray(carry(token))
        for place, other in changes if data else ():
            data[int(place * len(data))] ^= other
        return bytes(data)

    draft.carry = flipped


def carried_cut(chance: Random, draft: Draft) -> None:
    share, last, carry = (
        chance.choice((1.0, chance.random())),
        chance.randint(0, 5),
        draft.carry,
    )

    def cut(token: bytes) -> bytes:
        data = carry(token)
        return data[: max(0, int(share * len(data)) - last)]

    draft.carry = cut


def carried_segments(chance: Random, draft: Draft) -> None:
    """Segments swapped, dropped, doubled, borrowed from another good token."""
    other = good_draft()
    other.claims.members.reverse()
    pool = [*other.finished().split(b"."), b""]
    length = chance.choice((1, 2, 3, 3, 3, 3, 4, 5))
    order = [chance.randrange(7) for _ in range(length)]
    carry = draft.carry

    def shuffled(token: bytes) -> bytes:
        given = [*carry(token).split(b"."), b"", b"", b""][:3]
        return b".".join([[*given, *pool][at] for at in order])

    draft.carry = shuffled


_PIECES = b"= . \n \r\n \t \0 A + / %2e \xc2\xa0".split(b" ")


def carried_inserted(chance: Random, draft: Draft) -> None:
    piece = chance.choice((*_PIECES, b" "))
    place, carry = chance.choice((0.0, 1.0, chance.random())), draft.carry

    def inserted(token: bytes) -> bytes:
        data = carry(token)
        at = int(place * len(data))
        return data[:at] + piece + data[at:]

    draft.carry = inserted


def carried_dressed(chance: Random, draft: Draft) -> None:
    dresses = ((b"Bearer ", b""), (b'"', b'"'), (b"", b"."), (b".", b""), (b"", b"#"))
    (before, after), carry = chance.choice(dresses), draft.carry
    draft.carry = lambda token: before + carry(token) + after


def carried_as_json(chance: Random, draft: Draft) -> None:
    """The same signature in the JSON serialization (RFC 7515, section 7.2)."""
    carry = draft.carry

    def as_json(token: bytes) -> bytes:
        parts = carry(token).decode("latin-1").split(".")
        names = ("protected", "payload", "signature")
        return json.dumps(dict(zip(names, parts, strict=False))).encode()

    draft.carry = as_json
