"""A token in the making, each step of which a test can replace."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from shared.jose import base64url
from tests.support.fixed_key import fixed_key
from tests.support.mutation_values import NOW
from tests.support.tokens import good_claims

#: An object's members as pairs of JSON texts: a name can stand twice.
Members = list[tuple[str, str]]


def _written(members: Members) -> bytes:
    text = ",".join(f"{name}:{value}" for name, value in members)
    return f"{{{text}}}".encode("utf-8", "surrogatepass")


def _encoded(data: bytes) -> bytes:
    return base64url.encode(data).encode()


@lru_cache(maxsize=4_096)
def signed_by_us(signing_input: bytes) -> bytes:
    """Return our key's signature."""
    return fixed_key("ours").sign(signing_input)


def _unchanged(token: bytes) -> bytes:
    return token


@dataclass
class Part:
    """Header or claims in the making: members, then bytes, then a segment."""

    members: Members
    write: Callable[[Members], bytes] = _written
    encode: Callable[[bytes], bytes] = _encoded

    def segment(self) -> bytes:
        """Return the segment."""
        return self.encode(self.write(self.members))


@dataclass
class Draft:
    """A token in the making.

    Attributes:
        header, claims: the signed parts.
        sign: gives the signature of a signing input.
        encode_signature: turns it into a segment.
        carry: changes the finished token on its way.
    """

    header: Part
    claims: Part
    sign: Callable[[bytes], bytes] = signed_by_us
    encode_signature: Callable[[bytes], bytes] = _encoded
    carry: Callable[[bytes], bytes] = _unchanged

    def finished(self) -> bytes:
        """Return the token."""
        signing_input = self.header.segment() + b"." + self.claims.segment()
        signature = self.encode_signature(self.sign(signing_input))
        return self.carry(signing_input + b"." + signature)


def good_draft() -> Draft:
    """Return a token with nothing wrong."""
    header = {"alg": "RS256", "typ": "at+jwt", "kid": fixed_key("ours").kid}
    parts = [
        Part([(json.dumps(name), json.dumps(value)) for name, value in members.items()])
        for members in (header, good_claims(NOW))
    ]
    return Draft(*parts)
