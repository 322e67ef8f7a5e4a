"""`make up`: all programs on loopback, until Ctrl-C or SIGTERM.

Sets everything up in var/ (GATEHOUSE_VAR names another folder), starts issuer,
verifier, demo application and gateway (GATEHOUSE_UP_GATEWAY names another),
writes var/demo.env and prints the walk-through and the time taken. The gateway asks the
policy `default` of GATEHOUSE_UP_POLICY_FILE, if that is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from deploy.demo.addresses import (
    Addresses,
    choose_addresses,
    choose_socket,
    is_native_folder,
)
from deploy.demo.installation import (
    APP_COMMAND,
    ROOT,
    Installation,
    InstallationError,
    install,
    plain_environment,
)
from deploy.demo.supervisor import ChildError, Supervisor, http_status
from deploy.gateway_programs import registry
from deploy.gateway_programs.native import verifier_arguments
from deploy.gateway_programs.program import GatewayError, GatewayProgram


class AlreadyUpError(Exception):
    """Another `make up` runs in the same folder."""


def main() -> int:
    """Run until a stop signal; return 0 then, and 1 after a failure."""
    var = Path(os.environ.get("GATEHOUSE_VAR", "var")).resolve()
    started = begun_at(os.environ.get("GATEHOUSE_STARTED", ""), time.time())
    try:
        with _alone_in(var):
            return asyncio.run(_run(var, started))
    except (
        AlreadyUpError,
        ChildError,
        InstallationError,
        GatewayError,
    ) as error:
        print(f"gatehouse: {error}", file=sys.stderr)
        return 1


def begun_at(passed: str, now: float) -> float:
    """Return when `make up` was called, in Unix seconds.

    Args:
        passed: the time that make passed; it may have installed packages since;
            `now` is returned if it is empty, malformed or in the future.
        now: Unix seconds.
    """
    return min(now, float(passed)) if re.fullmatch("[0-9]{1,12}", passed) else now


@contextlib.contextmanager
def _alone_in(var: Path) -> Iterator[None]:
    """Lock the folder: two processes would write one database and one demo.env.

    Raises:
        AlreadyUpError: another process holds the lock.
        InstallationError: the folder is not writable.
    """
    try:
        var.mkdir(parents=True, exist_ok=True)
        opened = (var / "up.lock").open("a")
    except OSError as error:
        raise InstallationError(
            f"GATEHOUSE_VAR: cannot write to {var}: {error.strerror}; name another folder"
        ) from None
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyUpError(f"is already up in {var}") from None
        yield


@contextlib.asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    """Start while no other `make up` of this user starts.

    Ports are chosen seconds before the programs listen there: two that start at the
    same time, in different folders, would choose the same.
    """
    path = Path(tempfile.gettempdir()) / f"gatehouse-up-{os.getuid()}.lock"
    try:
        # In a folder where every user may write: no link of another one is followed.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(path, flags, 0o600)
    except OSError:
        yield
        return
    try:
        is_first = True
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if is_first:
                    print("gatehouse: waiting for another start", flush=True)
                is_first = False
                await asyncio.sleep(0.1)
        yield
    finally:
        os.close(lock)


async def _run(var: Path, started: float) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # make passes SIGTERM on, so it may arrive twice; the second changes nothing.
        loop.add_signal_handler(number, stop.set)
    gateway = registry.choose(os.environ.get("GATEHOUSE_UP_GATEWAY"))
    policy_file = find_policy_file(os.environ.get("GATEHOUSE_UP_POLICY_FILE", ""))
    program = registry.PROGRAMS[gateway]
    supervisor = Supervisor(var / "log")
    (var / "demo.env").unlink(missing_ok=True)

    async def bring_up() -> None:
        async with _turn():
            install_here = partial(
                install,
                var,
                addresses_for(program, var),
                policy_file,
                serves_grpc=program.asks_over_grpc,
                native=program.native,
            )
            await _bring_up(supervisor, install_here, program, started)

    try:
        await _until(stop, bring_up())
        if not stop.is_set():
            await _until(stop, supervisor.wait_for_an_end())
        print("\ngatehouse: stopping", flush=True)
    finally:
        await supervisor.stop_all()
    print("gatehouse: stopped", flush=True)
    return 0


def addresses_for(program: GatewayProgram, var: Path) -> Addresses:
    """Return free addresses for this gateway and the other programs.

    Raises:
        InstallationError: the folder is no place for its sockets.
    """
    if program.native and not is_native_folder(str(var)):
        raise InstallationError(
            f"GATEHOUSE_VAR: {program.name} needs unix sockets in it, so its path must "
            "have at most 81 letters, digits and _/.+-; name another folder"
        )
    addresses = choose_addresses()
    if program.asks_over_unix:
        return replace(addresses, verifier_socket=choose_socket(var))
    return replace(addresses, native_folder=str(var) if program.native else "")


async def _until(stop: asyncio.Event, work: Awaitable[None]) -> None:
    """Wait for the work or for a stop signal; errors of the work are raised."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        return await working
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    return None


def find_policy_file(passed: str) -> Path | None:
    """Return the absolute path of the policy file; None if none is wanted.

    Raises:
        InstallationError: it is not there.
    """
    if not passed:
        return None
    path = Path(passed).resolve()
    if not path.is_file():
        raise InstallationError(f"GATEHOUSE_UP_POLICY_FILE: {path} is not there")
    return path


async def _bring_up(
    supervisor: Supervisor,
    install_here: Callable[[], Installation],
    program: GatewayProgram,
    started: float,
) -> None:
    print("gatehouse: setting up", flush=True)
    installation = await asyncio.to_thread(install_here)
    var, addresses = installation.var, installation.addresses
    writing = verifier_arguments(program.native)
    for name, arguments, env, port in (
        ("issuer", (), installation.issuer_env, addresses.issuer_admin),
        ("verifier", writing, installation.verifier_env, addresses.verifier_admin),
    ):
        print(f"gatehouse: starting {name}", flush=True)
        await supervisor.start(
            name,
            (sys.executable, "-m", name, *arguments),
            env=env,
            cwd=var,
            is_ready=_answers(port, "/readyz"),
        )
    print("gatehouse: starting demo application", flush=True)
    await supervisor.start(
        "app",
        (*APP_COMMAND, "--port", str(addresses.app)),
        env=plain_environment(),
        cwd=ROOT,
        is_ready=_answers(addresses.app, "/"),
    )
    gateway = program.name
    print(f"gatehouse: starting gateway ({gateway})", flush=True)
    prepared = registry.prepare(gateway, var / "gateway" / gateway, addresses)
    await supervisor.start(
        "gateway",
        prepared.command,
        env=plain_environment(),
        cwd=var,
        # 401 without a token shows that all programs work. A policy file may have no
        # rule for the path, or open it.
        is_ready=_answers(
            addresses.gateway,
            "/",
            (
                (401, 403, 200)
                if "VERIFIER_POLICY_FILE" in installation.verifier_env
                else (401,)
            ),
        ),
    )
    _tell(installation, gateway)
    print(f"up after {time.time() - started:.0f} s")
    print("gatehouse is up", flush=True)


def _answers(
    port: int, path: str, wanted: Sequence[int] = (200,)
) -> Callable[[], Awaitable[bool]]:
    async def answers() -> bool:
        return await http_status(port, path) in wanted

    return answers


def _tell(installation: Installation, gateway: str) -> None:
    demo_env = installation.write_demo_env()
    url = Addresses.url
    addresses = installation.addresses
    print(
        f"\n  gateway   {url(addresses.gateway)}  ({gateway}, before a demo application)"
        f"\n  issuer    {url(addresses.issuer)}  (operators {url(addresses.issuer_admin)})"
        f"\n  verifier  {addresses.verifier_socket or url(addresses.verifier)}"
        f"  (operators {url(addresses.verifier_admin)})"
        f"\n  account   {demo_env}"
        f"\n  logs      {installation.var / 'log'}"
        "\n\nWalk through, in another terminal:\n"
    )
    # In another folder than the README's, the real path of the file is shown.
    here = demo_env != ROOT / "var" / "demo.env"
    text = walk_through()
    print(text.replace("var/demo.env", str(demo_env)) if here else text)


def walk_through() -> str:
    """Return the README's curl walk-through, which a test also runs."""
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    return "\n".join(blocks)


if __name__ == "__main__":
    sys.exit(main())
