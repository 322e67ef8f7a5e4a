"""Whether two names look alike: their skeletons are the same (UTS 39, section 4). Pure.

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
#: Some prototypes are composed, and their parts have prototypes again: with one round, as
#: UTS 39 has it, thirteen characters look like no spelling of themselves in two parts.
_ROUNDS: Final = 4


def make_skeleton(name: str) -> str:
    """Return the skeleton of a user name in its normal form.

    It is no name, and is shown to no one. Names that look alike have the same one.
    """
    table = _read_prototypes()
    text = unicodedata.normalize("NFD", name)
    for _ in range(_ROUNDS):
        before = text
        prototypes = "".join(table.get(c, c) for c in text if not is_ignorable(c))
        text = unicodedata.normalize("NFD", prototypes)
        if text == before:
            break
    # In most fonts two blanks look like one.
    return " ".join(text.split())


@cache
def _read_prototypes() -> MappingProxyType[str, str]:
    """Return what each character looks like: 6,565 of them, read once, in some 5 ms."""
    text = files("issuer.accounts").joinpath(_DATA).read_text("utf-8")
    rows = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return MappingProxyType(
        {
            chr(int(source, 16)): "".join(chr(int(code, 16)) for code in target)
            for source, *target in rows
        }
    )
