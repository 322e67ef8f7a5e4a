"""Passwords: which are taken (R30), and how they are kept (R31).

bcrypt reads 72 bytes at most and version 5 raises above. It is therefore given 64
characters that stand for the whole password: base64 of HMAC-SHA-384, keyed with a
pepper that is not in the database. A stolen table alone cannot be searched.

A stored string is `ghp1$<pepper id>$<bcrypt string>`; the bcrypt string names the cost.
`ghf1$<bcrypt string>` was imported: another system gave the password itself to bcrypt. Its
first login replaces it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple, NoReturn

import bcrypt
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from issuer.errors import FieldProblem, InvalidCredentialsError, InvalidRequestError
from issuer.settings import KeyRing

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
_BCRYPT: Final = re.compile(r"\$2[aby](\$(?:0[4-9]|1[0-6])\$[./A-Za-z0-9]{53})")
_STORED_FOREIGN: Final = re.compile(
    _FOREIGN_SCHEME + r"\$(\$2b\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53})"
)
_BCRYPT_MAX_BYTES: Final = 72


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


class PasswordHasher:
    """Hashes and verifies passwords; each hash keeps a core busy for a while.

    Args:
        peppers: the first goes into new hashes, all check old ones.
        cost: bcrypt's, log2 of the rounds.
        bcrypt_hash: makes the bcrypt string from 64 bytes and a salt; given an earlier
            string as salt, it makes that one again from the same bytes.
        on_verified: told the pepper's id by which a password was found right, from the
            thread that hashed.
    """

    def __init__(
        self,
        peppers: KeyRing,
        *,
        cost: int,
        bcrypt_hash: Callable[[bytes, bytes], bytes] = bcrypt.hashpw,
        on_verified: Callable[[str], None] = lambda _pepper_id: None,
    ) -> None:
        self._peppers = peppers
        self._cost = cost
        self._bcrypt_hash = bcrypt_hash
        self._on_verified = on_verified

    def hash(self, password: str) -> str:
        """Return the string to store; runs one hash.

        Args:
            password: one that `check_new_password` took.
        """
        pepper_id = self._peppers.current_id
        normal = unicodedata.normalize("NFKC", password)
        made = self._bcrypt_hash(
            _digest(normal, self._peppers[pepper_id]), bcrypt.gensalt(self._cost)
        )
        return f"{_SCHEME}${pepper_id}${made.decode('ascii')}"

    def verify(self, stored: str, password: str) -> None:
        """Return when `password` is the one that `stored` was made from.

        Exactly one hash runs in every case. A whole hash of ours brings its parameters;
        everything else is refused at the present ones, so that the time it takes tells
        nothing (requirement R32).

        Raises:
            InvalidCredentialsError: for another password, for one that is empty, too
                long or not Unicode, and for a stored string that is not ours or whose
                pepper is gone. `detail` says which.
        """
        known = _parse(stored)
        if known is None or not self._can_use(known):
            self.refuse(detail="malformed hash")
        normal = unicodedata.normalize("NFKC", password)
        if not 1 <= len(normal) <= MAX_PASSWORD_CHARS or _holds_surrogate(normal):
            self.refuse(detail="malformed password")
        if known.pepper_id is None and len(password.encode()) > _BCRYPT_MAX_BYTES:
            # What the other system cut off nobody knows (R31): a reset link helps.
            self.refuse(detail="too long for an imported hash")
        try:
            made = self._bcrypt_hash(self._prepare(password, known), known.bcrypt_text)
        except ValueError:  # bcrypt found its salt malformed, before it began
            self.refuse(detail="malformed hash")
        if not hmac.compare_digest(made, known.bcrypt_text):
            raise InvalidCredentialsError(detail="wrong password")
        if known.pepper_id is not None:
            self._on_verified(known.pepper_id)

    def adopt(self, stored: str, *, field: str) -> str:
        """Return the string to store for a hash that was made elsewhere.

        Args:
            stored: what an issuer with one of our peppers stored, or a bcrypt string
                that another system made from the password itself.
            field: what the input's field is called.

        Raises:
            InvalidRequestError: when it is neither.
        """
        known = _parse(stored)
        if known is not None and self._can_use(known):
            return stored
        foreign = _BCRYPT.fullmatch(stored)
        if foreign is None:
            rule = (
                f"must be {_SCHEME}$... with a pepper of ours, or bcrypt's $2b$... of "
                "cost 4 to 16"
            )
            raise InvalidRequestError(problems=[FieldProblem(field, rule)])
        return f"{_FOREIGN_SCHEME}$$2b{foreign[1]}"

    def refuse(self, *, detail: str) -> NoReturn:
        """Run one hash of the present parameters for nobody, then refuse.

        Raises:
            InvalidCredentialsError: always, with `detail` for the log.
        """
        digest = _digest("nobody", self._peppers.current)
        self._bcrypt_hash(digest, bcrypt.gensalt(self._cost))
        raise InvalidCredentialsError(detail=detail)

    def needs_rehash(self, stored: str) -> bool:
        """Tell whether `stored` was made with another pepper or cost than the present."""
        known = _parse(stored)
        return known is None or (known.pepper_id, known.cost) != (
            self._peppers.current_id,
            self._cost,
        )

    def _can_use(self, known: _StoredHash) -> bool:
        return known.pepper_id is None or known.pepper_id in self._peppers

    def _prepare(self, password: str, known: _StoredHash) -> bytes:
        """Return what bcrypt was given; another system knew no normal form."""
        if known.pepper_id is None:
            return password.encode()
        normal = unicodedata.normalize("NFKC", password)
        return _digest(normal, self._peppers[known.pepper_id])


def _digest(normal: str, pepper: bytes) -> bytes:
    mac = hmac.digest(pepper, normal.encode(), hashlib.sha384)
    return base64.b64encode(mac)


def _parse(stored: str) -> _StoredHash | None:
    foreign = _STORED_FOREIGN.fullmatch(stored)
    if foreign is not None:
        return _StoredHash(None, int(foreign[2]), foreign[1].encode("ascii"))
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
