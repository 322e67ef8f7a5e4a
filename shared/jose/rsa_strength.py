"""Which RSA keys are too weak to be believed (requirement R68).

Anyone can sign with a key whose modulus can be factored. The checks find the moduli of
known faulty generators. They cannot show that a key is strong. A CA makes the same ones
(boulder's `goodkey`; CA/Browser Forum Baseline Requirements, section 6.1.1.3).
"""

from __future__ import annotations

from functools import cache
from math import gcd, isqrt, prod
from typing import Final

from shared.claims import MAX_RSA_BITS, MIN_RSA_BITS, RSA_EXPONENT
from shared.jose.jwk import JwkError

#: Foreign keys may have another exponent than 65537. NIST SP 800-56B, section 6.2,
#: asks for more than 2^16. A verification costs a squaring for each bit of it, so 32
#: bits cost twice the time of 65537. A longer one only makes each check slower.
MIN_EXPONENT: Final = RSA_EXPONENT
MAX_EXPONENT: Final = (1 << 32) - 1
#: A modulus with a prime factor below this is refused.
SMALL_FACTORS: Final = 1 << 14
#: The Baseline Requirements ask for 100 rounds of Fermat's method.
FERMAT_ROUNDS: Final = 300
#: The largest prime of the smallest ROCA key: every variant has all primes up to it.
_LARGEST_ROCA_PRIME: Final = 167
#: The squares modulo 16, as bits. All other numbers need no square root.
_SQUARES_MODULO_16: Final = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 9


def check_rsa_key(n: int, e: int) -> None:
    """Check a foreign issuer's RSA key.

    Args:
        n: the modulus.
        e: the public exponent: odd, 65537 to 2^32 - 1.

    Raises:
        JwkError: naming the member, `n` or `e`, and the rule.
    """
    if not MIN_EXPONENT <= e <= MAX_EXPONENT or e % 2 == 0:
        raise JwkError(f"e: must be odd, {MIN_EXPONENT}..{MAX_EXPONENT}")
    check_modulus(n)


def check_own_rsa_key(n: int, e: int) -> None:
    """Check a key of our own issuer, whose exponent is 65537 (requirement R20).

    Raises:
        JwkError: naming the member, `n` or `e`, and the rule.
    """
    if e != RSA_EXPONENT:
        raise JwkError(f"e: must be {RSA_EXPONENT}")
    check_modulus(n)


def check_modulus(n: int) -> None:
    """Check the size of a modulus, and that no known fault makes it easy to factor.

    Raises:
        JwkError: naming `n` and the rule.
    """
    if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS or n % 2 == 0:
        raise JwkError(f"n: must be odd, of {MIN_RSA_BITS}..{MAX_RSA_BITS} bits")
    if gcd(n, _small_primes_product()) != 1:
        raise JwkError(f"n: has a prime factor below {SMALL_FACTORS}")
    _refuse_roca(n)
    _refuse_close_primes(n)


def _refuse_roca(n: int) -> None:
    """Refuse keys of a faulty generator in smart cards and TPMs (CVE-2017-15361).

    Its primes are `k * M + (65537^a mod M)`, where M is the product of the first 39 or
    more primes. So the modulus, too, is a power of 65537 modulo each of these primes.
    Another modulus is so by chance once in 2 * 10^8 (Nemec and others, "The Return of
    Coppersmith's Attack", ACM CCS 2017, sections 2 and 3).
    """
    if all(n % prime in powers for prime, powers in _roca_powers()):
        raise JwkError("n: has the fingerprint of a ROCA key (CVE-2017-15361)")


def _refuse_close_primes(n: int) -> None:
    """Refuse a modulus that Fermat's method factors at once (CVE-2022-26320).

    With `n = (a - b) * (a + b)`, `a` is near the square root of n when the primes are
    close to each other. Then one of the first candidates makes `a * a - n` a square.
    """
    a = isqrt(n - 1) + 1
    square = a * a - n
    for _ in range(FERMAT_ROUNDS):
        if _SQUARES_MODULO_16 >> (square & 15) & 1 and isqrt(square) ** 2 == square:
            raise JwkError("n: its prime factors are too close to each other")
        square += 2 * a + 1
        a += 1


@cache
def _small_primes_product() -> int:
    return prod(_primes_below(SMALL_FACTORS))


@cache
def _roca_powers() -> tuple[tuple[int, frozenset[int]], ...]:
    """Return the powers of 65537 modulo each odd prime, where some number is none.

    Primes of which every number but zero is a power distinguish nothing.
    """
    powers = []
    for prime in _primes_below(_LARGEST_ROCA_PRIME + 1):
        residues = frozenset(pow(RSA_EXPONENT, k, prime) for k in range(prime - 1))
        if len(residues) < prime - 1:
            powers.append((prime, residues))
    return tuple(powers)


def _primes_below(bound: int) -> list[int]:
    """Return the odd primes below the bound (sieve of Eratosthenes)."""
    is_prime = bytearray([1]) * bound
    for number in range(3, isqrt(bound) + 1, 2):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes(
                len(range(number * number, bound, number))
            )
    return [number for number in range(3, bound, 2) if is_prime[number]]
