"""Names that our filters and the configuration in `deploy/gateways/` share."""

from __future__ import annotations

from typing import Final

#: The resources with revocations, from the newest entries to the oldest. The first one
#: has the window, too.
RECENT: Final = "gatehouse.recent"
MIDDLE: Final = "gatehouse.middle"
SETTLED: Final = "gatehouse.settled"
REVOKED: Final = (RECENT, MIDDLE, SETTLED)
#: Followed by the name of a policy: the filter that checks tokens, and the one that
#: asks more of them.
JWT: Final = "gatehouse.jwt."
REQUIREMENTS: Final = "gatehouse.requirements."

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
INTERNAL: Final = {"x-gatehouse-jti": "jti", "x-gatehouse-gen": "gen"}

#: The names under which a request is refused, in Envoy's `response.code_details`. The
#: configuration turns them into answers.
REVOKED_NAME: Final = "gatehouse_revoked"
STALE_NAME: Final = "gatehouse_stale"
UNSOUND_NAME: Final = "gatehouse_unsound"
INSUFFICIENT_NAME: Final = "gatehouse_insufficient"

JWT_NAMESPACE: Final = "envoy.filters.http.jwt_authn"
#: Within that namespace: the token's header and its payload.
HEADER_KEY: Final = "h"
PAYLOAD_KEY: Final = "p"
