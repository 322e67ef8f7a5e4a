"""The errors of the issuer, without HTTP.

Only `error_responses.py` turns them into answers. `description` is for the client and
never has a secret or an input's value; `detail` is for the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class FieldProblem(NamedTuple):
    """A field of the input, and the rule that it breaks."""

    field: str
    rule: str


class IssuerError(Exception):
    """Base of all errors below.

    Attributes:
        code: one stable machine word.
        description: a sentence for the client, printable ASCII without `"` and `\\`
            (RFC 6749, section 5.2).
        detail: a sentence for the log, never sent.
    """

    code = "server_error"
    default_description = "The request could not be handled."

    def __init__(self, description: str | None = None, *, detail: str = "") -> None:
        self.description = description or self.default_description
        self.detail = detail
        super().__init__(self.description)


class InvalidRequestError(IssuerError):
    """The input breaks a rule; `problems` names each field and its rule."""

    code = "invalid_request"
    default_description = "The request is malformed."

    def __init__(
        self,
        description: str | None = None,
        *,
        problems: Sequence[FieldProblem] = (),
        detail: str = "",
    ) -> None:
        super().__init__(description, detail=detail)
        self.problems = tuple(problems)

    @classmethod
    def of_field(cls, field: str, rule: str) -> InvalidRequestError:
        """Return the error for one field and the rule that it breaks."""
        return cls(problems=[FieldProblem(field, rule)])


class PayloadTooLargeError(IssuerError):
    """The body is over the limit."""

    code = "payload_too_large"
    default_description = "The body is larger than this endpoint takes."


class UnsupportedMediaTypeError(IssuerError):
    """The body is not of the media type this endpoint takes."""

    code = "unsupported_media_type"
    default_description = "The body is not of the media type this endpoint takes."


class InvalidCredentialsError(IssuerError):
    """A login failed; the answer is the same for every cause (requirement R32)."""

    code = "invalid_credentials"
    default_description = "The user name or the password is wrong."


class InvalidSecondFactorError(InvalidCredentialsError):
    """A code of a second factor is wrong or spent."""

    code = "invalid_second_factor"
    default_description = "The code is wrong or was used before."


class SecondFactorRequiredError(IssuerError):
    """The password is right; a code with `mfa_token` must follow in `expires_in`
    seconds.
    """

    code = "mfa_required"
    default_description = "A code of the second factor is needed."

    def __init__(self, mfa_token: str, expires_in: int) -> None:
        super().__init__()
        self.mfa_token = mfa_token
        self.expires_in = expires_in


class UnauthenticatedError(IssuerError):
    """There is no valid access token (RFC 6750, section 3.1)."""

    code = "invalid_token"
    default_description = "The access token is missing, expired, revoked or malformed."

    def __init__(
        self,
        description: str | None = None,
        *,
        detail: str = "",
        is_missing: bool = False,
    ) -> None:
        super().__init__(description, detail=detail)
        #: Whether there is no credential: then the answer has no error code
        #: (RFC 6750, section 3.1).
        self.is_missing = is_missing


class InsufficientAuthenticationError(IssuerError):
    """The token has the scope, but another login is needed (RFC 9470).

    Attributes:
        acr: the required class of login; None: any.
        max_age: the most seconds since the login; None: any.
    """

    code = "insufficient_user_authentication"
    default_description = (
        "Log in again for this: it needs a more recent login, or one with a second "
        "factor."
    )

    def __init__(self, acr: str | None, max_age: int | None) -> None:
        super().__init__()
        self.acr = acr
        self.max_age = max_age


class ForbiddenError(IssuerError):
    """The caller is authenticated, but has no permission."""

    code = "insufficient_scope"
    default_description = "The access token does not carry the scope this needs."


class NotFoundError(IssuerError):
    """The resource does not exist, or the caller must not learn that it does."""

    code = "not_found"
    default_description = "There is nothing under this name."


class ConflictError(IssuerError):
    """The present state does not allow it: a name is taken, a position is unknown."""

    code = "conflict"
    default_description = "The present state does not allow this."


class LastAdministratorError(ConflictError):
    """No administrator who can log in would be left."""

    code = "last_administrator"
    default_description = (
        "This is the last administrator: make another one first, enabled and with a "
        "password."
    )


class RoleInUseError(ConflictError):
    """A role with holders cannot be deleted."""

    code = "role_in_use"
    default_description = "Users hold this role: take it from them first."


class PreconditionFailedError(IssuerError):
    """The resource has another state than the caller expects (RFC 9110, 13.1.1)."""

    code = "precondition_failed"
    default_description = (
        "It was changed since it was read: read it again, then send its new ETag."
    )


class PreconditionRequiredError(IssuerError):
    """A change needs `If-Match` (RFC 6585, section 3)."""

    code = "precondition_required"
    default_description = "Send If-Match with the ETag of what is to be changed."


class TooManyRequestsError(IssuerError):
    """The caller must wait `retry_after` seconds."""

    code = "too_many_requests"
    default_description = "Too many attempts."

    def __init__(self, retry_after: int, description: str | None = None) -> None:
        super().__init__(description)
        self.retry_after = retry_after


class UnavailableError(IssuerError):
    """A dependency is away; the caller may retry (requirement R38)."""

    code = "temporarily_unavailable"
    default_description = "The service cannot answer at the moment."

    def __init__(
        self, retry_after: int = 1, description: str | None = None, *, detail: str = ""
    ) -> None:
        super().__init__(description, detail=detail)
        self.retry_after = retry_after


class DatabaseTroubleError(UnavailableError):
    """The database cannot be used.

    `detail` names the setting, the address without credentials and the next step.
    """


class DatabaseAwayError(DatabaseTroubleError):
    """The database is away, or did not answer in time."""


class DatabaseRefusesWritesError(DatabaseTroubleError):
    """The database refuses writes: it is read-only, or its disk is full."""


class DatabaseConflictError(DatabaseTroubleError):
    """The database rolled a transaction back in favour of another one.

    The cause is a deadlock or a failed serialisation. Nothing of the transaction was
    done, and a second attempt may succeed.
    """


class OverloadedError(UnavailableError):
    """There are more concurrent requests than places.

    They are counted and not logged, so that a flood of requests does not fill the log.
    """

    def __init__(self) -> None:
        super().__init__(2)


# --- RFC 6749, section 5.2 ---------------------------------------------------------


class InvalidGrantError(IssuerError):
    """The refresh token is unknown, expired, revoked, reused or another client's."""

    code = "invalid_grant"
    default_description = "The grant is invalid, expired or revoked."


class ReuseDetectedError(InvalidGrantError):
    """A spent refresh token was presented; its family is revoked and committed."""


class InvalidClientError(IssuerError):
    """The client did not authenticate."""

    code = "invalid_client"
    default_description = "Client authentication failed."


class UnauthorizedClientError(IssuerError):
    """The client may not use this grant."""

    code = "unauthorized_client"
    default_description = "The client may not use this grant type."


class UnsupportedGrantTypeError(IssuerError):
    """The grant type is unknown or switched off."""

    code = "unsupported_grant_type"
    default_description = "The grant type is not supported."


class InvalidTargetError(IssuerError):
    """An audience is unknown, malformed or not the client's (RFC 8707, section 2)."""

    code = "invalid_target"
    default_description = "The client may have no token for this audience."


class InvalidScopeError(IssuerError):
    """A scope is unknown, malformed or more than was granted."""

    code = "invalid_scope"
    default_description = "The scope is unknown, malformed or exceeds what was granted."
