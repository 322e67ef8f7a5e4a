"""The verifier beside a gateway that checks tokens by itself (docs/native.md).

`python -m verifier native KIND` writes keys and revocations into that one gateway. Both
meet in a folder with unix sockets, and with files for HAProxy.
"""

from __future__ import annotations

from typing import Final

ENVOY: Final = "envoy"
HAPROXY: Final = "haproxy"

#: Where Envoy's config that ships has the sockets.
SHIPPED_FOLDER: Final = "/run/gatehouse/"
#: The sockets in the folder: that of HAProxy's master, and those of Envoy, whose names
#: ship.
MASTER_SOCKET: Final = "master.sock"
_XDS_SOCKET: Final = "envoy-xds.sock"
_ADMIN_SOCKET: Final = "envoy-admin.sock"
#: The directory, in the folder, that HAProxy reads.
HAPROXY_FILES: Final = "haproxy"


def verifier_arguments(kind: str) -> tuple[str, ...]:
    """Return the arguments of the verifier; none for a gateway that asks."""
    return ("native", kind) if kind else ()


def verifier_settings(kind: str, folder: str) -> dict[str, str]:
    """Return the verifier's settings for a gateway in this folder.

    Args:
        kind: `GatewayProgram.native`; empty for a gateway that asks.
        folder: an absolute path.
    """
    settings = {
        ENVOY: {
            "VERIFIER_ENVOY_BIND": f"unix:{folder}/{_XDS_SOCKET}",
            "VERIFIER_ENVOY_ADMIN": f"unix:{folder}/{_ADMIN_SOCKET}",
        },
        HAPROXY: {
            "VERIFIER_HAPROXY_MASTER": f"unix:{folder}/{MASTER_SOCKET}",
            "VERIFIER_HAPROXY_DIR": f"{folder}/{HAPROXY_FILES}",
        },
    }
    return settings.get(kind, {})
