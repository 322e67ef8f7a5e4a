"""Reads the fields of one table of a policy file, and says which one is wrong."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from shared.configuration.toml_fields import MAX_DEPTH, TomlFields
from verifier.check.claims import ClaimPath, Scalar
from verifier.check.policy import PolicyError

#: The longest age that a policy can ask for: a year, in seconds. A longer one is
#: probably in another unit.
LONGEST_AGE: Final = 366 * 86_400
_SCALARS: Final = (str, int, bool)


class Fields(TomlFields):
    """One table of a policy file, or of a file of cases.

    Raises:
        PolicyError: when it is no table, or has another field. A misspelt
            `required_scopes` would leave a route without a check.
    """

    error: ClassVar[type[ValueError]] = PolicyError

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
                if (not value and path) or len(path) > MAX_DEPTH:
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
