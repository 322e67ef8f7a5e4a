"""Servers with an empty handler: `python -m loadtests.bench_grpc.handlers KIND PORT`.

port          the verifier's own gRPC server, without parsing, gate and answer
asyncio       grpcio's asyncio server, as plain as it can be
threads       its threaded server, answering in a thread of its pool
threads-loop  the same, but the answer comes from an event loop in another thread, as
              that of a gate does which answers in one thread
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import uvloop

from verifier.wire.grpc.service import METHOD, SERVICE
from verifier.wire.grpc.stubs.ext_authz_pb2 import CheckResponse

_THREADS = 8
#: About the bytes of an allow of one of the tokens: grpcio takes longer for them than
#: for a few.
_ANSWER_BYTES = 700
#: As for every server here: each is alone at its port.
_OPTIONS = [("grpc.so_reuseport", 0)]


def _refusal() -> bytes:
    response = CheckResponse()
    response.status.code = 14
    response.denied_response.body = " " * _ANSWER_BYTES
    encoded: bytes = response.SerializeToString()
    return encoded


ANSWER = _refusal()


def main(kind: str, port: str) -> None:
    """Serve until the process is stopped."""
    target = f"127.0.0.1:{port}"
    if kind == "asyncio":
        uvloop.run(_serve_asyncio(target))
    elif kind == "threads":
        _serve_threads(target, lambda: ANSWER)
    elif kind == "threads-loop":
        _serve_threads(target, _ask_a_loop())
    else:
        raise SystemExit(f"no such kind: {kind}")


async def _serve_asyncio(target: str) -> None:
    async def check(_message: bytes, _context: object) -> bytes:
        return ANSWER

    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(check),))
    server.add_insecure_port(target)
    await server.start()
    await server.wait_for_termination()


def _serve_threads(target: str, answer: Callable[[], bytes]) -> None:
    def check(_message: bytes, _context: object) -> bytes:
        return answer()

    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(check),))
    server.add_insecure_port(target)
    server.start()
    server.wait_for_termination()


def _ask_a_loop() -> Callable[[], bytes]:
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def ask() -> bytes:
        answer: Future[bytes] = Future()
        loop.call_soon_threadsafe(answer.set_result, ANSWER)
        return answer.result()

    return ask


def _handlers(check: Callable[..., Any]) -> Any:
    handler = grpc.unary_unary_rpc_method_handler(check)
    return grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})


if __name__ == "__main__":
    main(*sys.argv[1:])
