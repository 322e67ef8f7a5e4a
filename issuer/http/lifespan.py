"""What starts and ends with a worker's application."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import Lifespan

from issuer.foundation import Package, run_beside
from shared.serving.operators_port import serve_operators
from shared.shortages import raise_descriptor_limit


def build_lifespan(
    package: Package,
    operators: Starlette,
    operators_socket: socket.socket | None,
    close: Callable[[], Awaitable[None]],
) -> Lifespan[FastAPI]:
    """Return the lifespan of the application.

    Args:
        package: its tasks run beside the requests.
        operators: the application that is served to operators meanwhile.
        operators_socket: on which it is served; None: it is not.
        close: called at the end.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # Each step of the stop is taken, whatever an earlier one raises, and also when
        # the start fails half way.
        try:
            raise_descriptor_limit()
            async with (
                run_beside(package.tasks, package.stop),
                serve_operators(operators, operators_socket),
            ):
                yield
        finally:
            await close()

    return lifespan
