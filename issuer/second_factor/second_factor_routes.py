"""`/auth/second-factor` and the second step of `/auth/login`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from issuer.feed.change_requests import AdminChange
from issuer.http.authorization.authentication import Authenticated
from issuer.http.callers import caller_of
from issuer.http.dependencies import PartOf
from issuer.http.strict_json import StrictRoute
from issuer.login.login_routes import LoginAnswer
from issuer.login.second_factor_login import SecondFactorLogin
from issuer.second_factor.second_factor import SecondFactors
from issuer.sessions.answers import StrictBody, forbid_storing


class ChallengeBody(StrictBody):
    """A login's `mfa_token`, and six digits of the app or a recovery code.

    `device_token` is what an earlier login on this device was answered. `scope` asks
    for a part of the scope that the first step asked for.
    """

    mfa_token: str
    code: str
    device_token: str | None = None
    scope: str | None = None


class PasswordBody(StrictBody):
    """The password there is."""

    password: str


class CodeBody(StrictBody):
    """Six digits of the app."""

    code: str


class ProofBody(StrictBody):
    """The password, and six digits of the app or a recovery code."""

    password: str
    code: str


class FactorAnswer(BaseModel):
    """`enrolled_at` is in Unix seconds; null: there is no second factor."""

    enrolled_at: int | None
    recovery_codes_left: int


class EnrolmentAnswer(BaseModel):
    """What an authenticator app needs, shown this once; `expires_in` is in seconds.

    `otpauth_uri` is for a QR code that your page draws itself.
    """

    secret: str
    otpauth_uri: str
    expires_in: int


class RecoveryCodesAnswer(BaseModel):
    """Codes for the day the device is lost, shown this once; each is good once."""

    recovery_codes: list[str]


router = APIRouter(route_class=StrictRoute, tags=["second factor"])
_SecondFactors = Annotated[SecondFactors, Depends(PartOf(SecondFactors))]
_SecondFactorLogin = Annotated[SecondFactorLogin, Depends(PartOf(SecondFactorLogin))]


@router.post(
    "/auth/login/second-factor",
    summary="End a login with a second factor",
    response_model_exclude_none=True,
)
async def end_login(
    body: ChallengeBody, request: Request, response: Response, login: _SecondFactorLogin
) -> LoginAnswer:
    """Answer the tokens of a new session."""
    done = await login.log_in(
        body.mfa_token,
        body.code,
        caller_of(request),
        device_token=body.device_token,
        scope=body.scope,
    )
    forbid_storing(response)
    return LoginAnswer.of_login(done)


@router.get("/auth/second-factor", summary="Show one's second factor")
async def show(principal: Authenticated, factors: _SecondFactors) -> FactorAnswer:
    """Answer whether there is one, and how many recovery codes are left."""
    status = await factors.show(principal)
    return FactorAnswer(
        enrolled_at=status.enrolled_at,
        recovery_codes_left=status.recovery_codes_left,
    )


@router.post("/auth/second-factor/enrolment", summary="Enrol a second factor")
async def enrol(
    body: PasswordBody,
    request: Request,
    response: Response,
    principal: Authenticated,
    factors: _SecondFactors,
) -> EnrolmentAnswer:
    """Answer a new secret, which counts once a first code has confirmed it."""
    made = await factors.enrol(principal, body.password, caller_of(request))
    forbid_storing(response)
    return EnrolmentAnswer(
        secret=made.secret,
        otpauth_uri=made.otpauth_uri,
        expires_in=made.expires_in,
    )


@router.post(
    "/auth/second-factor/confirmation",
    summary="Switch one's second factor on",
    responses={404: {"description": "No enrolment was begun."}},
)
async def confirm(
    body: CodeBody,
    request: Request,
    response: Response,
    principal: Authenticated,
    factors: _SecondFactors,
) -> RecoveryCodesAnswer:
    """Answer the recovery codes; from now on a login needs a code."""
    codes = await factors.confirm(principal, body.code, caller_of(request))
    forbid_storing(response)
    return RecoveryCodesAnswer(recovery_codes=list(codes))


@router.post(
    "/auth/second-factor/recovery-codes", summary="Replace one's recovery codes"
)
async def replace_codes(
    body: ProofBody,
    request: Request,
    response: Response,
    principal: Authenticated,
    factors: _SecondFactors,
) -> RecoveryCodesAnswer:
    """Answer new recovery codes; the old ones are void."""
    codes = await factors.replace_recovery_codes(
        principal, body.password, body.code, caller_of(request)
    )
    forbid_storing(response)
    return RecoveryCodesAnswer(recovery_codes=list(codes))


@router.post(
    "/auth/second-factor/removal",
    status_code=204,
    summary="Switch one's second factor off",
)
async def remove(
    body: ProofBody, request: Request, principal: Authenticated, factors: _SecondFactors
) -> None:
    """Remove it; a login needs the password alone."""
    await factors.remove(principal, body.password, body.code, caller_of(request))


@router.delete(
    "/users/{user_id}/second-factor",
    status_code=204,
    summary="Switch a user's second factor off",
)
async def reset(user_id: UUID, change: AdminChange, factors: _SecondFactors) -> None:
    """Remove it for a user who lost the device and the codes."""
    await factors.reset(str(user_id), change.caller, actor=change.actor)
