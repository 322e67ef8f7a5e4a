"""The lines of each gateway's config that close a hole.

Each is a line of the configs that ship with Gatehouse; a test compares. `python -m
verifier configs` writes those configs out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier.doctor.native_remedies import ENVOY_NATIVE, HAPROXY_NATIVE

#: What `Server` says, by the beginning of its value in lower case.
_SERVERS: Final = {
    "nginx": "nginx",
    "envoy": "envoy",
    "caddy": "caddy",
    "apache": "apache",
}

_NGINX: Final = {
    "open": (
        "auth_request /_gatehouse;",
        "proxy_pass http://$gatehouse_allowed_app;",
    ),
    "open-path": ("location / {", "auth_request /_gatehouse;"),
    "open-method": ("auth_request /_gatehouse;",),
    "open-upgrade": ("auth_request /_gatehouse;",),
    "fail-open": (
        "auth_request /_gatehouse;",
        "error_page 500 = @gatehouse_unavailable;",
    ),
    "unavailable": (
        "error_page 500 = @gatehouse_unavailable;",
        "add_header Retry-After $gatehouse_retry_after_or_5 always;",
    ),
    "identity": ("proxy_set_header X-Auth-Subject  $gatehouse_subject;",),
    "identity-alias": ("underscores_in_headers off;", "ignore_invalid_headers on;"),
    "identity-lost": (
        "auth_request_set $gatehouse_subject     $upstream_http_x_auth_subject;",
        "proxy_set_header X-Auth-Subject  $gatehouse_subject;",
    ),
    "foreign-identity": (
        'proxy_set_header X-Auth-Admin                      "";',
        'proxy_set_header Remote-User                       "";',
    ),
    "forwarding": (
        "proxy_set_header X-Forwarded-For    $remote_addr;",
        'proxy_set_header X-Original-URL     "";',
    ),
    "changed": ("proxy_pass http://$gatehouse_allowed_app;",),
    "token-shared": ('proxy_set_header Authorization "";',),
    "upgrade": (
        "proxy_set_header Upgrade        $gatehouse_upgrade;",
        'proxy_set_header HTTP2-Settings "";',
    ),
    "tunnel": ("proxy_pass http://$gatehouse_allowed_app;",),
    "refused": ("proxy_set_header Authorization     $http_authorization;",),
    "refusal": (
        "error_page 403 = @gatehouse_forbidden;",
        "proxy_pass http://gatehouse_verifier/verify/nginx;",
    ),
    "decision-id": ("add_header X-Auth-Decision-Id $gatehouse_decision_id always;",),
}
_ENVOY: Final = {
    "open": (
        "- name: envoy.filters.http.ext_authz",
        "- name: envoy.filters.http.rbac",
    ),
    "open-path": (
        "normalize_path: true",
        "path_with_escaped_slashes_action: REJECT_REQUEST",
    ),
    "open-method": ("- name: envoy.filters.http.ext_authz",),
    "open-upgrade": ("- name: envoy.filters.http.ext_authz",),
    "fail-open": ("failure_mode_allow: false",),
    "unavailable": (
        "status_on_error: { code: ServiceUnavailable }",
        '- header: { key: retry-after, value: "5" }',
    ),
    "identity": (
        "- remove_on_match: { key_matcher: { prefix: x-auth-, ignore_case: true } }",
    ),
    "identity-alias": (
        "headers_with_underscores_action: DROP_HEADER",
        "- remove_on_match: { key_matcher: { safe_regex: "
        '{ regex: ".*[^a-z0-9:_-].*" } } }',
    ),
    "identity-lost": ("patterns: [{ prefix: x-auth-, ignore_case: true }]",),
    "foreign-identity": (
        "- remove_on_match: { key_matcher: { prefix: x-auth-, ignore_case: true } }",
        "- remove: remote-user",
    ),
    "forwarding": ("use_remote_address: true", "- remove: x-original-url"),
    "changed": ("normalize_path: true", "merge_slashes: true"),
    "token-shared": ("- remove: authorization",),
    "upgrade": ("- upgrade_type: websocket",),
    "tunnel": ("- upgrade_type: websocket",),
    "refused": ("path_prefix: /verify/envoy/p/default",),
    "refusal": ("path_prefix: /verify/envoy/p/default",),
    "decision-id": ("- { exact: x-auth-decision-id, ignore_case: true }",),
}
# The verifier's answer replaces identity headers and removes the token, so no line of
# the config does. Envoy does not say by which dialect it asks.
_ENVOY_GRPC: Final = {
    **_ENVOY,
    "open": ("- name: envoy.filters.http.ext_authz",),
    "identity-lost": ("envoy_grpc: { cluster_name: gatehouse_verifier }",),
    "token-shared": ("envoy_grpc: { cluster_name: gatehouse_verifier }",),
    "refused": (
        "- { exact: authorization, ignore_case: true }",
        "context_extensions: { policy: default }",
    ),
    "refusal": ("context_extensions: { policy: default }",),
    "decision-id": ("envoy_grpc: { cluster_name: gatehouse_verifier }",),
}
_HAPROXY: Final = {
    "open": (
        "http-request lua.gatehouse_check abns@gatehouse-8080 /verify/haproxy",
        "http-request return status 503 hdr Retry-After 5 unless "
        "{ var(txn.gatehouse) -m str allow }",
    ),
    "open-path": (
        "http-request lua.gatehouse_check abns@gatehouse-8080 /verify/haproxy",
    ),
    "open-method": (
        "http-request lua.gatehouse_check abns@gatehouse-8080 /verify/haproxy",
    ),
    "open-upgrade": (
        "http-request lua.gatehouse_check abns@gatehouse-8080 /verify/haproxy",
    ),
    "fail-open": (
        "http-request return status 503 hdr Retry-After 5 unless "
        "{ var(txn.gatehouse) -m str allow }",
    ),
    "unavailable": (
        "http-request return status 503 hdr Retry-After 5 unless "
        "{ var(txn.gatehouse) -m str allow }",
    ),
    "identity": (r"http-request del-header ^x[^a-z0-9]auth([^a-z0-9]|$) -m reg",),
    "identity-alias": (r"http-request del-header ^x[^a-z0-9]auth([^a-z0-9]|$) -m reg",),
    "identity-lost": ("lua-load-per-thread gatehouse.lua",),
    "foreign-identity": (
        r"http-request del-header ^x[^a-z0-9]auth([^a-z0-9]|$) -m reg",
        r"http-request del-header ^(x[^a-z0-9])?remote[^a-z0-9]user$ -m reg",
        r"http-request del-header ^(x[^a-z0-9])?forwarded([^a-z0-9]|$) -m reg",
    ),
    "forwarding": (
        r"http-request del-header ^(x[^a-z0-9])?forwarded([^a-z0-9]|$) -m reg",
        r"http-request del-header ^x[^a-z0-9](original|rewrite)([^a-z0-9]|$) -m reg",
        "http-request set-header X-Forwarded-For   %[src]",
    ),
    "changed": ("http-request set-uri %[pathq] if { pathq -m found }",),
    "token-shared": ("http-request del-header authorization",),
    "upgrade": (
        "http-request del-header upgrade unless one_protocol websocket",
        "http-request del-header http2-settings",
    ),
    "tunnel": ("http-request return status 405 if METH_CONNECT",),
    "refused": (
        "http-request lua.gatehouse_check abns@gatehouse-8080 /verify/haproxy",
    ),
    "refusal": (
        "http-request lua.gatehouse_check abns@gatehouse-8080 /verify/haproxy",
    ),
    "decision-id": ("lua-load-per-thread gatehouse.lua",),
}
_CADDY: Final = {
    "open": (
        "import gatehouse_check",
        "error @unchecked 503",
        "header X-Auth-Decision allow*",
    ),
    "open-path": ("import gatehouse_check", "error @unchecked 503"),
    "open-method": ("import gatehouse_check", "error @unchecked 503"),
    "open-upgrade": ("import gatehouse_check", "error @unchecked 503"),
    "fail-open": ("reverse_proxy @anonymous {", "error @unchecked 503"),
    "unavailable": (
        "response_header_timeout 1s",
        "header @undecided Retry-After 5",
        "respond @undecided 503",
    ),
    "identity": ("route {", "request_header -X-Auth-*"),
    "identity-alias": ("request_header -*_*", "request_header -*.*"),
    "identity-lost": (
        "route {",
        "request_header X-Auth-Subject {rp.header.X-Auth-Subject}",
    ),
    "foreign-identity": (
        "request_header -X-Auth-*",
        "request_header -Remote-User",
        "request_header -X-Forwarded-*",
    ),
    "forwarding": (
        "request_header -X-Forwarded-*",
        "request_header -X-Original-*",
        "request_header X-Real-IP {remote_host}",
    ),
    "changed": ("reverse_proxy 127.0.0.1:8081 {",),
    "token-shared": ("request_header -Authorization",),
    "upgrade": ("request_header @other -Upgrade", "request_header -HTTP2-Settings"),
    "tunnel": ("@tunnel method CONNECT", "respond @tunnel 405"),
    "refused": ("header_up Authorization {header.Authorization}",),
    "refusal": ("rewrite /verify/caddy?", "copy_response"),
    "decision-id": ("copy_response",),
}
_TRAEFIK: Final = {
    "open": (
        "middlewares: [no-upgrade, gatehouse]",
        "middlewares: [check, decided, token-stays-at-the-gate]",
    ),
    "open-path": (
        "middlewares: [no-upgrade, gatehouse]",
        "allowEncodedSlash: false",
    ),
    "open-method": ("middlewares: [no-upgrade, gatehouse]",),
    "open-upgrade": ("middlewares: [gatehouse]",),
    "fail-open": ("middlewares: [no-upgrade, gatehouse]",),
    "unavailable": ("middlewares: [away]", 'Retry-After: "5"'),
    "identity": ("authResponseHeaders:", "- X-Auth-Subject"),
    "identity-alias": (
        "aliasHeadersStrategy: delete",
        'authResponseHeadersRegex: "(?i)^(x[^a-z0-9]auth([^a-z0-9]|$)\\',
    ),
    "identity-lost": ("authResponseHeaders:", "- X-Auth-Subject"),
    "foreign-identity": (
        'authResponseHeadersRegex: "(?i)^(x[^a-z0-9]auth([^a-z0-9]|$)\\',
        "|(x[^a-z0-9])?remote[^a-z0-9]user$\\",
    ),
    "forwarding": (
        "trustForwardHeader: false",
        'authResponseHeadersRegex: "(?i)^(x[^a-z0-9]auth([^a-z0-9]|$)\\',
        r'|x[^a-z0-9](original|rewrite)([^a-z0-9]|$))"',
    ),
    "changed": ("allowEncodedSlash: false", "allowEncodedBackSlash: false"),
    "token-shared": ("middlewares: [check, decided, token-stays-at-the-gate]",),
    "upgrade": ('Upgrade: ""', 'HTTP2-Settings: ""'),
    "tunnel": ('rule: "!Method(`CONNECT`)"',),
    "refused": ("authRequestHeaders:", "- Authorization"),
    "refusal": ("address: http://127.0.0.1:8084/verify/traefik",),
    "decision-id": ("address: http://127.0.0.1:8084/verify/traefik",),
}
_APACHE: Final = {
    "open": ("LuaHookAccessChecker gatehouse.lua gatehouse", "Require env gatehouse"),
    "open-path": ('<Location "/">', "LuaHookAccessChecker gatehouse.lua gatehouse"),
    "open-method": ('<Location "/">', "LuaHookAccessChecker gatehouse.lua gatehouse"),
    "open-upgrade": ('<Location "/">', "LuaHookAccessChecker gatehouse.lua gatehouse"),
    "fail-open": ("Require env gatehouse",),
    "unavailable": (
        "LuaHookAccessChecker gatehouse.lua gatehouse",
        "local CONNECT_TIME, ANSWER_TIME = 0.2, 1",
    ),
    "identity": ('local PREFIXES = { "x-auth-", "x-forwarded-", "x-original-" }',),
    "identity-alias": ('if NAMES[name] or name:find("[^a-z0-9-]") then',),
    "identity-lost": ("r.headers_in[name] = headers[name:lower()]",),
    "foreign-identity": (
        'local PREFIXES = { "x-auth-", "x-forwarded-", "x-original-" }',
        '["remote-user"] = true, ["x-remote-user"] = true, ["forwarded"] = true,',
    ),
    "forwarding": (
        'local PREFIXES = { "x-auth-", "x-forwarded-", "x-original-" }',
        "ProxyAddHeaders Off",
    ),
    "changed": (
        "AllowEncodedSlashes NoDecode",
        'ProxyPass "/" "http://127.0.0.1:8081/" nocanon upgrade=websocket '
        "flushpackets=on disablereuse=on retry=0",
    ),
    "token-shared": ('r.headers_in["Authorization"] = nil',),
    "upgrade": ('r.headers_in["Upgrade"] = nil',),
    "tunnel": (
        'ProxyPass "/" "http://127.0.0.1:8081/" nocanon upgrade=websocket '
        "flushpackets=on disablereuse=on retry=0",
    ),
    "refused": ("LuaHookAccessChecker gatehouse.lua gatehouse",),
    "refusal": ("LuaHookAccessChecker gatehouse.lua gatehouse",),
    "decision-id": ("LuaHookAccessChecker gatehouse.lua gatehouse",),
}

#: Lines by gateway, then by hole; every gateway has every hole that it can have.
REMEDIES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "nginx": _NGINX,
    "envoy": _ENVOY,
    "envoy-grpc": _ENVOY_GRPC,
    "haproxy": _HAPROXY,
    "caddy": _CADDY,
    "traefik": _TRAEFIK,
    "apache": _APACHE,
    "envoy-native": ENVOY_NATIVE,
    "haproxy-native": HAPROXY_NATIVE,
}
KINDS: Final = tuple(REMEDIES)


def recognise(server: str) -> str:
    """Return the kind of gateway by its `Server` header; empty if that is not known."""
    return next(
        (
            kind
            for beginning, kind in _SERVERS.items()
            if server.lower().startswith(beginning) and kind in REMEDIES
        ),
        "",
    )
