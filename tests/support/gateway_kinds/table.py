"""The kind of each gateway, by its name in `deploy.gateway_programs.registry`."""

from __future__ import annotations

from typing import Final

from deploy.gateway_programs.registry import NAMES
from tests.support.gateway_kinds.apache import APACHE
from tests.support.gateway_kinds.caddy import CADDY
from tests.support.gateway_kinds.envoy import ENVOY, ENVOY_GRPC
from tests.support.gateway_kinds.haproxy import HAPROXY
from tests.support.gateway_kinds.kind import GatewayKind
from tests.support.gateway_kinds.native import ENVOY_NATIVE, HAPROXY_NATIVE
from tests.support.gateway_kinds.nginx import NGINX
from tests.support.gateway_kinds.traefik import TRAEFIK

KINDS: Final[dict[str, GatewayKind]] = {
    "nginx": NGINX,
    "envoy": ENVOY,
    "envoy-grpc": ENVOY_GRPC,
    "haproxy": HAPROXY,
    "caddy": CADDY,
    "caddy-2.11": CADDY,
    "traefik": TRAEFIK,
    "apache": APACHE,
    "envoy-native": ENVOY_NATIVE,
    "haproxy-native": HAPROXY_NATIVE,
}

#: Those that pass gRPC.
GRPC_NAMES: Final = tuple(name for name in NAMES if KINDS[name].grpc_door)
#: Those whose log `replay` reads.
LOGGING_NAMES: Final = tuple(name for name in NAMES if KINDS[name].add_log)
