"""Bad tokens in bulk: good ones edited in one to three places, most of them re-signed.

A mutant is known by its number alone: key, time and every choice come from fixed seeds,
so a number that failed once fails again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from tests.support import mutation_edits as edits
from tests.support.token_draft import Draft, good_draft


class Mutant(NamedTuple):
    """One token.

    Attributes:
        number: makes it again.
        kinds: the names of the edits it went through.
        token: the result.
        must_pass: every edit was one that a verifier must put up with.
    """

    number: int
    kinds: tuple[str, ...]
    token: bytes
    must_pass: bool


Edit = Callable[[Random, Draft], None]

_HARMLESS: frozenset[Edit] = frozenset(
    {
        edits.header_more,
        edits.header_typ_alike,
        edits.claims_reordered,
        edits.claim_more,
        edits.claim_alike,
        edits.claims_spaced,
    }
)
#: Every edit and how often it is drawn; those that leave the signature good come first.
_TABLE: dict[Edit, int] = {
    edits.header_value: 8,
    edits.header_any_type: 5,
    edits.header_forbidden: 8,
    edits.header_gone: 2,
    edits.header_renamed: 2,
    edits.header_twice: 4,
    edits.header_bytes: 4,
    edits.header_encoding: 4,
    edits.header_more: 2,
    edits.header_typ_alike: 2,
    edits.claim_value: 10,
    edits.claim_date: 10,
    edits.claim_any_type: 14,
    edits.claim_gone: 3,
    edits.claim_twice: 5,
    edits.claim_renamed: 2,
    edits.claim_odd: 4,
    edits.claims_large: 2,
    edits.claims_bytes: 6,
    edits.claims_byte_flipped: 5,
    edits.claims_encoding: 4,
    edits.claims_reordered: 1,
    edits.claim_more: 2,
    edits.claim_alike: 3,
    edits.claims_spaced: 2,
    edits.signature_encoding: 4,
    edits.header_key_of_theirs: 1,
    edits.signature_other: 4,
    edits.carried_flipped: 10,
    edits.carried_cut: 3,
    edits.carried_segments: 3,
    edits.carried_inserted: 4,
    edits.carried_dressed: 1,
    edits.carried_as_json: 1,
}
_EDITS, _WEIGHTS = tuple(_TABLE), tuple(_TABLE.values())
#: How many edits a token goes through.
_TIMES = (1, 1, 1, 1, 1, 1, 1, 2, 2, 3)


def mutants(count: int) -> Iterator[Mutant]:
    """Yield the mutants 0 to `count` - 1."""
    return map(mutant, range(count))


def mutant(number: int) -> Mutant:
    """Return the mutant of that number."""
    chance = Random(number)
    draft = good_draft()
    chosen = chance.choices(_EDITS, _WEIGHTS, k=chance.choice(_TIMES))
    for edit in chosen:
        edit(chance, draft)
    # Two harmless edits of one kind may write one member twice.
    is_harmless = _HARMLESS.issuperset(chosen) and len(set(chosen)) == len(chosen)
    names = tuple(edit.__name__ for edit in chosen)
    return Mutant(number, names, draft.finished(), is_harmless)
