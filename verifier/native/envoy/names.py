"""Names that our filters and the configuration in `deploy/gateways/` share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: Followed by the name of a policy: the filter that checks signatures, and the one that
#: asks what else tokens have. That one has the window and the newest revocations, too.
JWT: Final = "gatehouse.jwt."
RECENT: Final = "gatehouse.recent."
#: The resource with all other revocations.
SETTLED: Final = "gatehouse.settled"

#: The identity headers that are read from claims, and the claims. Envoy sets each, or
#: removes it where the claim is missing.
IDENTITY: Final = {
    "x-auth-subject": "sub",
    "x-auth-user": "username",
    "x-auth-client": "client_id",
    "x-auth-scope": "scope",
    "x-auth-session": "sid",
}
#: Claims that our filters read and the application does not.
JTI_HEADER: Final = "x-gatehouse-jti"
GEN_HEADER: Final = "x-gatehouse-gen"
EXP_HEADER: Final = "x-gatehouse-exp"
INTERNAL: Final = {
    JTI_HEADER: "jti",
    GEN_HEADER: "gen",
    EXP_HEADER: "exp",
}
#: The time of the check in Unix seconds, which the configuration sets. Not that of the
#: first byte: a head that comes slowly could begin in the window and end after it.
NOW_HEADER: Final = "x-gatehouse-now"

#: The names under which a request is refused, in Envoy's `response.code_details`. The
#: configuration turns them into answers.
REVOKED_NAME: Final = "gatehouse_revoked"
STALE_NAME: Final = "gatehouse_stale"
UNSOUND_NAME: Final = "gatehouse_unsound"
INSUFFICIENT_NAME: Final = "gatehouse_insufficient"

JWT_NAMESPACE: Final = "envoy.filters.http.jwt_authn"
#: Within that namespace: the token's payload.
PAYLOAD_KEY: Final = "p"


def policies_in(names: Iterable[str], prefix: str = JWT) -> set[str]:
    """Return the policies whose filters are among these names.

    Args:
        names: of filters that an Envoy asks for.
        prefix: of the names of one of the two filters that a policy has.
    """
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def missing_names(names: Iterable[str]) -> set[str]:
    """Return what an Envoy has to ask for besides; empty when that is all.

    A filter is worth nothing without the others.
    """
    asked = set(names)
    tokens, recent = policies_in(asked), policies_in(asked, RECENT)
    missing = {SETTLED} - asked
    missing |= {f"{JWT}{policy}" for policy in recent - tokens}
    missing |= {f"{RECENT}{policy}" for policy in tokens - recent}
    return missing or (set() if tokens else {f"{JWT}POLICY"})
