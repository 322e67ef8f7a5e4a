"""Skeletons: two names look alike when theirs are equal (UTS 39, section 4). Pure.

The data and its version: `confusables.txt`, and decision record 0019.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from issuer.accounts.visible_text import is_ignorable

_DATA: Final = "confusables.txt"
#: Some prototypes are composed, and their parts have prototypes too. With one round, as
#: in UTS 39, thirteen characters would differ from their decomposed spelling.
_ROUNDS: Final = 4


def make_skeleton(name: str) -> str:
    """Return the skeleton of a user name in its normal form.

    It is not a name and is never shown. Names that look alike have the same skeleton.
    """
    table = _read_prototypes()
    text = unicodedata.normalize("NFD", name)
    for _ in range(_ROUNDS):
        before = text
        prototypes = "".join(table.get(c, c) for c in text if not is_ignorable(c))
        text = unicodedata.normalize("NFD", prototypes)
        if text == before:
            break
    # In most fonts two spaces look like one.
    return " ".join(text.split())


@cache
def _read_prototypes() -> MappingProxyType[str, str]:
    """Return the prototypes of 6,565 characters, read once in about 5 ms."""
    text = files("issuer.accounts").joinpath(_DATA).read_text("utf-8")
    rows = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return MappingProxyType(
        {
            chr(int(source, 16)): "".join(chr(int(code, 16)) for code in target)
            for source, *target in rows
        }
    )
