"""Composes the hashing of passwords."""

import os
from contextlib import nullcontext
from functools import partial

from issuer.foundation import Foundation, Package
from issuer.hashing.hash_times import HashTimes
from issuer.hashing.hash_work import bcrypt_work
from issuer.hashing.hashing_pool import HashingPool
from issuer.hashing.new_passwords import NewPasswords
from issuer.hashing.passwords import PasswordHasher
from issuer.keys.parts import KeysParts


class HashingParts(Package):
    """The parts of hashing."""

    def __init__(
        self,
        base: Foundation,
        hasher: PasswordHasher,
        pool: HashingPool,
        times: HashTimes,
    ) -> None:
        self.hasher, self.pool, self.times = hasher, pool, times
        self.new_passwords = NewPasswords(
            hasher, pool, base.settings.password_min_length
        )

    @classmethod
    def of(cls, base: Foundation, keys: KeysParts) -> "HashingParts":
        """Return the parts by the settings."""
        settings, on_change = base.settings, base.metrics.hashing
        times = HashTimes(bcrypt_work(settings.bcrypt_cost))
        hasher = PasswordHasher(
            settings.password_peppers,
            cost=settings.bcrypt_cost,
            on_verified=keys.proofs.note,
            elapsed=base.elapsed,
            on_hashed=times.note,
        )
        spans = base.spans
        pool = HashingPool(
            workers=settings.hash_workers or os.cpu_count() or 1,
            queue=settings.hash_queue,
            on_change=on_change,
            watch=partial(spans.inner, "hash", {}) if spans else nullcontext,
        )
        return cls(base, hasher, pool, times)

    async def close(self) -> None:
        """End the threads."""
        self.pool.close()
