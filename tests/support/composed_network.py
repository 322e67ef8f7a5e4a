"""All of deploy/compose.yaml in one network namespace, with its own addresses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.demo.installation import plain_environment
from tests.support.composition import (
    ROOT,
    SERVICES,
    Service,
    prepare_gateway,
    services_of,
)
from tests.support.hosts_file import HostsFile
from tests.support.network_namespace import Namespace
from tests.support.processes import ProcessFactory

#: Of the administrator in docs/compose.md.
ADMIN, PASSWORD = "alice", "correct horse battery staple"


class Network:
    """All addresses of the networks, on one machine of its own."""

    def __init__(self, namespace: Namespace, hosts: HostsFile) -> None:
        self.prefix = (*namespace.prefix, *hosts.prefix)
        self._namespace = namespace
        for service in SERVICES.values():
            networks = service.written["networks"]
            if isinstance(networks, Mapping):
                for name in networks:
                    if networks[name]:
                        self._add(service.address_in(name))
        # On one machine a program that asks an address would come from that address.
        # The gateway comes from its own.
        for network, asked in (
            ("gate", services_of("verifier")),
            ("issuers", services_of("issuer")),
        ):
            for service in asked:
                self._ip(
                    *("route", "replace", "local", service.address_in(network)),
                    *("dev", "lo", "table", "local", "scope", "host"),
                    *("src", SERVICES["gateway"].address_in(network)),
                )

    def _add(self, address: str) -> None:
        self._ip("address", "add", f"{address}/32", "dev", "lo")

    def _ip(self, *words: str) -> None:
        subprocess.run([*self._namespace.prefix, "ip", *words], check=True)

    def answers(self, url: str, status: int = 200) -> bool:
        """Return whether a GET within the network is answered so."""
        command = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", url]
        done = subprocess.run(
            [*self.prefix, *command], capture_output=True, text=True, check=False
        )
        return done.stdout == str(status)


def start_all(
    network: Network,
    factory: ProcessFactory,
    secrets: Path,
    database_url: str,
    folder: Path,
) -> None:
    """Start what the services are, in the order in which they wait for each other."""
    database = {"ISSUER_DATABASE_URL": database_url}
    _prepare(SERVICES["migrate"].environment_at(secrets, **database), folder)
    for service in services_of("issuer"):
        env = service.environment_at(secrets, **database)
        _start(network, factory, service, "issuer", env, folder)
    _start_application(network, factory)
    _start_gateway(network, factory, secrets, folder)
    for service in services_of("verifier"):
        state = {"VERIFIER_STATE_DIR": str(folder / service.name)}
        env = service.environment_at(secrets, **state)
        _start(network, factory, service, "verifier", env, folder)


def _prepare(env: Mapping[str, str], folder: Path) -> None:
    """Build the tables, and make the administrator."""
    for words, given in ((("migrate",), ""), (("create-admin", ADMIN), PASSWORD)):
        subprocess.run(
            [sys.executable, "-m", "issuer", *words],
            cwd=folder,
            env=plain_environment() | dict(env),
            input=given,
            text=True,
            capture_output=True,
            check=True,
        )


def _start_application(network: Network, factory: ProcessFactory) -> None:
    service = SERVICES["application"]
    address = service.address_in("applications")
    words = [*service.written["entrypoint"][1:], *service.written["command"]]
    factory.start(
        "application",
        [*network.prefix, sys.executable, *words],
        cwd=ROOT,
        ready=lambda: network.answers(f"http://{address}:8081/"),
    )


def _start_gateway(
    network: Network, factory: ProcessFactory, secrets: Path, folder: Path
) -> None:
    config = prepare_gateway(folder / "gateway", secrets)
    # Its workers could not open files in a folder of root's as another user.
    options = ("-e", "stderr", "-g", "user root;", "-c", config)
    factory.start(
        "gateway",
        [*network.prefix, "/usr/sbin/nginx", *options],
        ready=lambda: network.answers("https://localhost:8443/.well-known/jwks.json"),
    )


def _start(
    network: Network,
    factory: ProcessFactory,
    service: Service,
    program: str,
    env: Mapping[str, str],
    folder: Path,
) -> None:
    admin = env[f"{program.upper()}_ADMIN_BIND"]
    factory.start(
        service.name,
        [*network.prefix, sys.executable, "-m", program],
        env=plain_environment() | dict(env),
        cwd=folder,
        ready=lambda: network.answers(f"http://{admin}/readyz"),
    )
