"""Reads the fields of one table of a TOML file, and says which one is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, ClassVar, Final

#: Names in one path to a claim.
MAX_DEPTH: Final = 8


class TomlFields:
    """One table of a file that operators write.

    Args:
        where: names the table in messages; empty for the whole file.
        table: what the file has there.
        known: the fields that it may have.

    Attributes:
        error: the type of the errors that the methods raise; a subclass sets its own.
        where: names the table in messages.

    Raises:
        ValueError: of the type `error`, when it is no table, or has another field. A
            misspelt field would leave its check out.
    """

    error: ClassVar[type[ValueError]] = ValueError

    def __init__(self, where: str, table: Any, known: Iterable[str]) -> None:
        if not isinstance(table, dict):
            raise self.error(f"{where}: must be a table")
        names = sorted(known)
        for name in sorted(table):
            if name not in names:
                hint = name_nearest(name, names)
                at = _name_field(where, name)
                raise self.error(f"{at}: there is no such field{hint}")
        self.where = where
        self._table = table

    def __contains__(self, name: str) -> bool:
        """Return whether the file has this field."""
        return name in self._table

    def fail(self, name: str, rule: str) -> ValueError:
        """Return the error that a field breaks a rule."""
        return self.error(f"{_name_field(self.where, name)}: {rule}")

    def read_text(self, name: str, default: str) -> str:
        """Return a text.

        Raises:
            ValueError: when it is none.
        """
        value = self._table.get(name, default)
        if not isinstance(value, str):
            raise self.fail(name, "must be text")
        return value

    def read_choice(self, name: str, choices: tuple[str, str]) -> str:
        """Return one of two words; the first is the default.

        Raises:
            ValueError: when it is neither.
        """
        value = self._table.get(name, choices[0])
        if value not in choices:
            raise self.fail(name, f'must be "{choices[0]}" or "{choices[1]}"')
        return str(value)

    def read_flag(self, name: str) -> bool:
        """Return true or false, false by default.

        Raises:
            ValueError: when it is neither.
        """
        value = self._table.get(name, False)
        if not isinstance(value, bool):
            raise self.fail(name, "must be true or false")
        return value

    def read_seconds(self, name: str, *, largest: int) -> int:
        """Return a number of seconds, 0 when the field is missing.

        Raises:
            ValueError: when it is none, or below 1.
        """
        value = self._table.get(name, 0)
        is_number = type(value) is int and 0 < value <= largest
        if name in self._table and not is_number:
            raise self.fail(name, f"must be 1..{largest} seconds")
        return int(value)

    def read_words(self, name: str, *, is_choice: bool = False) -> frozenset[str]:
        """Return a list of words, empty by default.

        Args:
            name: the field.
            is_choice: one of the words is needed, so an empty list could mean that all
                pass or that none does.

        Raises:
            ValueError: when it is no list, or a word has a space or is empty.
        """
        words = self._table.get(name, [])
        if not isinstance(words, list) or not all(
            isinstance(word, str) and word and word.isprintable() and " " not in word
            for word in words
        ):
            raise self.fail(
                name, 'must be a list of words, such as ["first", "second"]'
            )
        if is_choice and name in self._table and not words:
            raise self.fail(name, "must not be empty; leave it out to ask for nothing")
        return frozenset(words)

    def read_list(self, name: str) -> list[Any]:
        """Return a list, empty by default.

        Raises:
            ValueError: when it is none.
        """
        value = self._table.get(name, [])
        if not isinstance(value, list):
            heading = f"[[{_name_field(self.where, name)}]]"
            raise self.fail(name, f"must be a list; begin each with {heading}")
        return value

    def read_table(self, name: str) -> dict[str, Any]:
        """Return a table, empty by default.

        Raises:
            ValueError: when it is none.
        """
        value = self._table.get(name, {})
        if not isinstance(value, dict):
            raise self.fail(name, "must be a table")
        return value

    def read_path(self, name: str, value: Any) -> tuple[str, ...]:
        """Return the path to a claim: its names, from the outermost on.

        Args:
            name: of the field, in messages.
            value: what the file has there: the name of a claim, or a list of names.

        Raises:
            ValueError: when it is neither.
        """
        path = [value] if isinstance(value, str) else value
        if (
            not isinstance(path, list)
            or not 0 < len(path) <= MAX_DEPTH
            or not all(isinstance(step, str) and step for step in path)
        ):
            raise self.fail(
                name, "must be the name of a claim, or a list that leads to it"
            )
        return tuple(path)


def name_nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint at the known word that is most like this one, or nothing."""
    close = get_close_matches(word, sorted(known), 1)
    return f"; the nearest is {close[0]}" if close else ""


def _name_field(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
