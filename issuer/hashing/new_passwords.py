"""New passwords: held against the rules, then hashed in the pool."""

from __future__ import annotations

from functools import partial

from issuer.hashing.hashing_pool import HashingPool
from issuer.hashing.passwords import PasswordHasher, check_new_password


class NewPasswords:
    """Checks and hashes new passwords.

    Args:
        hasher: computes the hash.
        pool: runs the hasher.
        minimum: least number of code points.
    """

    def __init__(self, hasher: PasswordHasher, pool: HashingPool, minimum: int) -> None:
        self._hasher = hasher
        self._pool = pool
        self._minimum = minimum

    async def hash(
        self, password: str, username: str, *, field: str = "new_password"
    ) -> str:
        """Return the stored form of a new password.

        Args:
            password: as typed.
            username: normal form of the account's name.
            field: name of the input's field.

        Raises:
            InvalidRequestError: naming the broken rule.
            UnavailableError: when the hashing queue is full.
        """
        check_new_password(
            password, username=username, minimum=self._minimum, field=field
        )
        return await self._pool.run(partial(self._hasher.hash, password))
