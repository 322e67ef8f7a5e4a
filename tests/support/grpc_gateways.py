"""Gateways that speak gRPC, each at the port that its kind has for it."""

from __future__ import annotations

from pathlib import Path

from tests.support.gateway_kinds.table import KINDS
from tests.support.processes import free_port
from tests.support.stack import Stack


def start_grpc_gateway(
    name: str, stack: Stack, app_port: int, label: str, *, hurried: bool = False
) -> int:
    """Start a gateway before the gRPC server; return the port that speaks gRPC.

    Args:
        name: the gateway.
        stack: what it asks.
        app_port: the gRPC server's.
        label: distinguishes gateways of one name.
        hurried: with its long time-outs made shorter.
    """
    kind = KINDS[name]

    def edit(folder: Path) -> None:
        kind.switch_grpc_on(folder)
        if hurried:
            kind.shorten_timeouts(folder)

    ports = {"grpc_gateway": free_port(), "grpc_app": app_port}
    # It may be running already, with other ports than these.
    running = stack.start_gateway(name, label, edit=edit, **ports)
    port: int = getattr(running.addresses, kind.grpc_door)
    return port
