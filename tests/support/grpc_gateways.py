"""Gateways that speak gRPC: Envoy as shipped, nginx with its second file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.processes import free_port
from tests.support.stack import Stack


def start_grpc_gateway(
    name: str, stack: Stack, app_port: int, label: str, edit: Callable[[Path], None]
) -> int:
    """Start a gateway before the gRPC server; return the port that speaks gRPC."""
    ports = {"gateway": free_port(), "grpc_gateway": free_port(), "grpc_app": app_port}
    running = stack.start_gateway(name, label, edit=edit, **ports)
    # What listens for gRPC in nginx' second file is what listens for all in Envoy's
    # one.
    return ports["grpc_gateway"] if name == "nginx" else running.port


def include_grpc(folder: Path) -> None:
    """Switch on the line that stands in nginx.conf as a comment."""
    main = folder / "nginx.conf"
    if main.exists():
        line = "include gatehouse_grpc.conf;"
        text = main.read_text()
        assert text.count(f"# {line}") == 1
        main.write_text(text.replace(f"# {line}", line))
