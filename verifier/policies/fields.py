"""Reads the fields of one table of a policy file, and says which one is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

from verifier.check.claims import ClaimPath, Scalar
from verifier.check.policy import PolicyError

#: The longest age that a policy can ask for: a year, in seconds. A longer one is
#: probably in another unit.
_MAX_AGE: Final = 366 * 86_400
#: Names of one path to a claim.
_MAX_DEPTH: Final = 8
_SCALARS: Final = (str, int, bool)


class Fields:
    """One table of the file.

    Args:
        where: names the table in messages; empty for the whole file.
        table: what the file has there.
        known: the fields that it may have.

    Raises:
        PolicyError: when it is no table, or has another field. A misspelt
            `required_scopes` would leave a route without a check.
    """

    def __init__(self, where: str, table: Any, known: Iterable[str]) -> None:
        if not isinstance(table, dict):
            raise PolicyError(f"{where}: must be a table")
        names = sorted(known)
        for name in sorted(table):
            if name not in names:
                hint = name_nearest(name, names)
                at = _name_field(where, name)
                raise PolicyError(f"{at}: there is no such field{hint}")
        self.where = where
        self._table = table

    def __contains__(self, name: str) -> bool:
        """Return whether the file has this field."""
        return name in self._table

    def fail(self, name: str, rule: str) -> PolicyError:
        """Return the error that a field breaks a rule."""
        return PolicyError(f"{_name_field(self.where, name)}: {rule}")

    def read_text(self, name: str, default: str) -> str:
        """Return a text.

        Raises:
            PolicyError: when it is none.
        """
        value = self._table.get(name, default)
        if not isinstance(value, str):
            raise self.fail(name, "must be text")
        return value

    def read_choice(self, name: str, choices: tuple[str, str]) -> str:
        """Return one of two words; the first is the default.

        Raises:
            PolicyError: when it is neither.
        """
        value = self._table.get(name, choices[0])
        if value not in choices:
            raise self.fail(name, f'must be "{choices[0]}" or "{choices[1]}"')
        return str(value)

    def read_flag(self, name: str) -> bool:
        """Return true or false, false by default.

        Raises:
            PolicyError: when it is neither.
        """
        value = self._table.get(name, False)
        if not isinstance(value, bool):
            raise self.fail(name, "must be true or false")
        return value

    def read_seconds(self, name: str, *, largest: int = _MAX_AGE) -> int:
        """Return a number of seconds, 0 when the field is missing.

        Raises:
            PolicyError: when it is none, or below 1.
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
            PolicyError: when it is no list, or a word has a space or is empty.
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
            PolicyError: when it is none.
        """
        value = self._table.get(name, [])
        if not isinstance(value, list):
            heading = f"[[{_name_field(self.where, name)}]]"
            raise self.fail(name, f"must be a list; begin each with {heading}")
        return value

    def read_table(self, name: str) -> dict[str, Any]:
        """Return a table, empty by default.

        Raises:
            PolicyError: when it is none.
        """
        value = self._table.get(name, {})
        if not isinstance(value, dict):
            raise self.fail(name, "must be a table")
        return value

    def read_claims(
        self, name: str
    ) -> tuple[tuple[ClaimPath, tuple[Scalar, ...]], ...]:
        """Return the accepted values by the path of their claim.

        A list means one of its values, a table leads to the claims of an object.

        Raises:
            PolicyError: for a value that is no text, whole number, true or false.
        """
        if name in self._table and not self.read_table(name):
            raise self.fail(name, "must not be empty; leave it out to ask for nothing")
        found: list[tuple[ClaimPath, tuple[Scalar, ...]]] = []
        pending: list[tuple[ClaimPath, Any]] = [((), self.read_table(name))]
        while pending:
            path, value = pending.pop()
            where = ".".join((name, *path))
            if isinstance(value, dict):
                if (not value and path) or len(path) > _MAX_DEPTH:
                    raise self.fail(where, "must lead to a claim")
                pending += [((*path, key), inner) for key, inner in value.items()]
                continue
            values = value if isinstance(value, list) else [value]
            if not values or not all(isinstance(one, _SCALARS) for one in values):
                raise self.fail(
                    where, "must be text, a whole number, true or false, or a list"
                )
            found.append((path, tuple(values)))
        return tuple(sorted(found, key=lambda one: one[0]))


def name_nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint at the known word that is most like this one, or nothing."""
    close = get_close_matches(word, sorted(known), 1)
    return f"; the nearest is {close[0]}" if close else ""


def _name_field(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
