"""deploy/compose.yaml: each part agrees with the others, and together they work."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.demo.installation import plain_environment
from issuer.settings.issuer_settings import load_settings as load_issuer
from shared.distribution import VERSION
from tests.support.composed_network import PASSWORD, Network, start_all
from tests.support.composition import (
    COMPOSE_FILE,
    COMPOSITION,
    DEPLOY,
    ROOT,
    SECRETS,
    SERVICES,
    Service,
    gateway_config,
    make_secrets,
    services_of,
)
from tests.support.hosts_file import HostsFile
from tests.support.installed_gateways import require
from tests.support.network_namespace import new_namespace
from tests.support.page_commands import read_blocks
from tests.support.postgres import PostgresServer
from tests.support.processes import ProcessFactory
from verifier.settings import load_settings as load_verifier

ISSUERS, VERIFIERS = services_of("issuer"), services_of("verifier")
ALL = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
GATEWAY = SERVICES["gateway"]
#: Services that end by themselves.
ONCE = {"migrate"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secrets, made as the page says."""
    generated = subprocess.run(
        [sys.executable, "-m", "issuer", "generate-secrets"],
        cwd=ROOT,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    make_secrets(folder, generated)
    return folder


def tool(*command: str | Path) -> None:
    """Run a tool of this Python environment; fail with what it says."""
    program = Path(sys.executable).parent / str(command[0])
    done = subprocess.run(
        [program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_file_is_one_that_compose_reads() -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE_FILE)


def test_the_dockerfile_has_no_fault_that_hadolint_finds() -> None:
    tool("hadolint", "--failure-threshold", "warning", ROOT / "Dockerfile")


@ALL
def test_a_service_has_minimal_rights_and_bounds(service: Service) -> None:
    written = service.written
    assert written["read_only"] is True
    assert written["cap_drop"] == ["ALL"]
    assert "cap_add" not in written
    assert not written.get("privileged")
    assert written["security_opt"] == ["no-new-privileges:true"]
    assert written["mem_limit"]
    assert written["pids_limit"]
    assert written["logging"]["options"]["max-size"]
    assert written["restart"].startswith(
        "on-failure:" if service.name in ONCE else "unless-stopped"
    )


@ALL
def test_an_image_is_pinned_by_version(service: Service) -> None:
    image, _, tag = service.written["image"].partition(":")
    if "build" in service.written:
        assert tag == VERSION
        target = service.written["build"]["target"]
        assert image == f"gatehouse-{target}"
        dockerfile = (ROOT / "Dockerfile").read_text()
        assert re.search(rf"^FROM .* AS {target}$", dockerfile, re.M)
    else:
        assert re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-\w+)?", tag)


def test_ports_are_published_by_the_gateway_and_to_this_machine_for_operators() -> None:
    published = {
        n: s.written["ports"] for n, s in SERVICES.items() if "ports" in s.written
    }
    assert published.keys() == {"gateway", "prometheus", "grafana"}
    operators = published["prometheus"] + published["grafana"]
    assert all(port.startswith("127.0.0.1:") for port in operators)
    internal = {n for n, net in COMPOSITION["networks"].items() if net}
    assert all(COMPOSITION["networks"][name]["internal"] for name in internal)
    outside = {n for n, s in SERVICES.items() if s.networks - internal}
    assert outside == published.keys()


@ALL
def test_a_service_waits_for_services_that_say_when_they_are_ready(
    service: Service,
) -> None:
    for name, wait in service.written.get("depends_on", {}).items():
        awaited = SERVICES[name]
        if name in ONCE:
            assert wait["condition"] == "service_completed_successfully"
            continue
        assert wait["condition"] == "service_healthy"
        # Those without one here have the image's own.
        assert "healthcheck" in awaited.written or "build" in awaited.written


def test_every_service_has_a_health_check() -> None:
    without = {n for n, s in SERVICES.items() if "healthcheck" not in s.written}
    assert without == {service.name for service in (*ISSUERS, *VERIFIERS)}
    assert (ROOT / "Dockerfile").read_text().count("HEALTHCHECK") == 2


def test_services_see_the_secrets_that_they_name_and_all_of_them_are_made(
    secrets: Path,
) -> None:
    named = {
        name: set(re.findall(rf"{SECRETS}/(\w+)", str(service.environment)))
        for name, service in SERVICES.items()
    }
    configs = (DEPLOY / "compose" / "issuer.conf").read_text()
    named["gateway"] |= set(re.findall(rf"{SECRETS}/(\w+)", configs))
    assert named == {name: service.secrets for name, service in SERVICES.items()}
    declared = COMPOSITION["secrets"]
    assert declared.keys() == set().union(*named.values())
    assert declared.keys() == {path.name for path in secrets.iterdir()}
    assert {entry["file"] for entry in declared.values()} == {
        f"./compose/secrets/{name}" for name in declared
    }
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "deploy/compose/secrets/" in ignored


def test_secrets_are_closed_to_others_and_are_not_made_twice(secrets: Path) -> None:
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o444}
    kept = (secrets / "refresh_keys").read_text()
    with pytest.raises(subprocess.CalledProcessError):
        make_secrets(secrets, "ISSUER_REFRESH_KEYS=other\n")
    assert (secrets / "refresh_keys").read_text() == kept


def test_a_folder_that_was_open_is_closed(tmp_path: Path, secrets: Path) -> None:
    """Every user can read the files in it."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)
    names = ("feed_token", "key_encryption_keys", "password_peppers", "refresh_keys")
    lines = [f"ISSUER_{name.upper()}={(secrets / name).read_text()}" for name in names]
    make_secrets(folder, "\n".join(lines) + "\n")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_secrets_are_not_made_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        make_secrets(tmp_path / "secrets", "")


def read_settings(
    service: Service, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Read the settings as the program does; an unknown one is refused."""
    for name, text in service.environment_at(secrets).items():
        monkeypatch.setenv(name, text)
    load: Any = load_issuer if "issuer" in service.written["image"] else load_verifier
    return load(None)


@pytest.mark.parametrize(
    "service",
    [*ISSUERS, *VERIFIERS, SERVICES["migrate"]],
    ids=lambda service: str(service.name),
)
def test_the_programs_take_the_settings(
    service: Service, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings(service, secrets, monkeypatch)
    assert settings.audience == "gatehouse-demo"


def test_issuers_and_verifiers_have_one_name_of_the_issuer_and_one_database() -> None:
    urls = {service.environment["ISSUER_URL"] for service in ISSUERS}
    urls |= {service.environment["VERIFIER_ISSUER_URL"] for service in VERIFIERS}
    assert urls == {"https://localhost:8443"}
    database = SERVICES["postgres"].environment
    wanted = (
        f"postgresql://{database['POSTGRES_USER']}@postgres/{database['POSTGRES_DB']}"
    )
    for service in (*ISSUERS, SERVICES["migrate"]):
        assert service.environment["ISSUER_DATABASE_URL"] == wanted
        assert "database" in service.networks & SERVICES["postgres"].networks


def test_binds_are_the_addresses_that_the_others_ask() -> None:
    config = gateway_config()
    checks = upstream(config, "gatehouse_verifier")
    assert checks == {f"{s.address_in('gate')}:9000" for s in VERIFIERS}
    assert checks == {s.environment["VERIFIER_BIND"] for s in VERIFIERS}
    assert upstream(config, "gatehouse_app") == {
        f"{SERVICES['application'].address_in('applications')}:8081"
    }
    assert "listen 8080;" in config
    assert "unix:/run/gatehouse" not in re.sub(r"#.*", "", config)
    assert not re.findall(r"127\.0\.0\.1", re.sub(r"#.*", "", config))
    logins = (DEPLOY / "compose" / "issuer.conf").read_text()
    assert upstream(logins, "gatehouse_issuer") == {
        s.environment["ISSUER_BIND"] for s in ISSUERS
    }
    scraped = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    targets = {
        target
        for job in scraped["scrape_configs"]
        for config in job["static_configs"]
        for target in config["targets"]
    }
    assert targets == {s.environment["ISSUER_ADMIN_BIND"] for s in ISSUERS} | {
        s.environment["VERIFIER_ADMIN_BIND"] for s in VERIFIERS
    }


def upstream(config: str, name: str) -> set[str]:
    """Return the servers of an upstream of nginx."""
    found = re.search(rf"^upstream {name} {{(.*?)^}}", config, re.M | re.S)
    assert found is not None
    return set(re.findall(r"^\s*server (\S+?)[ ;]", found[1], re.M))


@pytest.mark.parametrize(
    "service", [*ISSUERS, *VERIFIERS], ids=lambda service: str(service.name)
)
def test_a_program_listens_in_its_own_networks_and_knows_the_gateway(
    service: Service,
) -> None:
    prefix = "ISSUER" if service in ISSUERS else "VERIFIER"
    public = "issuers" if service in ISSUERS else "gate"
    environment = service.environment
    bound = environment[f"{prefix}_BIND"].rpartition(":")[0]
    assert bound == service.address_in(public)
    admin = environment[f"{prefix}_ADMIN_BIND"].rpartition(":")[0]
    assert admin == service.address_in("monitoring")
    assert "monitoring" not in GATEWAY.networks
    peers = "ISSUER_TRUSTED_PROXIES" if service in ISSUERS else "VERIFIER_TRUSTED_PEERS"
    assert environment[peers] == GATEWAY.address_in(public)


def test_addresses_are_in_their_subnets_and_used_once() -> None:
    for name, network in COMPOSITION["networks"].items():
        addresses = [
            ipaddress.ip_address(service.address_in(name))
            for service in SERVICES.values()
            if isinstance(service.written["networks"], Mapping)
            and (service.written["networks"].get(name) or {}).get("ipv4_address")
        ]
        if not addresses:
            continue
        (pool,) = network["ipam"]["config"]
        subnet = ipaddress.ip_network(pool["subnet"])
        assert all(address in subnet for address in addresses)
        taken = [*addresses, ipaddress.ip_address(pool["gateway"])]
        assert len(set(taken)) == len(taken)


def test_mounted_files_are_there_and_cannot_be_written() -> None:
    volumes = {
        volume
        for service in SERVICES.values()
        for volume in service.written.get("volumes", [])
    }
    files = {volume for volume in volumes if volume.startswith("./")}
    for volume in files:
        source, _, mode = volume.split(":")
        assert mode == "ro", volume
        assert (DEPLOY / source).exists(), volume
    named = {volume.partition(":")[0] for volume in volumes - files}
    assert named == COMPOSITION["volumes"].keys()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with new_namespace() as namespace:
        hosts = HostsFile(tmp_path / "hosts")
        hosts.say({"gateway": GATEWAY.address_in("gate")})
        yield Network(namespace, hosts)


@pytest.mark.processes
def test_all_parts_together_let_a_login_pass_and_a_logout_end_it(
    network: Network,
    secrets: Path,
    postgres: PostgresServer,
    tmp_path: Path,
) -> None:
    require("nginx")
    url = postgres.url(postgres.create_database())
    factory = ProcessFactory(tmp_path)
    try:
        start_all(network, factory, secrets, url, tmp_path)
        (block,) = (block for block in read_blocks("docs/compose.md") if block.tests)
        script = block.text.replace("deploy/compose/secrets", str(secrets))
        done = subprocess.run(
            [*network.prefix, "sh", "-e", "-c", script],
            cwd=ROOT,
            env=plain_environment() | {"PASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        place = 0
        for line in re.findall(r"^ *#> (.*)$", script, re.M):
            place = done.stdout.find(line, place) + 1
            assert place, (line, done.stdout)
    finally:
        factory.stop_all()
