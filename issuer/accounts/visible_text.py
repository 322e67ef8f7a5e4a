"""Characters that are invisible or blank: not allowed in text that people compare."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from shared.claims import is_plain_text

#: The first and the last code point of each range of Default_Ignorable_Code_Point
#: (Unicode 17.0, DerivedCoreProperties): programs do not show them.
_IGNORABLE: Final = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
_FIRSTS: Final = tuple(first for first, _ in _IGNORABLE)
#: Shown as a blank, but not white space in Unicode: the Ogham space mark in most fonts,
#: the empty Braille cell, two Egyptian hieroglyphs, the null notehead, the object
#: replacement character.
_BLANK: Final = frozenset("\u1680\u2800\ufffc\U00013441\U00013442\U0001d159")


def is_ignorable(char: str) -> bool:
    """Return whether a character is not shown (Default_Ignorable_Code_Point)."""
    index = bisect_right(_FIRSTS, ord(char)) - 1
    return index >= 0 and ord(char) <= _IGNORABLE[index][1]


def is_visible_text(text: str) -> bool:
    """Return whether `text` is plain and all characters but spaces are visible.

    For names that people read: two that differ in invisible characters look equal.
    """
    if not is_plain_text(text):
        return False
    return text.isascii() or not any(c in _BLANK or is_ignorable(c) for c in text)
