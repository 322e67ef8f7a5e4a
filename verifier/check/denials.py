"""Why a request is refused, and how the gateway sees it.

`DenyReason` is the closed list of refusals. Metric labels, logs, `/explain` and the
documentation use the same word. `REFUSALS` gives the public form of each. All
`invalid_token` refusals look alike to a client, so an attacker learns nothing from
trying.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple


class DenyReason(StrEnum):
    """One word per refusal, grouped by what it concerns."""

    # the credential
    CREDENTIAL_MISSING = "credential_missing"
    CREDENTIAL_MALFORMED = "credential_malformed"
    CREDENTIAL_REPEATED = "credential_repeated"
    # the token's form (R16, R17)
    TOKEN_TOO_LARGE = "token_too_large"  # noqa: S105
    TOKEN_MALFORMED = "token_malformed"  # noqa: S105
    HEADER_MALFORMED = "header_malformed"
    HEADER_FORBIDDEN = "header_forbidden"
    # algorithm, type, key, signature (R14, R15, R19, R22)
    ALG_NOT_ALLOWED = "alg_not_allowed"
    TYP_NOT_ALLOWED = "typ_not_allowed"
    KID_MISSING = "kid_missing"
    KID_UNKNOWN = "kid_unknown"
    SIGNATURE_INVALID = "signature_invalid"
    # the claims (R18)
    CLAIMS_MALFORMED = "claims_malformed"
    CLAIM_MISSING = "claim_missing"
    ISSUER_MISMATCH = "issuer_mismatch"
    AUDIENCE_MISMATCH = "audience_mismatch"
    LIFETIME_TOO_LONG = "lifetime_too_long"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    # revocation
    REVOKED_JTI = "revoked_jti"
    REVOKED_SID = "revoked_sid"
    REVOKED_USER = "revoked_user"
    REVOKED_CLIENT = "revoked_client"
    REVOKED_KID = "revoked_kid"
    # the policy
    SCOPE_INSUFFICIENT = "scope_insufficient"
    ROLE_MISSING = "role_missing"
    CLIENT_NOT_ALLOWED = "client_not_allowed"
    CLAIM_MISMATCH = "claim_mismatch"
    TOKEN_TOO_OLD = "token_too_old"  # noqa: S105
    AUTHENTICATION_TOO_OLD = "authentication_too_old"
    RULE_MISSING = "rule_missing"
    # the gateway's description of the request (R3 to R7)
    FORWARDED_MISSING = "forwarded_missing"
    FORWARDED_MALFORMED = "forwarded_malformed"
    FORWARDED_REPEATED = "forwarded_repeated"
    PATH_AMBIGUOUS = "path_ambiguous"
    # cannot decide
    ROUTE_UNKNOWN = "route_unknown"
    POLICY_UNKNOWN = "policy_unknown"
    POLICY_UNNAMED = "policy_unnamed"
    PEER_UNTRUSTED = "peer_untrusted"
    NO_KEYS = "no_keys"
    STALE = "stale"
    OVERLOADED = "overloaded"
    INTERNAL_ERROR = "internal_error"

    # Enum's own `__hash__` runs in Python, and a refusal is looked up several times.
    __hash__ = str.__hash__


class Denied(Exception):
    """The outcome of a check that does not pass. It holds the reason and nothing
    else.
    """

    # There is no `__init__`, which would cost as much as the raise.
    args: tuple[DenyReason]

    @property
    def reason(self) -> DenyReason:
        """The reason: the only argument."""
        return self.args[0]


class Refusal(NamedTuple):
    """The public form of a refusal.

    Attributes:
        status: 401, 403 or 503, nothing else.
        error: RFC 6750 error code; empty when the request had no credential (section
            3.1) and for 503, which does not concern the credential.
        description: `error_description`, one per code.
    """

    status: int
    error: str
    description: str


_NO_CREDENTIAL: Final = Refusal(401, "", "An access token is needed.")
_INVALID_REQUEST: Final = Refusal(
    # RFC 6750 asks for 400. nginx turns 400 into 500, so every dialect gets 401.
    401,
    "invalid_request",
    "The request or its credential is malformed.",
)
_INVALID_TOKEN: Final = Refusal(
    401, "invalid_token", "The access token is malformed, expired or revoked."
)
_INSUFFICIENT_SCOPE: Final = Refusal(
    403, "insufficient_scope", "The access token does not carry what this needs."
)
_INSUFFICIENT_AUTHENTICATION: Final = Refusal(
    # RFC 9470, section 3.
    401,
    "insufficient_user_authentication",
    "A more recent login is needed.",
)
#: Never 401: a client discards its token on 401, but the fault is ours (R38).
_CANNOT_DECIDE: Final = Refusal(503, "", "The gate cannot decide at the moment.")

#: The public form of each reason. A test checks that none is missing.
REFUSALS: Final[Mapping[DenyReason, Refusal]] = MappingProxyType(
    {
        DenyReason.CREDENTIAL_MISSING: _NO_CREDENTIAL,
        DenyReason.CREDENTIAL_MALFORMED: _INVALID_REQUEST,
        DenyReason.CREDENTIAL_REPEATED: _INVALID_REQUEST,
        DenyReason.TOKEN_TOO_LARGE: _INVALID_TOKEN,
        DenyReason.TOKEN_MALFORMED: _INVALID_TOKEN,
        DenyReason.HEADER_MALFORMED: _INVALID_TOKEN,
        DenyReason.HEADER_FORBIDDEN: _INVALID_TOKEN,
        DenyReason.ALG_NOT_ALLOWED: _INVALID_TOKEN,
        DenyReason.TYP_NOT_ALLOWED: _INVALID_TOKEN,
        DenyReason.KID_MISSING: _INVALID_TOKEN,
        DenyReason.KID_UNKNOWN: _INVALID_TOKEN,
        DenyReason.SIGNATURE_INVALID: _INVALID_TOKEN,
        DenyReason.CLAIMS_MALFORMED: _INVALID_TOKEN,
        DenyReason.CLAIM_MISSING: _INVALID_TOKEN,
        DenyReason.ISSUER_MISMATCH: _INVALID_TOKEN,
        DenyReason.AUDIENCE_MISMATCH: _INVALID_TOKEN,
        DenyReason.LIFETIME_TOO_LONG: _INVALID_TOKEN,
        DenyReason.EXPIRED: _INVALID_TOKEN,
        DenyReason.NOT_YET_VALID: _INVALID_TOKEN,
        DenyReason.REVOKED_JTI: _INVALID_TOKEN,
        DenyReason.REVOKED_SID: _INVALID_TOKEN,
        DenyReason.REVOKED_USER: _INVALID_TOKEN,
        DenyReason.REVOKED_CLIENT: _INVALID_TOKEN,
        DenyReason.REVOKED_KID: _INVALID_TOKEN,
        DenyReason.SCOPE_INSUFFICIENT: _INSUFFICIENT_SCOPE,
        DenyReason.ROLE_MISSING: _INSUFFICIENT_SCOPE,
        DenyReason.RULE_MISSING: _INSUFFICIENT_SCOPE,
        DenyReason.CLIENT_NOT_ALLOWED: _INSUFFICIENT_SCOPE,
        DenyReason.CLAIM_MISMATCH: _INSUFFICIENT_SCOPE,
        DenyReason.TOKEN_TOO_OLD: _INVALID_TOKEN,
        DenyReason.AUTHENTICATION_TOO_OLD: _INSUFFICIENT_AUTHENTICATION,
        DenyReason.FORWARDED_MISSING: _INVALID_REQUEST,
        DenyReason.FORWARDED_MALFORMED: _INVALID_REQUEST,
        DenyReason.FORWARDED_REPEATED: _INVALID_REQUEST,
        DenyReason.PATH_AMBIGUOUS: _INVALID_REQUEST,
        DenyReason.ROUTE_UNKNOWN: _CANNOT_DECIDE,
        DenyReason.POLICY_UNKNOWN: _CANNOT_DECIDE,
        DenyReason.POLICY_UNNAMED: _CANNOT_DECIDE,
        DenyReason.PEER_UNTRUSTED: _CANNOT_DECIDE,
        DenyReason.NO_KEYS: _CANNOT_DECIDE,
        DenyReason.STALE: _CANNOT_DECIDE,
        DenyReason.OVERLOADED: _CANNOT_DECIDE,
        DenyReason.INTERNAL_ERROR: _CANNOT_DECIDE,
    }
)
