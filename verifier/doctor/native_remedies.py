"""The lines that close a hole of a gateway that checks tokens by itself.

What `python -m verifier native` writes into the gateway is no part of its config. There
the lines name what the gateway takes from it. No such gateway has decision ids.
"""

from __future__ import annotations

from typing import Final

_JWT: Final = "- name: gatehouse.jwt.default"
_CLOSED: Final = (
    "- name: gatehouse.recent.default",
    "gatehouse_stale: { permissions: [{ any: true }], principals: [{ any: true }] }",
    'header: { key: x-gatehouse-now, value: "%EMIT_TIME(%s)%" }',
)
_PREFIX: Final = (
    "- remove_on_match: { key_matcher: { prefix: x-auth-, ignore_case: true } }"
)

ENVOY_NATIVE: Final = {
    "open": (_JWT, "- name: gatehouse.recent.default"),
    "open-path": (
        _JWT,
        "normalize_path: true",
        "path_with_escaped_slashes_action: REJECT_REQUEST",
    ),
    "open-method": (_JWT, "- name: gatehouse.recent.default"),
    "open-upgrade": (_JWT, "- name: gatehouse.recent.default"),
    "fail-open": _CLOSED,
    "unavailable": (
        'expression: response.code_details.startsWith("rbac_access_denied")',
        '- header: { key: retry-after, value: "5" }',
    ),
    "identity": (_PREFIX,),
    "identity-alias": (
        "headers_with_underscores_action: DROP_HEADER",
        '- remove_on_match: { key_matcher: { safe_regex: { regex: ".*[^a-z0-9:_-].*" } } }',
    ),
    "identity-lost": (
        _JWT,
        '- append: { header: { key: x-auth-user, value: "" }, '
        "append_action: ADD_IF_ABSENT, keep_empty_value: true }",
        "- append: { header: { key: x-auth-decision, value: allow }, "
        "append_action: OVERWRITE_IF_EXISTS_OR_ADD }",
    ),
    "foreign-identity": (_PREFIX, "- remove: remote-user"),
    "forwarding": ("use_remote_address: true", "- remove: x-original-url"),
    "changed": ("normalize_path: true", "merge_slashes: true"),
    "token-shared": ("- remove: authorization",),
    "upgrade": ("- upgrade_type: websocket",),
    "tunnel": ("- upgrade_type: websocket",),
    "refused": (_JWT, "- name: gatehouse.recent.default"),
    "refusal": (
        "expression: response.code_details.startsWith("
        '"jwt_authn_access_denied{Jwt_is_missing")',
        "- header: { key: www-authenticate, value: 'Bearer realm=\"gatehouse\"' }",
        '- header: { key: www-authenticate, value: \'Bearer realm="gatehouse", '
        'error="invalid_token"\' }',
    ),
}

#: Takes the rules of a policy, which come before those of the frontend.
_FRONTEND: Final = "frontend gateway from gatehouse-default"
_OTHER_NAMES: Final = (
    r"http-request del-header ^((x[^a-z0-9])?(remote[^a-z0-9]user$"
    r"|forwarded([^a-z0-9]|$))|x[^a-z0-9]((real[^a-z0-9]ip|request[^a-z0-9]id)$"
    r"|(original|rewrite)([^a-z0-9]|$))) -m reg"
)

HAPROXY_NATIVE: Final = {
    "open": (_FRONTEND,),
    "open-path": (_FRONTEND,),
    "open-method": (_FRONTEND,),
    "open-upgrade": (_FRONTEND,),
    "fail-open": (_FRONTEND,),
    "unavailable": (_FRONTEND,),
    "identity": (_FRONTEND,),
    "identity-alias": (_FRONTEND,),
    "identity-lost": (_FRONTEND, "http-request del-header connection"),
    "foreign-identity": (_FRONTEND, _OTHER_NAMES),
    "forwarding": (_OTHER_NAMES, "http-request set-header X-Forwarded-For   %[src]"),
    "changed": ("http-request set-uri %[pathq] if { pathq -m found }",),
    "token-shared": ("http-request del-header authorization",),
    "upgrade": (
        "http-request del-header upgrade unless one_protocol websocket",
        "http-request del-header http2-settings",
    ),
    "tunnel": ("http-request return status 405 if METH_CONNECT",),
    "refused": (_FRONTEND,),
    "refusal": (_FRONTEND,),
}
