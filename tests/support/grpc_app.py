"""A gRPC server with one service, `demo.Echo`, and plain bytes as messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

Metadata = dict[str, str]
#: A token of 8,000 bytes makes up to 18.5 kB of metadata; gRPC's own limit is 8 kB.
_OPTIONS = (
    ("grpc.max_metadata_size", 65_536),
    ("grpc.absolute_max_metadata_size", 65_536),
    ("grpc.enable_http_proxy", 0),
)


class GrpcApp:
    """The server's side; `metadata` is that of the last call."""

    def __init__(self) -> None:
        self.metadata: Metadata = {}
        self.is_released = threading.Event()

    def say(self, message: bytes, context: Any) -> bytes:
        """Answer a message with itself."""
        self._note(context)
        return message

    def talk(self, messages: Iterable[bytes], context: Any) -> Iterator[bytes]:
        """Answer each message of a stream as it comes."""
        self._note(context)
        yield from messages

    def listen(self, message: bytes, context: Any) -> Iterator[bytes]:
        """Answer at once, and again when released."""
        self._note(context)
        yield message
        assert self.is_released.wait(60)
        yield message

    def _note(self, context: Any) -> None:
        self.metadata = {
            key: str(value) for key, value in context.invocation_metadata()
        }


@contextmanager
def grpc_app(port: int) -> Iterator[GrpcApp]:
    """Serve on a loopback port until the end."""
    app = GrpcApp()
    handlers = {
        "Say": grpc.unary_unary_rpc_method_handler(app.say),
        "Talk": grpc.stream_stream_rpc_method_handler(app.talk),
        "Listen": grpc.unary_stream_rpc_method_handler(app.listen),
    }
    server = grpc.server(ThreadPoolExecutor(8), options=_OPTIONS)
    service = grpc.method_handlers_generic_handler("demo.Echo", handlers)
    server.add_generic_rpc_handlers((service,))
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    try:
        yield app
    finally:
        app.is_released.set()
        server.stop(None).wait(10)


class GrpcClient:
    """A client of it behind a gateway's port.

    Args:
        port: a loopback TCP port.
    """

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS)
        self.say: Callable[..., Any] = self.channel.unary_unary("/demo.Echo/Say")
        self.talk: Callable[..., Any] = self.channel.stream_stream("/demo.Echo/Talk")
        self.listen: Callable[..., Any] = self.channel.unary_stream("/demo.Echo/Listen")


@contextmanager
def grpc_client(port: int) -> Iterator[GrpcClient]:
    """Give a client, and close its connection at the end."""
    client = GrpcClient(port)
    try:
        yield client
    finally:
        client.channel.close()
