"""A program of workers under the supervisor, each answering with its process id.

`python -m tests.support.supervised WORKERS FOLDER` writes the port it listens on to
FOLDER/port. Files in FOLDER change how workers start: `fails` ends them, `late` has
them report that they are not as good as wished, `hangs` stops their event loop once
they serve, while `holds` is there they obey no signal yet, and while `waits` is there
they do not serve yet. `generation` is answered behind the process id as it was at the
last reload. While `slow` is there, the supervisor's own reload does not end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from shared import log
from shared.serving.limits import OPERATORS
from shared.serving.port import Port
from shared.serving.server import Duties, Lifecycle, WorkerServer, run_server
from shared.serving.signals import hold_reloads
from shared.serving.workers.supervisor import Patience, Slot, Supervisor

PATIENCE = Patience(
    start=20.0, beat=4.0, stop=15.0, first_pause=0.1, longest_pause=0.4, steady=0.0
)


class Program:
    """The parts that its workers are made from."""

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        self._folder = folder
        self._listener = listener
        self._generation = ""

    async def reload(self) -> None:
        self._generation = (self._folder / "generation").read_text()

    def reread(self) -> None:
        while (self._folder / "slow").exists():
            time.sleep(0.02)

    def run_worker(self, slot: Slot | None) -> None:
        while (self._folder / "holds").exists():
            time.sleep(0.02)
        if (self._folder / "fails").exists():
            raise SystemExit(7)
        lifecycle = Lifecycle(is_good=not (self._folder / "late").exists())

        async def answer(request: Request) -> PlainTextResponse:
            import os

            if request.url.path == "/slow":
                await asyncio.sleep(1.0)
            if request.url.path == "/ready":
                return PlainTextResponse("draining" if lifecycle.is_draining else "ok")
            return PlainTextResponse(f"{os.getpid()} {self._generation}")

        @contextlib.asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            if (self._folder / "hangs").exists():
                loop = asyncio.get_running_loop()
                loop.call_later(0.5, time.sleep, 600)
            while (self._folder / "waits").exists() and not lifecycle.is_draining:
                await asyncio.sleep(0.02)
            yield

        app = Starlette(
            routes=[Route("/{path:path}", answer, methods=["GET"])], lifespan=lifespan
        )
        run_server(
            WorkerServer(
                uvicorn.Config(
                    app,
                    http=cast(Any, Port("test", OPERATORS)),
                    loop="uvloop",
                    log_config=None,
                    timeout_graceful_shutdown=5,
                ),
                self._listener,
                lifecycle,
                Duties(self.reload, drain_delay=0.3),
                slot,
            )
        )


def main() -> int:
    hold_reloads()
    workers, folder = int(sys.argv[1]), Path(sys.argv[2])
    log.configure("test", "info")
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    program = Program(folder, listener)
    (folder / "port.new").write_text(str(listener.getsockname()[1]))
    (folder / "port.new").rename(folder / "port")
    if workers == 1:
        program.run_worker(None)
        return 0
    return Supervisor(
        program.run_worker,
        workers,
        reload=program.reread,
        listeners=(listener,),
        patience=PATIENCE,
    ).run()


if __name__ == "__main__":
    sys.exit(main())
