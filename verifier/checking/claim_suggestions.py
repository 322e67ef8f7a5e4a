"""Suggests where a token has our facts, for the issuers file.

They are guesses by name and type. The operator decides, because a wrong claim gives
people roles that they do not have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from verifier.check.claims import ClaimPath

#: Of one fact.
_MAX_SUGGESTIONS: Final = 3
#: Names that are looked at, of a token's claims.
_MAX_NAMES: Final = 200


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_text_or_list(value: object) -> bool:
    return _is_text(value) or _is_list(value)


_TYPES: Final[Mapping[str, Callable[[object], bool]]] = MappingProxyType(
    {
        "client": _is_text,
        "scopes": _is_text_or_list,
        "roles": _is_list,
        "user": _is_text,
        "session": _is_text,
    }
)
#: docs/issuers/README.md has the providers.
_USUAL: Final[Mapping[str, tuple[ClaimPath, ...]]] = MappingProxyType(
    {
        "client": (("azp",), ("client_id",), ("cid",), ("appid",)),
        "scopes": (("scope",), ("scp",), ("permissions",)),
        "roles": (
            ("realm_access", "roles"),
            ("roles",),
            ("groups",),
            ("cognito:groups",),
            ("permissions",),
        ),
        "user": (
            ("preferred_username",),
            ("username",),
            ("upn",),
            ("unique_name",),
            ("user_login",),
            ("email",),
            ("actor",),
        ),
        "session": (("sid",), ("session_state",)),
    }
)


def suggest_paths(fact: str, payload: Mapping[str, Any]) -> list[ClaimPath]:
    """Return where a token may have a fact; the likeliest first, and a few at most.

    Args:
        fact: client, scopes, roles, user or session.
        payload: the claims of a token whose signature was verified.
    """
    paths = list(_USUAL[fact])
    if fact == "roles":
        paths += _further_roles(payload)
    fits = _TYPES[fact]
    return [path for path in paths if fits(find_claim(payload, path))][
        :_MAX_SUGGESTIONS
    ]


def _further_roles(payload: Mapping[str, Any]) -> Iterator[ClaimPath]:
    # Keycloak: the roles of each client.
    clients = payload.get("resource_access")
    if isinstance(clients, dict):
        for client in list(clients)[:_MAX_NAMES]:
            yield "resource_access", client, "roles"
    # Auth0: names of one's own begin with a URL.
    for name in list(payload)[:_MAX_NAMES]:
        if name.endswith(("/roles", "/groups")):
            yield (name,)


def find_claim(payload: Mapping[str, Any], path: ClaimPath) -> Any:
    """Return the value at a path; None where there is none."""
    found: Any = payload
    for name in path:
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def spell_path(path: ClaimPath) -> str:
    """Return a path as the issuers file has it."""
    names = [json.dumps(name, ensure_ascii=False) for name in path]
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"
