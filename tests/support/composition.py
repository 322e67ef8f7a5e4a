"""deploy/compose.yaml as a container engine reads it, and its gateway's config."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE_FILE = DEPLOY / "compose.yaml"
#: Where containers see their secrets.
SECRETS = "/run/secrets"

COMPOSITION: Mapping[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())


@dataclass(frozen=True)
class Service:
    """One service, with what it got from others merged in."""

    name: str
    written: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """Its variables."""
        return dict(self.written.get("environment", {}))

    @property
    def secrets(self) -> set[str]:
        """The names of the secrets that it sees."""
        return set(self.written.get("secrets", []))

    @property
    def networks(self) -> set[str]:
        """The names of its networks."""
        return set(self.written["networks"])

    def address_in(self, network: str) -> str:
        """Return its fixed address there."""
        address: str = self.written["networks"][network]["ipv4_address"]
        return address

    def environment_at(self, secrets: Path, **changed: str) -> dict[str, str]:
        """Return its variables, with its secrets in another folder."""
        here = {
            name: text.replace(SECRETS, str(secrets))
            for name, text in self.environment.items()
        }
        return here | changed


SERVICES = {
    name: Service(name, written) for name, written in COMPOSITION["services"].items()
}


def services_of(program: str) -> list[Service]:
    """Return the services that run this program with its own entry point."""
    return [s for n, s in SERVICES.items() if n.startswith(f"{program}-")]


def make_secrets(folder: Path, generated: str) -> None:
    """Write the secrets as docs/compose.md says.

    Args:
        folder: where to.
        generated: the output of `generate-secrets`.
    """
    script = DEPLOY / "compose" / "make_secrets"
    subprocess.run(
        ["sh", script, folder], input=generated, text=True, check=True, timeout=60
    )


def gateway_config() -> str:
    """Return the shipped config as the gateway's command changes it."""
    script = DEPLOY / "compose" / "addresses.sed"
    shipped = DEPLOY / "gateways" / "nginx" / "gatehouse.conf"
    done = subprocess.run(
        ["sed", "-f", script, shipped], capture_output=True, text=True, check=True
    )
    return done.stdout


def prepare_gateway(folder: Path, secrets: Path) -> Path:
    """Write the gateway's files with the paths of this machine.

    Returns:
        The main config.
    """
    (folder / "tmp").mkdir(parents=True)
    places = {"/tmp/": f"{folder}/tmp/", SECRETS: str(secrets)}
    for name in ("nginx.conf", "issuer.conf"):
        text = (DEPLOY / "compose" / name).read_text()
        for inside, here in places.items():
            text = text.replace(inside, here)
        (folder / name).write_text(text)
    (folder / "tmp" / "gatehouse.conf").write_text(gateway_config())
    return folder / "nginx.conf"
