"""Sets up the demo in one folder: secrets, database, an administrator and a client.

It uses the issuer's own commands, as an operator would. The secrets are kept in
`secrets.env`, so that a second run uses the same database and account. Each start
writes the settings of both programs to `issuer.env` and `verifier.env`, for their
commands.
"""

from __future__ import annotations

import io
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from deploy.demo.addresses import HOST, Addresses
from deploy.gateway_programs.native import verifier_settings

ROOT = Path(__file__).resolve().parents[2]
ADMIN_USERNAME = "admin"
CLIENT_NAME = "demo"
AUDIENCE = "gatehouse-demo"
# With them the demo client can try introspection and revocation.
_CLIENT_SCOPES = ("--scope", "gatehouse:introspect", "--scope", "gatehouse:revoke")

#: Runs the demo application; append a port.
APP_COMMAND = (
    sys.executable,
    *("-m", "uvicorn", "deploy.demo.app:app", "--host", HOST),
    *("--ws", "none", "--lifespan", "off", "--no-access-log"),
)


class InstallationError(Exception):
    """A command of the issuer failed; the message has the command and its output."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A folder that is set up, and the values needed to run from it.

    Attributes:
        var: the folder; also the programs' working directory, so that they ignore a
            developer's `.env` in the root.
        addresses: the ports.
        issuer_env: the issuer's whole environment.
        verifier_env: the verifier's.
    """

    var: Path
    addresses: Addresses
    issuer_env: Mapping[str, str]
    verifier_env: Mapping[str, str]
    admin_username: str
    admin_password: str
    client_id: str
    client_secret: str

    def write_demo_env(self) -> Path:
        """Write `demo.env` for callers of the demo, and return its path."""
        url = Addresses.url
        path = self.addresses.verifier_socket
        return write_env(
            self.var / "demo.env",
            {
                "GATEWAY_URL": url(self.addresses.gateway),
                "ISSUER_URL": url(self.addresses.issuer),
                **(
                    {"VERIFIER_SOCKET": shlex.quote(path)}
                    if path
                    else {"VERIFIER_URL": url(self.addresses.verifier)}
                ),
                "ISSUER_ADMIN_URL": url(self.addresses.issuer_admin),
                "VERIFIER_ADMIN_URL": url(self.addresses.verifier_admin),
                "ADMIN_USERNAME": self.admin_username,
                "ADMIN_PASSWORD": self.admin_password,
                "CLIENT_ID": self.client_id,
                "CLIENT_SECRET": self.client_secret,
                # Runs our programs from the root of a clone.
                "PYTHON": shlex.quote(sys.executable),
            },
        )

    def write_settings(self) -> None:
        """Write `issuer.env` and `verifier.env`, for `--env-file` of both programs."""
        for program, env in (
            ("issuer", self.issuer_env),
            ("verifier", self.verifier_env),
        ):
            prefix = f"{program.upper()}_"
            own = {
                name: shlex.quote(env[name]) for name in env if name.startswith(prefix)
            }
            write_env(self.var / f"{program}.env", own)


def install(
    var: Path,
    addresses: Addresses,
    policy_file: Path | None = None,
    *,
    serves_grpc: bool = False,
    native: str = "",
    database_url: str = "",
) -> Installation:
    """Set up or update the folder for these ports.

    Args:
        var: the folder.
        addresses: the ports.
        policy_file: the verifier's policies, an absolute path; None for none.
        serves_grpc: the gateway asks over gRPC.
        native: the kind of a gateway that checks tokens by itself; empty if it asks.
        database_url: of another database than the folder's SQLite file.

    Raises:
        InstallationError: a command of the issuer failed.
    """
    var.mkdir(parents=True, exist_ok=True)
    # The database and the logs are here, too.
    var.chmod(0o700)
    kept = var / "secrets.env"
    made = read_env(kept)
    if not made:
        made = _begin(var, addresses, database_url)
        write_env(kept, made)
    else:
        # The database may be older than the code.
        env = _issuer_environment(var, addresses, made, database_url)
        _issuer("migrate", env=env, cwd=var)
    installation = Installation(
        var=var,
        addresses=addresses,
        issuer_env=_issuer_environment(var, addresses, made, database_url),
        verifier_env=_verifier_environment(var, addresses, made)
        | ({"VERIFIER_POLICY_FILE": str(policy_file)} if policy_file else {})
        | (
            {"VERIFIER_GRPC_BIND": f"{HOST}:{addresses.grpc_verifier}"}
            if serves_grpc
            else {}
        )
        | verifier_settings(native, addresses.native_folder),
        admin_username=ADMIN_USERNAME,
        admin_password=made["ADMIN_PASSWORD"],
        client_id=made["CLIENT_ID"],
        client_secret=made["CLIENT_SECRET"],
    )
    installation.write_settings()
    return installation


def plain_environment() -> dict[str, str]:
    """Return this process's environment without our settings and without proxies."""
    ours = ("ISSUER_", "VERIFIER_", "GATEHOUSE_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and not name.lower().endswith("_proxy")
    }


def read_env(path: Path) -> dict[str, str]:
    """Return the names and values of a `NAME=value` file; empty if it is missing."""
    return parse_env(path.read_text()) if path.is_file() else {}


def write_env(path: Path, values: Mapping[str, str]) -> Path:
    """Write `NAME=value` lines to a file that only this user may read."""
    # Written beside and renamed, so that a reader finds the old or the new file.
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.touch(mode=0o600)
    beside.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return beside.replace(path)


def parse_env(text: str) -> dict[str, str]:
    """Return the names and values of `NAME=value` lines."""
    values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in values.items() if value is not None}


def _issuer_environment(
    var: Path, addresses: Addresses, made: Mapping[str, str], database_url: str
) -> dict[str, str]:
    return plain_environment() | {
        **{name: text for name, text in made.items() if name.startswith("ISSUER_")},
        "ISSUER_URL": Addresses.url(addresses.issuer),
        "ISSUER_AUDIENCE": AUDIENCE,
        "ISSUER_DATABASE_URL": (
            database_url or f"sqlite+aiosqlite:///{var / 'issuer.db'}"
        ),
        "ISSUER_BIND": f"{HOST}:{addresses.issuer}",
        "ISSUER_ADMIN_BIND": f"{HOST}:{addresses.issuer_admin}",
        # The gateway is stopped with it.
        "ISSUER_DRAIN_IDLE": "0",
    }


def _verifier_environment(
    var: Path, addresses: Addresses, made: Mapping[str, str]
) -> dict[str, str]:
    return plain_environment() | {
        "VERIFIER_ISSUER_URL": Addresses.url(addresses.issuer),
        "VERIFIER_AUDIENCE": AUDIENCE,
        "VERIFIER_FEED_TOKEN": made["ISSUER_FEED_TOKEN"],
        "VERIFIER_BIND": (
            f"unix:{addresses.verifier_socket}"
            if addresses.verifier_socket
            else f"{HOST}:{addresses.verifier}"
        ),
        "VERIFIER_ADMIN_BIND": f"{HOST}:{addresses.verifier_admin}",
        "VERIFIER_STATE_DIR": str(var / "verifier"),
        "VERIFIER_DRAIN_IDLE": "0",
    }


def _begin(var: Path, addresses: Addresses, database_url: str) -> dict[str, str]:
    """Create secrets, database, administrator and client; return the values to keep.

    A database that already exists is from an interrupted first start. Its secrets were
    not kept, so it is useless and removed.
    """
    for file in var.glob("issuer.db*"):
        file.unlink()
    made = parse_env(_issuer("generate-secrets", env=plain_environment(), cwd=var))
    env = _issuer_environment(var, addresses, made, database_url)
    _issuer("migrate", env=env, cwd=var)
    password = secrets.token_urlsafe(24)
    client = ("create-client", CLIENT_NAME, *_CLIENT_SCOPES)
    # Each command takes a second, mostly for its imports.
    with ThreadPoolExecutor() as both:
        printed = both.submit(_issuer, *client, env=env, cwd=var)
        # On standard input, because every process list shows arguments.
        _issuer("create-admin", ADMIN_USERNAME, env=env, cwd=var, given=password)
    return made | {"ADMIN_PASSWORD": password} | parse_env(printed.result())


def _issuer(*command: str, env: Mapping[str, str], cwd: Path, given: str = "") -> str:
    """Run one command of the issuer and return its output.

    Raises:
        InstallationError: it failed.
    """
    run = subprocess.run(
        [sys.executable, "-m", "issuer", *command],
        env=dict(env),
        cwd=cwd,
        input=f"{given}\n" if given else "",
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise InstallationError(
            f"python -m issuer {command[0]} ended with {run.returncode}:\n{run.stderr}"
        )
    return run.stdout
