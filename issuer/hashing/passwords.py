"""Passwords: which are accepted (R30), and how they are stored (R31).

bcrypt reads at most 72 bytes, and version 5 raises above that. So it gets 64 characters
that represent the whole password: base64 of HMAC-SHA-384 with a pepper that is not in
the database. A stolen table alone cannot be searched.

A stored string is `ghp1$<pepper id>$<bcrypt string>`; the bcrypt string names the cost.
`ghf1$<bcrypt string>` was imported from a system that gave the password itself to
bcrypt. `ghf2$<family>$<amount of work>$<hash>` was imported with another function
(`foreign_hashes.py`). The first login replaces both.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, NoReturn

import bcrypt

from issuer.clock import ElapsedClock, elapsed_clock
from issuer.errors import (
    InvalidCredentialsError,
    InvalidRequestError,
    UnavailableError,
)
from issuer.hashing.common_passwords import is_common
from issuer.hashing.foreign_hashes import (
    ForeignHash,
    ForeignHashError,
    build_reference,
    read_foreign,
    strip_prefix,
)
from issuer.hashing.hash_work import Family, Work, bcrypt_work
from issuer.settings.issuer_settings import KeyRing

MAX_PASSWORD_CHARS: Final = 128
#: Every password would contain the user name `a`.
_LEAST_TELLING_USERNAME: Final = 3
_SCHEME: Final = "ghp1"
# After the cost, 22 characters of salt and 31 of digest. Cost 16 is the maximum of the
# settings: a row with 31 would keep a core busy for days.
_STORED: Final = re.compile(
    _SCHEME + r"\$([A-Za-z0-9]+)\$(\$2b\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53})"
)

#: Forms of other systems; `2a` and `2y` mean the same as `2b`.
_FOREIGN_SCHEME: Final = "ghf1"
# Salt and digest have 16 and 23 bytes: the unused bits of their last characters are 0.
# With other bits no password matches.
_BCRYPT: Final = re.compile(
    r"\$2[aby](\$(?:0[4-9]|1[0-6])\$"
    r"[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26])"
)
_STORED_FOREIGN: Final = re.compile(
    _FOREIGN_SCHEME + r"\$(\$2b\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53})"
)
_BCRYPT_MAX_BYTES: Final = 72
#: The greatest imported cost: a second of a core at each login. Hashes imported before
#: this bound are still verified.
_MAX_IMPORTED_COST: Final = 14
_OTHER_FOREIGN_SCHEME: Final = "ghf2"
#: Digits of the amount of work in a stored string; fixed, so that text sorts as
#: numbers.
AMOUNT_DIGITS: Final = 12
_STORED_OTHER: Final = re.compile(
    _OTHER_FOREIGN_SCHEME + rf"\$([a-z0-9_]+)\$([0-9]{{{AMOUNT_DIGITS}}})\$(.+)"
)
_FORMS: Final = (
    f"must be {_SCHEME}$... with a pepper of ours, or another system's bcrypt, "
    "pbkdf2_sha256, argon2id or scrypt in a form that docs/accounts.md lists"
)
#: Beginnings of stored strings that end in a bcrypt string.
BCRYPT_SCHEMES: Final = (f"{_SCHEME}$", f"{_FOREIGN_SCHEME}$")


def name_foreign(family: Family) -> str:
    """Return the beginning of stored strings of this family; bcrypt has two others."""
    return f"{_OTHER_FOREIGN_SCHEME}${family.value}$"


def check_new_password(
    password: str, *, username: str, minimum: int, field: str = "password"
) -> None:
    """Return when the password is acceptable; its length is counted in NFKC.

    Args:
        password: as typed; any characters, no rule about their mixture (NIST SP
            800-63B-4, section 3.1.1.2).
        username: normal form of the account's name.
        minimum: least number of code points.
        field: name of the input's field.

    Raises:
        InvalidRequestError: naming the broken rule.
    """
    normal = unicodedata.normalize("NFKC", password)
    if _holds_surrogate(normal):
        rule = "must be valid Unicode"
    elif len(normal) < minimum:
        rule = f"must have at least {minimum} characters"
    elif len(normal) > MAX_PASSWORD_CHARS:
        rule = f"must have at most {MAX_PASSWORD_CHARS} characters"
    elif is_common(normal.casefold()):
        rule = "is one of the most common passwords, or made of two of them"
    elif len(username) >= _LEAST_TELLING_USERNAME and username in normal.casefold():
        rule = "must not contain the user name"
    else:
        return
    raise InvalidRequestError.of_field(field, rule)


class _StoredHash(NamedTuple):
    """A parsed stored string; `pepper_id` is None for hashes of other systems."""

    pepper_id: str | None
    cost: int
    bcrypt_text: bytes

    @property
    def work(self) -> Work:
        """The cost of computing it."""
        return bcrypt_work(self.cost)


class PasswordHasher:
    """Hashes and verifies passwords; each hash takes a fraction of a second of a core.

    Args:
        peppers: the first is used for new hashes, all verify old ones.
        cost: bcrypt's, log2 of the rounds.
        bcrypt_hash: makes the bcrypt string from 64 bytes and a salt; with an earlier
            string as salt, the same bytes give that string.
        on_verified: called on the hashing thread with the pepper's id of a right
            password.
        elapsed: gives the seconds that time the hashes.
        on_hashed: called on that thread with the work and the seconds of each hash.
    """

    def __init__(
        self,
        peppers: KeyRing,
        *,
        cost: int,
        bcrypt_hash: Callable[[bytes, bytes], bytes] = bcrypt.hashpw,
        on_verified: Callable[[str], None] = lambda _pepper_id: None,
        elapsed: ElapsedClock = elapsed_clock,
        on_hashed: Callable[[Work, float], None] = lambda _work, _took: None,
    ) -> None:
        self._peppers = peppers
        self._cost = cost
        self._bcrypt_hash = bcrypt_hash
        self._on_verified = on_verified
        self._elapsed = elapsed
        self._on_hashed = on_hashed

    def hash(self, password: str) -> str:
        """Return the string to store; runs one hash.

        Args:
            password: accepted by `check_new_password`.
        """
        pepper_id = self._peppers.current_id
        normal = unicodedata.normalize("NFKC", password)
        digest = _digest(normal, self._peppers[pepper_id])
        made = self._run_bcrypt(digest, bcrypt.gensalt(self._cost), self._cost)
        return f"{_SCHEME}${pepper_id}${made.decode('ascii')}"

    def verify(self, stored: str, password: str) -> None:
        """Return when `stored` was made from `password`.

        Exactly one hash runs in every case: that of `stored`, or one with the present
        parameters. Its duration may differ; `hash_times.py` hides that (requirement
        R32).

        Raises:
            InvalidCredentialsError: for another password, for an empty, too long or
                non-Unicode one, and for a stored string that is not ours or whose
                pepper is missing. `detail` has the cause.
            UnavailableError: when there is not enough memory.
        """
        known = _parse(stored)
        if known is None or not self._can_use(known):
            self.refuse(detail="malformed hash")
        normal = unicodedata.normalize("NFKC", password)
        if not 1 <= len(normal) <= MAX_PASSWORD_CHARS or _holds_surrogate(normal):
            self.refuse(detail="malformed password")
        if isinstance(known, ForeignHash):
            # Other systems do not normalise.
            made = self._run(known.work, partial(known.derive, password.encode()))
            expected = known.digest
        else:
            made, expected = self._repeat_bcrypt(known, password, normal)
        if not hmac.compare_digest(made, expected):
            raise InvalidCredentialsError(detail="wrong password")
        if isinstance(known, _StoredHash) and known.pepper_id is not None:
            self._on_verified(known.pepper_id)

    def adopt(self, stored: str, *, field: str) -> tuple[str, Work]:
        """Return the string to store for an imported hash, and its work.

        Args:
            stored: a string of an issuer with one of our peppers, or a hash of another
                system within its bounds.
            field: name of the input's field.

        Raises:
            InvalidRequestError: when it is neither.
        """
        known = _parse(stored)
        try:
            if known is not None and self._can_use(known):
                if isinstance(known, _StoredHash) and known.pepper_id is None:
                    _require_importable(known.work)
                return stored, known.work
            bare = strip_prefix(stored)
            foreign = _BCRYPT.fullmatch(bare)
            if foreign is not None:
                work = bcrypt_work(int(foreign[1][1:3]))
                _require_importable(work)
                return f"{_FOREIGN_SCHEME}$$2b{foreign[1]}", work
            other = read_foreign(bare)
        except ForeignHashError as error:
            raise InvalidRequestError.of_field(field, str(error)) from None
        if other is None:
            raise InvalidRequestError.of_field(field, _FORMS)
        amount = f"{other.work.amount:0{AMOUNT_DIGITS}}"
        return f"{name_foreign(other.work.family)}{amount}${bare}", other.work

    def refuse(self, *, detail: str) -> NoReturn:
        """Run one hash with the present parameters, then refuse.

        Raises:
            InvalidCredentialsError: always, with `detail` for the log.
        """
        digest = _digest("nobody", self._peppers.current)
        self._run_bcrypt(digest, bcrypt.gensalt(self._cost), self._cost)
        raise InvalidCredentialsError(detail=detail)

    def run_reference(self, work: Work) -> None:
        """Run one hash of this work to measure its duration."""
        if work.family is Family.BCRYPT:
            cost = work.amount.bit_length() - 1
            digest = _digest("nobody", self._peppers.current)
            self._run_bcrypt(digest, bcrypt.gensalt(cost), cost)
        else:
            self._run(work, partial(build_reference(work), b"nobody"))

    def read_work(self, stored: str) -> Work | None:
        """Return the cost of verifying `stored`; None for an unknown form."""
        known = _parse(stored)
        return None if known is None else known.work

    def needs_rehash(self, stored: str) -> bool:
        """Return whether `stored` has another pepper or cost than new hashes."""
        known = _parse(stored)
        return not isinstance(known, _StoredHash) or (known.pepper_id, known.cost) != (
            self._peppers.current_id,
            self._cost,
        )

    def _can_use(self, known: _StoredHash | ForeignHash) -> bool:
        return (
            isinstance(known, ForeignHash)
            or known.pepper_id is None
            or known.pepper_id in self._peppers
        )

    def _repeat_bcrypt(
        self, known: _StoredHash, password: str, normal: str
    ) -> tuple[bytes, bytes]:
        """Return the bcrypt strings of this password and of the right one."""
        if known.pepper_id is not None:
            given = _digest(normal, self._peppers[known.pepper_id])
        else:
            given = password.encode()
            if len(given) > _BCRYPT_MAX_BYTES:
                # The other system ignored the rest of the password (R31): a reset link
                # helps.
                self.refuse(detail="too long for an imported hash")
        try:
            made = self._run_bcrypt(given, known.bcrypt_text, known.cost)
        except ValueError:  # the salt is malformed; bcrypt has not run
            self.refuse(detail="malformed hash")
        return made, known.bcrypt_text

    def _run_bcrypt(self, given: bytes, salt: bytes, cost: int) -> bytes:
        return self._run(bcrypt_work(cost), partial(self._bcrypt_hash, given, salt))

    def _run(self, work: Work, compute: Callable[[], bytes]) -> bytes:
        """Compute a hash and report its duration; a failed one is not reported."""
        begun = self._elapsed()
        try:
            made = compute()
        except MemoryError:  # scrypt and Argon2id take up to 256 MiB
            raise UnavailableError(detail="no memory for a password hash") from None
        self._on_hashed(work, self._elapsed() - begun)
        return made


def _digest(normal: str, pepper: bytes) -> bytes:
    mac = hmac.digest(pepper, normal.encode(), hashlib.sha384)
    return base64.b64encode(mac)


def _require_importable(work: Work) -> None:
    if work.amount > bcrypt_work(_MAX_IMPORTED_COST).amount:
        raise ForeignHashError(f"bcrypt: must have cost 4 to {_MAX_IMPORTED_COST}")


def _parse(stored: str) -> _StoredHash | ForeignHash | None:
    foreign = _STORED_FOREIGN.fullmatch(stored)
    if foreign is not None:
        return _StoredHash(None, int(foreign[2]), foreign[1].encode("ascii"))
    other = _STORED_OTHER.fullmatch(stored)
    if other is not None:
        try:
            read = read_foreign(other[3])
        except ForeignHashError:
            return None
        if read is None or read.work != (other[1], int(other[2])):
            # Its stated work would be stored, and could be wrong.
            return None
        return read
    match = _STORED.fullmatch(stored)
    if match is None:
        return None
    pepper_id, bcrypt_text, cost = match.groups()
    return _StoredHash(pepper_id, int(cost), bcrypt_text.encode("ascii"))


def _holds_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)
