"""RSA keys from a seed: the same in every run, so that a failure comes again."""

from __future__ import annotations

import random
from functools import cache
from math import gcd

from cryptography.hazmat.primitives.asymmetric import rsa

from shared.jose.jwk import RsaPublicJwk
from tests.support.tokens import TestKey


class FixedKey(TestKey):
    """The same RSA key in every run, from a seed."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        p, q = _prime(chance), _prime(chance)
        d = pow(65537, -1, (p - 1) * (q - 1) // gcd(p - 1, q - 1))
        self.private_key = rsa.RSAPrivateNumbers(
            p,
            q,
            d,
            rsa.rsa_crt_dmp1(d, p),
            rsa.rsa_crt_dmq1(d, q),
            rsa.rsa_crt_iqmp(p, q),
            rsa.RSAPublicNumbers(65537, p * q),
        ).private_key()
        self.jwk = RsaPublicJwk.with_thumbprint(p * q)


def _prime(chance: random.Random) -> int:
    """Return a 1,024-bit prime with its two top bits set; Fermat will do for a
    test.
    """
    while True:
        candidate = chance.getrandbits(1024) | 3 << 1022 | 1
        if all(candidate % small for small in range(3, 2_000, 2)) and (
            pow(2, candidate - 1, candidate) == 1 and candidate % 65537 != 1
        ):
            return candidate


@cache
def fixed_key(name: str) -> FixedKey:
    """Return `ours` or `theirs`."""
    # Two seeds from which the primes are found soon.
    return FixedKey({"ours": 7, "theirs": 39}[name])
