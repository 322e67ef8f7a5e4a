"""RSA keys that are too weak to be believed (R68). The weak keys are made here."""

from __future__ import annotations

from math import isqrt, prod
from random import Random

import pytest

from shared.jose.jwk import JwkError
from shared.jose.rsa_strength import (
    FERMAT_ROUNDS,
    MAX_EXPONENT,
    SMALL_FACTORS,
    check_own_rsa_key,
    check_rsa_key,
)
from tests.support.fixed_key import fixed_key

E = 65537
GOOD = fixed_key("ours").jwk.n


def next_rough(number: int) -> int:
    """Return the first number from this on that has no small factor.

    None of the checks asks whether a factor is a prime, and a prime takes seconds.
    """
    number |= 1
    while has_small_factor(number):
        number += 2
    return number


def has_small_factor(number: int) -> bool:
    return any(number % factor == 0 for factor in range(3, SMALL_FACTORS, 2))


def roca_factor(chance: Random, bits: int = 1024) -> int:
    """Return a factor of the faulty generator (Nemec and others, section 2)."""
    small = [p for p in range(2, 702) if all(p % q for q in range(2, isqrt(p) + 1))]
    primorial = prod(small)
    assert len(small) == 126  # for moduli of 1984 to 3936 bits
    smallest = (3 << (bits - 2)) // primorial
    while True:
        k = smallest + chance.getrandbits(40)
        candidate = k * primorial + pow(E, chance.getrandbits(60), primorial)
        if not has_small_factor(candidate):
            return candidate


def message_of(n: int, e: int = E) -> str:
    with pytest.raises(JwkError) as caught:
        check_rsa_key(n, e)
    return str(caught.value)


@pytest.mark.parametrize("name", ["ours", "theirs"])
@pytest.mark.parametrize("e", [E, E + 2, MAX_EXPONENT])
def test_a_good_key_passes(name: str, e: int) -> None:
    check_rsa_key(fixed_key(name).jwk.n, e)


@pytest.mark.parametrize("e", [-1, 0, 1, 2, 3, 17, E - 2, E - 1, E + 1, 2**32 + 1])
def test_an_exponent_that_is_small_even_or_long_is_refused(e: int) -> None:
    assert message_of(GOOD, e).startswith("e: ")


@pytest.mark.parametrize("e", [3, E + 2, MAX_EXPONENT])
def test_our_own_key_has_the_exponent_65537(e: int) -> None:
    check_own_rsa_key(GOOD, E)
    with pytest.raises(JwkError, match="e: must be 65537"):
        check_own_rsa_key(GOOD, e)


def test_our_own_key_is_examined_as_others_are() -> None:
    with pytest.raises(JwkError, match="n: has a prime factor"):
        check_own_rsa_key(3 * (GOOD // 3 | 1), E)


@pytest.mark.parametrize("bits", [1024, 2047, 4097])
def test_a_modulus_of_another_size_is_refused(bits: int) -> None:
    assert "2048..4096 bits" in message_of((1 << (bits - 1)) + GOOD % (1 << 1000) | 1)


def test_an_even_modulus_is_refused() -> None:
    assert "n: must be odd" in message_of(GOOD + 1)


@pytest.mark.parametrize("factor", [3, 5, 167, 16_381])
def test_a_modulus_with_a_small_factor_is_refused(factor: int) -> None:
    cofactor = next_rough(GOOD // factor)
    assert f"prime factor below {SMALL_FACTORS}" in message_of(factor * cofactor)


def test_16381_is_the_largest_small_factor() -> None:
    check_rsa_key(16_411 * next_rough(GOOD // 16_411), E)


def test_a_square_is_refused() -> None:
    factor = next_rough(isqrt(GOOD))
    assert "too close" in message_of(factor * factor)


@pytest.mark.parametrize("distance", [2, 1 << 100, 1 << 514])
def test_cve_2022_26320_close_primes_are_refused(distance: int) -> None:
    """The distance that a round finds grows with the fourth root of the modulus."""
    factor = next_rough(isqrt(GOOD))
    assert "too close" in message_of(factor * next_rough(factor + distance))


def test_every_round_of_fermats_method_finds_the_primes_it_should() -> None:
    """With `n = (a - b)(a + b)`, the last round tries `a` 299 above the first."""
    middle = isqrt(GOOD) | 1
    for rounds, is_refused in ((FERMAT_ROUNDS, True), (FERMAT_ROUNDS + 1, False)):
        # b^2 = a^2 - n: the first a is middle - rounds + 1 for the largest b that is
        # still found in this round.
        b = isqrt((rounds - 1) * 2 * middle - (rounds - 1) ** 2)
        while True:
            n = (middle - b) * (middle + b)
            needed = middle - isqrt(n - 1)
            if needed == rounds and n % 2 == 1 and not has_small_factor(n):
                break
            b += 2 if (middle - b) % 2 else 1
        if is_refused:
            assert "too close" in message_of(n)
        else:
            check_rsa_key(n, E)


def test_cve_2017_15361_a_key_of_the_faulty_generator_is_refused() -> None:
    chance = Random(15361)
    n = roca_factor(chance) * roca_factor(chance)
    assert n.bit_length() == 2048
    assert "ROCA" in message_of(n)


def test_one_prime_of_the_faulty_generator_is_no_fingerprint() -> None:
    n = roca_factor(Random(1)) * next_rough(3 << 1022 | Random(2).getrandbits(1000))
    check_rsa_key(n, E)


def test_other_moduli_do_not_have_the_fingerprint() -> None:
    chance = Random(3)
    for _ in range(10):
        check_rsa_key(next_rough(chance.getrandbits(2048) | 1 << 2047), E)
