"""Passwords: which are taken (R30), and how they are kept (R31).

bcrypt reads 72 bytes at most and version 5 raises above. It is therefore given 64
characters that stand for the whole password: base64 of HMAC-SHA-384, keyed with a
pepper that is not in the database. A stolen table alone cannot be searched.

A stored string is `ghp1$<pepper id>$<bcrypt string>`; the bcrypt string names the cost.
`ghf1$<bcrypt string>` was imported: another system gave the password itself to bcrypt.
`ghf2$<family>$<amount of work>$<hash>` was imported too, and is of another function
(`foreign_hashes.py`). The first login replaces either.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable
from functools import cache, partial
from typing import Final, NamedTuple, NoReturn

import bcrypt
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from issuer.clock import ElapsedClock, elapsed_clock
from issuer.errors import (
    FieldProblem,
    InvalidCredentialsError,
    InvalidRequestError,
    UnavailableError,
)
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
#: The 30,000 most common passwords were counted in lower case. Few of them have the 15
#: characters that are asked for: who must type more types two, or one again and again.
_COMMON_LIST: Final = "passwords"
#: Every password would contain the user name `a`.
_LEAST_TELLING_USERNAME: Final = 3
_SCHEME: Final = "ghp1"
# After the cost 22 characters of salt and 31 of digest. Cost 16 is the most that the
# settings take: a row that claims 31 would keep a core busy for days.
_STORED: Final = re.compile(
    _SCHEME + r"\$([A-Za-z0-9]+)\$(\$2b\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53})"
)

#: What other systems write; `2a` and `2y` mean what `2b` means.
_FOREIGN_SCHEME: Final = "ghf1"
# Salt and digest are 16 and 23 bytes: the last characters of each hold bits that are 0.
# With others no password is right.
_BCRYPT: Final = re.compile(
    r"\$2[aby](\$(?:0[4-9]|1[0-6])\$"
    r"[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26])"
)
_STORED_FOREIGN: Final = re.compile(
    _FOREIGN_SCHEME + r"\$(\$2b\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53})"
)
_BCRYPT_MAX_BYTES: Final = 72
#: The most that is imported: a second of a core at each login. What was imported before
#: there was this bound is still verified.
_MAX_IMPORTED_COST: Final = 14
_OTHER_FOREIGN_SCHEME: Final = "ghf2"
#: Digits of the amount of work in a stored string, so that its text sorts as a number.
AMOUNT_DIGITS: Final = 12
_STORED_OTHER: Final = re.compile(
    _OTHER_FOREIGN_SCHEME + rf"\$([a-z0-9_]+)\$([0-9]{{{AMOUNT_DIGITS}}})\$(.+)"
)
_FORMS: Final = (
    f"must be {_SCHEME}$... with a pepper of ours, or another system's bcrypt, "
    "pbkdf2_sha256, argon2id or scrypt in a form that docs/accounts.md lists"
)
#: What stored strings begin with that end in a bcrypt string.
BCRYPT_SCHEMES: Final = (f"{_SCHEME}$", f"{_FOREIGN_SCHEME}$")


def name_foreign(family: Family) -> str:
    """Return what the stored strings of this family begin with; bcrypt has two others."""
    return f"{_OTHER_FOREIGN_SCHEME}${family.value}$"


def check_new_password(
    password: str, *, username: str, minimum: int, field: str = "password"
) -> None:
    """Return when the password may be used; counted in NFKC, as it is hashed.

    Args:
        password: as typed; any characters, no rule about their mixture (NIST SP
            800-63B-4, section 3.1.1.2).
        username: normal form of the account's name.
        minimum: least number of code points.
        field: what the input's field is called.

    Raises:
        InvalidRequestError: naming the rule that is broken.
    """
    normal = unicodedata.normalize("NFKC", password)
    if _holds_surrogate(normal):
        rule = "must be valid Unicode"
    elif len(normal) < minimum:
        rule = f"must have at least {minimum} characters"
    elif len(normal) > MAX_PASSWORD_CHARS:
        rule = f"must have at most {MAX_PASSWORD_CHARS} characters"
    elif _is_common(normal.casefold()):
        rule = "is one of the most common passwords, or made of two of them"
    elif len(username) >= _LEAST_TELLING_USERNAME and username in normal.casefold():
        rule = "must not contain the user name"
    else:
        return
    raise InvalidRequestError(problems=[FieldProblem(field, rule)])


class _StoredHash(NamedTuple):
    """`pepper_id` is None where another system hashed."""

    pepper_id: str | None
    cost: int
    bcrypt_text: bytes

    @property
    def work(self) -> Work:
        """What computing it again costs."""
        return bcrypt_work(self.cost)


class PasswordHasher:
    """Hashes and verifies passwords; each hash keeps a core busy for a while.

    Args:
        peppers: the first goes into new hashes, all check old ones.
        cost: bcrypt's, log2 of the rounds.
        bcrypt_hash: makes the bcrypt string from 64 bytes and a salt; given an earlier
            string as salt, it makes that one again from the same bytes.
        on_verified: told the pepper's id by which a password was found right, from the
            thread that hashed.
        elapsed: gives the seconds by which hashes are timed.
        on_hashed: told the work of each hash and the seconds it took, likewise.
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
            password: one that `check_new_password` took.
        """
        pepper_id = self._peppers.current_id
        normal = unicodedata.normalize("NFKC", password)
        digest = _digest(normal, self._peppers[pepper_id])
        made = self._run_bcrypt(digest, bcrypt.gensalt(self._cost), self._cost)
        return f"{_SCHEME}${pepper_id}${made.decode('ascii')}"

    def verify(self, stored: str, password: str) -> None:
        """Return when `password` is the one that `stored` was made from.

        Exactly one hash runs in every case: that of `stored` with its parameters, or one
        with the present ones. What it takes may differ; a failed login is answered at a
        time that does not tell (`hash_times.py`, requirement R32).

        Raises:
            InvalidCredentialsError: for another password, for one that is empty, too
                long or not Unicode, and for a stored string that is not ours or whose
                pepper is gone. `detail` says which.
            UnavailableError: when there is no memory for it.
        """
        known = _parse(stored)
        if known is None or not self._can_use(known):
            self.refuse(detail="malformed hash")
        normal = unicodedata.normalize("NFKC", password)
        if not 1 <= len(normal) <= MAX_PASSWORD_CHARS or _holds_surrogate(normal):
            self.refuse(detail="malformed password")
        if isinstance(known, ForeignHash):
            # Another system knew no normal form.
            made = self._run(known.work, partial(known.derive, password.encode()))
            expected = known.digest
        else:
            made, expected = self._repeat_bcrypt(known, password, normal)
        if not hmac.compare_digest(made, expected):
            raise InvalidCredentialsError(detail="wrong password")
        if isinstance(known, _StoredHash) and known.pepper_id is not None:
            self._on_verified(known.pepper_id)

    def adopt(self, stored: str, *, field: str) -> tuple[str, Work]:
        """Return the string to store for a hash that was made elsewhere, and its work.

        Args:
            stored: what an issuer with one of our peppers stored, or a hash that another
                system made from the password itself, within its bounds.
            field: what the input's field is called.

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
            raise InvalidRequestError(
                problems=[FieldProblem(field, str(error))]
            ) from None
        if other is None:
            raise InvalidRequestError(problems=[FieldProblem(field, _FORMS)])
        amount = f"{other.work.amount:0{AMOUNT_DIGITS}}"
        return f"{name_foreign(other.work.family)}{amount}${bare}", other.work

    def refuse(self, *, detail: str) -> NoReturn:
        """Run one hash of the present parameters for nobody, then refuse.

        Raises:
            InvalidCredentialsError: always, with `detail` for the log.
        """
        digest = _digest("nobody", self._peppers.current)
        self._run_bcrypt(digest, bcrypt.gensalt(self._cost), self._cost)
        raise InvalidCredentialsError(detail=detail)

    def run_reference(self, work: Work) -> None:
        """Run one hash of so much work for nobody: it is timed."""
        if work.family is Family.BCRYPT:
            cost = work.amount.bit_length() - 1
            digest = _digest("nobody", self._peppers.current)
            self._run_bcrypt(digest, bcrypt.gensalt(cost), cost)
        else:
            self._run(work, partial(build_reference(work), b"nobody"))

    def read_work(self, stored: str) -> Work | None:
        """Return what verifying `stored` costs; None where it is no hash of ours."""
        known = _parse(stored)
        return None if known is None else known.work

    def needs_rehash(self, stored: str) -> bool:
        """Tell whether `stored` was made with another pepper or cost than the present."""
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
        """Return what bcrypt makes of the password, and what it made of the right one."""
        if known.pepper_id is not None:
            given = _digest(normal, self._peppers[known.pepper_id])
        else:
            given = password.encode()
            if len(given) > _BCRYPT_MAX_BYTES:
                # What the other system cut off nobody knows (R31): a reset link helps.
                self.refuse(detail="too long for an imported hash")
        try:
            made = self._run_bcrypt(given, known.bcrypt_text, known.cost)
        except ValueError:  # bcrypt found its salt malformed, before it began
            self.refuse(detail="malformed hash")
        return made, known.bcrypt_text

    def _run_bcrypt(self, given: bytes, salt: bytes, cost: int) -> bytes:
        return self._run(bcrypt_work(cost), partial(self._bcrypt_hash, given, salt))

    def _run(self, work: Work, compute: Callable[[], bytes]) -> bytes:
        """Compute a hash and tell what it took; one that fails tells nothing."""
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
            # Its own account of its work would be counted, and be wrong.
            return None
        return read
    match = _STORED.fullmatch(stored)
    if match is None:
        return None
    pepper_id, bcrypt_text, cost = match.groups()
    return _StoredHash(pepper_id, int(cost), bcrypt_text.encode("ascii"))


def _holds_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _is_common(folded: str) -> bool:
    """Tell whether it is a common password, two in a row, or one repeated."""
    common = _common_passwords()
    if folded in common:
        return True
    parts = ((folded[:cut], folded[cut:]) for cut in range(1, len(folded)))
    return any(
        first in common and (rest in common or _is_repeated(first, folded))
        for first, rest in parts
    )


def _is_repeated(part: str, whole: str) -> bool:
    times, over = divmod(len(whole), len(part))
    return not over and part * times == whole


@cache
def _common_passwords() -> frozenset[str]:
    return frozenset(FREQUENCY_LISTS[_COMMON_LIST])
