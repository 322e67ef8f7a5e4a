"""What each reason of a refusal means, and what to do about it.

`policy explain` and `policy test` print these sentences; docs/metrics.md has the same.
They are for operators. A client gets only the public form in `REFUSALS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from verifier.check.denials import DenyReason

#: One line for each reason. A test checks that none is missing.
MEANINGS: Final[Mapping[DenyReason, str]] = MappingProxyType(
    {
        DenyReason.CREDENTIAL_MISSING: (
            "The request has no Authorization header, and no public or optional rule "
            "matches it."
        ),
        DenyReason.CREDENTIAL_MALFORMED: (
            "The Authorization header is not `Bearer` and one token."
        ),
        DenyReason.CREDENTIAL_REPEATED: (
            "The request has two Authorization headers, or one with a comma."
        ),
        DenyReason.TOKEN_TOO_LARGE: "The token has more than 8,000 bytes.",
        DenyReason.TOKEN_MALFORMED: (
            "The credential is no JWT of three parts in base64url. A refresh token and "
            "a personal key are no access tokens."
        ),
        DenyReason.HEADER_MALFORMED: "The token's header is not a JSON object.",
        DenyReason.HEADER_FORBIDDEN: (
            "The token's header has a parameter that the verifier does not accept."
        ),
        DenyReason.ALG_NOT_ALLOWED: (
            "The token is signed with an algorithm that its issuer may not use: RS256 "
            "for our own, `algorithms` for others."
        ),
        DenyReason.TYP_NOT_ALLOWED: (
            "The token's `typ` is not `at+jwt` (RFC 9068), or for another issuer none "
            "of its `types`: it is no access token, or the policy's `issuers` does not "
            "name its issuer."
        ),
        DenyReason.KID_MISSING: "The token names no key, or its `kid` is too long.",
        DenyReason.KID_UNKNOWN: (
            "The token names a key that is not in the issuer's JWKS: it is from another "
            "issuer, or the key is gone."
        ),
        DenyReason.SIGNATURE_INVALID: (
            "The signature does not fit the token and the key: the token was changed or "
            "forged."
        ),
        DenyReason.CLAIMS_MALFORMED: (
            "A claim has the wrong type: roles must be a list of texts, scopes one "
            "text (a list too for other issuers), times seconds. Or the path of a "
            "fact leads through something else than objects."
        ),
        DenyReason.CLAIM_MISSING: (
            "The token lacks a claim that every access token has (RFC 9068), or for "
            "another issuer one of its `required_claims`."
        ),
        DenyReason.ISSUER_MISMATCH: (
            "The token's `iss` is that of no issuer of the policy, letter by letter: "
            "VERIFIER_ISSUER_URL, or `issuer` in the issuers file."
        ),
        DenyReason.AUDIENCE_MISMATCH: (
            "The token's `aud` is for another API. The policy's `audience` is needed, "
            "or VERIFIER_AUDIENCE where the policy names none; for another issuer its "
            "`audience`."
        ),
        DenyReason.LIFETIME_TOO_LONG: (
            "The time from the token's `iat` to its `exp` is longer than the verifier "
            "accepts: an hour, or the `max_lifetime` of another issuer."
        ),
        DenyReason.EXPIRED: (
            "The token's `exp` is over. The client needs a new token. If it is fresh, "
            "compare the clocks."
        ),
        DenyReason.NOT_YET_VALID: (
            "The token's `iat` or `nbf` is in the future. Compare the clocks of issuer "
            "and verifier."
        ),
        DenyReason.REVOKED_JTI: "This token was revoked.",
        DenyReason.REVOKED_SID: (
            "The token's session has ended, for example by a logout, or its personal key."
        ),
        DenyReason.REVOKED_USER: (
            "All earlier tokens of the user were revoked. A new login helps."
        ),
        DenyReason.REVOKED_CLIENT: "All earlier tokens of the client were revoked.",
        DenyReason.REVOKED_KID: "The key that signed the token was revoked.",
        DenyReason.SCOPE_INSUFFICIENT: (
            "The token lacks a scope that the policy or the rule needs. New scopes of a "
            "user need a new login."
        ),
        DenyReason.ROLE_MISSING: (
            "The token has none of the roles in `required_roles`."
        ),
        DenyReason.CLIENT_NOT_ALLOWED: ("The token's client is not in `client_ids`."),
        DenyReason.CLAIM_MISMATCH: (
            "A claim that `claims` names is missing or has another value. Text, numbers "
            "and true are different values."
        ),
        DenyReason.TOKEN_TOO_OLD: (
            "The token is older than `max_age`. The client needs a new one."
        ),
        DenyReason.AUTHENTICATION_TOO_OLD: (
            "The login is older than `max_auth_age`, or the token has none. The person "
            "must log in again."
        ),
        DenyReason.RULE_MISSING: (
            "The policy has rules, and none matches method, host and path. Add one, or a "
            "last rule with the path `/**`."
        ),
        DenyReason.FORWARDED_MISSING: (
            "The method or path of the client's request is not given, or its host where "
            "a rule names hosts. A gateway needs the lines of the shipped config, a case "
            "`host`, and a question `--host`."
        ),
        DenyReason.FORWARDED_MALFORMED: (
            "The method, path or host that the gateway sent cannot be read."
        ),
        DenyReason.FORWARDED_REPEATED: (
            "The gateway sent the method, path or host twice, or joined two values. Set "
            "each header once."
        ),
        DenyReason.PATH_AMBIGUOUS: (
            "Two programs could read the path differently: it has `..`, `//`, `%2f`, `;` "
            "or a character that must be escaped, or does not begin with `/`."
        ),
        DenyReason.ROUTE_UNKNOWN: (
            "The check path is not /verify/<dialect> or /verify/<dialect>/p/<policy>."
        ),
        DenyReason.POLICY_UNKNOWN: (
            "The check path names a policy that is not in the file in force. /status "
            "lists the names."
        ),
        DenyReason.POLICY_UNNAMED: (
            "Behind Envoy the check path must name the policy once there are rules or a "
            "second policy. Set path_prefix to /verify/envoy/p/<policy>."
        ),
        DenyReason.PEER_UNTRUSTED: (
            "The connection comes from an address that is not in VERIFIER_TRUSTED_PEERS."
        ),
        DenyReason.NO_KEYS: (
            "The verifier has no keys of the token's issuer, or they are older than "
            "VERIFIER_KEYS_MAX_AGE. /status has the error."
        ),
        DenyReason.STALE: (
            "The revocations are older than VERIFIER_MAX_STALENESS. /status has the "
            "error of the feed."
        ),
        DenyReason.OVERLOADED: (
            "There are more connections than VERIFIER_MAX_CONNECTIONS allows."
        ),
        DenyReason.INTERNAL_ERROR: (
            "A fault of the verifier. Its log has the traceback."
        ),
    }
)


def find_meaning(reason: str) -> str:
    """Return the sentences for a reason; empty for a word of another version."""
    return next((text for word, text in MEANINGS.items() if word == reason), "")
