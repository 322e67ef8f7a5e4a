"""The OAuth endpoints in the OpenAPI document: parameters and examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_TOKEN: Final = (
    "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6IiJ9.e30.c2ln"  # noqa: S105
)
_REFRESH_TOKEN: Final = "ghr_AQ..."  # noqa: S105
_CLIENT: Final = {
    "client_id": "Left out where HTTP Basic is used; `gatehouse` is the first party.",
    "client_secret": "Left out where HTTP Basic is used.",
}


def _describe_form(
    required: Mapping[str, str],
    optional: Mapping[str, str],
    examples: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    members = {**required, **optional, **_CLIENT}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "required": list(required),
                        "properties": {
                            name: {"type": "string", "description": description}
                            for name, description in members.items()
                        },
                    },
                    "examples": _name_examples(examples),
                }
            },
        }
    }


def _name_examples(examples: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: {"summary": name, "value": dict(value)}
        for name, value in examples.items()
    }


TOKEN_BODY: Final = _describe_form(
    {"grant_type": "What is shown, see the examples."},
    {
        "scope": "The part of what may be granted that is wanted.",
        "resource": "The audience that is wanted (RFC 8707), or `audience`.",
        "audience": "The audience that is wanted (RFC 8693), or `resource`.",
        "refresh_token": "With `refresh_token`.",
        "subject_token": "With token exchange: a personal key.",
        "subject_token_type": "`urn:gatehouse:token-type:personal-key`",
        "requested_token_type": "`urn:ietf:params:oauth:token-type:access_token`",
        "username": "With `password`, which is off unless a setting says otherwise.",
        "password": "As `username`.",
    },
    {
        "a client for itself": {
            "grant_type": "client_credentials",
            "scope": "orders:read",
        },
        "a session that goes on": {
            "grant_type": "refresh_token",
            "refresh_token": _REFRESH_TOKEN,
            "client_id": "gatehouse",
        },
        "a personal key": {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": "ghk_...",
            "subject_token_type": "urn:gatehouse:token-type:personal-key",
        },
    },
)
_GRANTED: Final[dict[str, Any]] = {
    "access_token": _TOKEN,
    "token_type": "Bearer",
    "expires_in": 600,
    "scope": "orders:read",
}
TOKEN_EXAMPLES: Final[dict[str, Any]] = {
    "application/json": {
        "examples": _name_examples(
            {
                "a client for itself": _GRANTED,
                "a session that goes on": {
                    **_GRANTED,
                    "refresh_token": _REFRESH_TOKEN,
                },
                "a personal key": {
                    **_GRANTED,
                    "issued_token_type": (
                        "urn:ietf:params:oauth:token-type:access_token"
                    ),
                },
            }
        )
    }
}
_TOKEN_PARAMETER: Final = {"token": "The token, of whatever kind."}
_HINT: Final = {"token_type_hint": "Not needed, and a wrong one does no harm."}
REVOKE_BODY: Final = _describe_form(
    _TOKEN_PARAMETER,
    _HINT,
    {
        "a refresh token": {"token": _REFRESH_TOKEN, "client_id": "gatehouse"},
        "a personal key": {"token": "ghk_..."},
        "an access token got for a personal key": {"token": _TOKEN},
    },
)
INTROSPECT_BODY: Final = _describe_form(
    _TOKEN_PARAMETER, _HINT, {"an access token": {"token": _TOKEN}}
)
INTROSPECT_EXAMPLES: Final[dict[str, Any]] = {
    "application/json": {
        "examples": _name_examples(
            {
                "it counts": {
                    "active": True,
                    "token_type": "Bearer",
                    "iss": "https://issuer.example",
                    "sub": "gc_5e5b2f0f3c9c4d0e8f6f0a3a4f3f9b51",
                    "aud": "https://api.example",
                    "exp": 1795397433,
                    "iat": 1795396833,
                    "jti": "0b9c8f7e-3a52-4a3b-9a11-1f8a3f0a2f60",
                    "client_id": "gc_5e5b2f0f3c9c4d0e8f6f0a3a4f3f9b51",
                    "scope": "orders:read",
                },
                "it does not, or one may not know": {"active": False},
            }
        )
    }
}
