"""What starts and ends with a worker's application."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import Lifespan

from issuer.foundation import Package, run_beside
from issuer.http.operators_port.health import OperatorsServer
from shared.shortages import raise_descriptor_limit


def build_lifespan(
    package: Package, operators: OperatorsServer, close: Callable[[], Awaitable[None]]
) -> Lifespan[FastAPI]:
    """Return the lifespan of the application.

    Args:
        package: its tasks run beside the requests.
        operators: serves while the application runs.
        close: called at the end.
    """

    async def stop() -> None:
        try:
            package.stop()
        finally:
            await operators.stop()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # Each step of the stop is taken, whatever an earlier one raises, and also when
        # the start fails half way.
        try:
            raise_descriptor_limit()
            async with run_beside(package.tasks, stop):
                operators.start()
                yield
        finally:
            await close()

    return lifespan
