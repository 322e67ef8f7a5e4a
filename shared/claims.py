"""The names and limits of the access token that both sides must agree on.

The token is the JWT access token of RFC 9068; `sid`, `gen` and `roles` are ours
(docs/design.md, "The access token").
"""

from __future__ import annotations

import unicodedata
from typing import Final

ALGORITHM: Final = "RS256"
ACCESS_TOKEN_TYP: Final = "at+jwt"  # noqa: S105
#: RFC 9068, section 4: both spellings name the same type.
ACCEPTED_TYPS: Final = frozenset({"at+jwt", "application/at+jwt"})

#: A longer token is refused before any of it is decoded (requirement R17).
MAX_TOKEN_BYTES: Final = 8_000
#: A longer `kid` cannot be one of ours (requirement R22).
MAX_KID_BYTES: Final = 256
#: Bound of every identifying string in a token: `sub`, `jti`, `sid`, `client_id`.
MAX_IDENTIFIER_CHARS: Final = 256
MAX_USERNAME_CHARS: Final = 64

#: Claims without which a token is refused (requirement R18).
REQUIRED_CLAIMS: Final = frozenset(
    {
        "iss",
        "sub",
        "aud",
        "exp",
        "iat",
        "jti",
        "sid",
        "gen",
        "client_id",
    }
)

#: Claims that the tokens of no issuer may lack: a token without them would not end, or
#: could outlive its revocation (requirement R18).
ALWAYS_REQUIRED: Final = frozenset({"sub", "exp", "iat"})
#: Stands for the issuer of Gatehouse in policy files, among names of other issuers.
OWN_ISSUER: Final = "own"

DEFAULT_LEEWAY: Final = 5
MAX_LEEWAY: Final = 60
#: The longest lifetime an access token may have, seconds. Revocations are kept this
#: long, not only for the current `ISSUER_ACCESS_TTL`, because tokens minted before it
#: was lowered still live. A verifier refuses a token whose `exp - iat` is longer (R53).
LONGEST_ACCESS_TTL: Final = 3_600
#: The end of the year 9999, Unix seconds. A later NumericDate is an error, most often a
#: time in milliseconds (requirement R53).
MAX_NUMERIC_DATE: Final = 253_402_300_799
#: How far the clocks of two machines that run Gatehouse may differ, seconds.
#: Revocations are kept this much longer at each end: the clock that minted may be ahead
#: of the one that revokes, and the clock that prunes may be ahead of the one that
#: verifies.
CLOCK_ALLOWANCE: Final = 120

MIN_RSA_BITS: Final = 2_048
MAX_RSA_BITS: Final = 4_096
RSA_EXPONENT: Final = 65_537

# Cc control, Cf format (bidi overrides among them), Cs lone surrogate, Zl and Zp
# line and paragraph separator: none can be in a header or a log line unseen.
_UNSEEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def is_plain_text(text: str) -> bool:
    """Return whether `text` has no character that hides text or breaks a line (R12).

    True for the empty text; length is the caller's concern.
    """
    if text.isascii():
        return text.isprintable()
    return not any(unicodedata.category(char) in _UNSEEN_CATEGORIES for char in text)


def is_identifier(text: str) -> bool:
    """Return whether `text` is a valid `sub`, `jti`, `sid` or `client_id`."""
    return 0 < len(text) <= MAX_IDENTIFIER_CHARS and is_plain_text(text)
