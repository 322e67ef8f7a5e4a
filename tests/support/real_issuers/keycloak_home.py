"""Keycloak unpacked, configured and with an empty database, kept in a cache.

`python -m tests.support.real_issuers` fills the cache once, in about a minute: tests
start in seconds from what is there. Only the standard library is used, because
.ci/run does this while it installs the rest.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

VERSION: Final = "26.7.3"
ADMIN_USERNAME: Final = "admin"
#: Of a server that listens on loopback for one test.
ADMIN_PASSWORD: Final = "admin-password"
_ARTIFACT: Final = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
_ZIP: Final = f"keycloak-quarkus-dist-{VERSION}.zip"
_SHA256: Final = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f"
_COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
#: Not needed here, and each costs time at every start.
_FEATURES_OFF: Final = (
    "account,account-api,admin,admin-fine-grained-authz,authorization,ciba,"
    "client-policies,declarative-ui,device-flow,dpop,impersonation,kerberos,"
    "opentelemetry,organization,par,passkeys,quick-theme,recovery-codes,"
    "step-up-authentication,step-up-authentication-saml,token-exchange-standard,"
    "update-email,user-event-metrics,web-authn,workflows"
)
_BUILD: Final = (
    *("build", "--db=dev-file", "--cache=local"),
    f"--features-disabled={_FEATURES_OFF}",
)
#: For a process that lives a minute. The classes are those of a file with a pinned
#: digest, so the virtual machine need not verify them: 12.4 s of CPU for a start are
#: 10.1 s without.
_JAVA: Final = (
    *("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC"),
    *("-XX:TieredStopAtLevel=1", "-XX:CICompilerCount=1"),
    *("-XX:+UnlockDiagnosticVMOptions", "-XX:-BytecodeVerificationRemote"),
    # As bin/kc.sh of the distribution has them.
    *("-Dfile.encoding=UTF-8", "-Dpicocli.disable.closures=true"),
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    "-Djava.util.concurrent.ForkJoinPool.common.threadFactory="
    "io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.security=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
)
#: Folders of the distribution that a server only reads.
_READ_ONLY: Final = ("bin", "conf", "lib", "providers", "themes")
#: Seconds; they end only what hangs.
_DOWNLOAD_LIMIT, _BUILD_LIMIT, _START_LIMIT = 600.0, 600.0, 300.0


class NotPreparedError(Exception):
    """Keycloak cannot be used on this machine; the text says what is missing."""


def cache_folder() -> Path:
    """Return where downloads of the tests are kept between runs.

    `GATEHOUSE_CACHE`, or a folder among the user's caches.
    """
    chosen = os.environ.get("GATEHOUSE_CACHE")
    if chosen:
        return Path(chosen)
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "gatehouse"


def find_prepared() -> Path:
    """Return the prepared Keycloak of the cache.

    Raises:
        NotPreparedError: Java or the prepared files are missing.
    """
    _find_java()
    home = _prepared_folder()
    if not home.is_dir():
        raise NotPreparedError(
            "Keycloak is not prepared: run python -m tests.support.real_issuers "
            "(needs Java 17 and Maven, downloads 170 MB)"
        )
    return home


def prepare() -> Path:
    """Fill the cache, unless that was done, and return the prepared Keycloak.

    Raises:
        NotPreparedError: a program is missing, or a step failed; with its output.
    """
    _find_java()
    folder, home = cache_folder(), _prepared_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder / "keycloak.lock"):
        if home.is_dir():
            return home
        new = folder / f"{home.name}.new"
        shutil.rmtree(new, ignore_errors=True)
        _unpack(_fetch_zip(folder), new)
        _run(java_command(new, *_BUILD), _BUILD_LIMIT)
        _make_database(new)
        new.rename(home)
        # The unpacked files take its place.
        (folder / _ZIP).unlink()
    return home


def make_home(prepared: Path, home: Path) -> None:
    """Make a home for one server: links to what it reads, a database of its own."""
    (home / "data").mkdir(parents=True)
    for name in _READ_ONLY:
        (home / name).symlink_to(prepared / name)
    shutil.copytree(prepared / "data" / "h2", home / "data" / "h2")


def java_command(home: Path, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs Keycloak; bin/kc.sh would leave a shell above it."""
    return (
        *(_find_java(), *_JAVA),
        *(f"-Dkc.home.dir={home}", f"-Djboss.server.config.dir={home / 'conf'}"),
        *("-cp", str(home / "lib" / "quarkus-run.jar")),
        *("io.quarkus.bootstrap.runner.QuarkusEntryPoint", *arguments),
    )


def start_arguments(port: int) -> tuple[str, ...]:
    """Return how a server is started that listens on this loopback port alone."""
    return (
        *("start", "--optimized", "--http-enabled=true", "--http-host=127.0.0.1"),
        *(f"--http-port={port}", f"--hostname=http://127.0.0.1:{port}"),
    )


def _find_java() -> str:
    found = shutil.which("java")
    if found is None:
        raise NotPreparedError(
            "Keycloak needs Java 17: apt-get install openjdk-17-jre-headless"
        )
    return found


def _prepared_folder() -> Path:
    """Return the folder that these settings lead to; others lead to another one."""
    settings = repr((_SHA256, _BUILD, ADMIN_USERNAME, ADMIN_PASSWORD))
    digest = hashlib.sha256(settings.encode()).hexdigest()
    return cache_folder() / f"keycloak-{VERSION}-{digest[:12]}"


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch_zip(folder: Path) -> Path:
    """Return the distribution, downloaded by Maven unless it is there already."""
    archive = folder / _ZIP
    if not archive.exists():
        maven = shutil.which("mvn")
        if maven is None:
            raise NotPreparedError(
                f"no Maven: apt-get install maven, or put {_ZIP} into {folder}"
            )
        options = (f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={folder}")
        _run((maven, "-q", "-B", _COPY, *options), _DOWNLOAD_LIMIT)
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        raise NotPreparedError(f"{archive} has the SHA-256 {found}, not {_SHA256}")
    return archive


def _unpack(archive: Path, new: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(new)
    # Its one folder becomes the home itself.
    inner = new / f"keycloak-{VERSION}"
    for path in inner.iterdir():
        path.rename(new / path.name)
    inner.rmdir()


def _make_database(home: Path) -> None:
    """Let a first start create the tables and the administrator: 13 s of CPU that no
    later start needs.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = home / "first-start.log"
    admin = {
        "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN_USERNAME,
        "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
    }
    with log.open("wb") as output:
        server = subprocess.Popen(
            java_command(home, *start_arguments(port)),
            env={**os.environ, **admin},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + _START_LIMIT
        while not _answers(port):
            if server.poll() is not None or time.monotonic() > end:
                raise NotPreparedError(f"Keycloak did not start\n{_tail(log)}")
            time.sleep(0.2)
    finally:
        server.terminate()
        server.wait(_START_LIMIT)


def _answers(port: int) -> bool:
    try:
        url = f"http://127.0.0.1:{port}/realms/master"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def _run(command: Sequence[str], limit: float) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotPreparedError(f"{command[0]}: not done after {limit} s") from None
    if done.returncode != 0:
        raise NotPreparedError(f"{command[0]} failed\n{done.stdout[-4_000:]}")
