"""A clean root directory: files of Debian packages that this machine has, and no
others.

Stands for the image `python:3.11-slim` where no registry of images is reached: Debian's
essential packages, certificates, and a Python with pip under /usr/local. Nothing of
this machine's configuration, caches or other packages is in it.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_QUERY: Final = (
    "${binary:Package}\t${Essential}\t${Pre-Depends}, ${Depends}\t${Provides}\t"
    "${db:Status-Status}\n"
)
_INFO: Final = Path("/var/lib/dpkg/info")
#: Besides what is essential: apt, which brings libstdc++ (greenlet needs it),
#: certificates, users, and what makes a Python with pip.
_BASE: Final = (
    *("apt", "base-passwd", "ca-certificates", "netbase", "python3-venv", "tzdata"),
)
#: Python's headers, which the image has and Debian keeps in packages of their own.
_HEADERS: Final = re.compile(r"libpython3\.\d+-dev(:\w+)?")
_LEFT_OUT: Final = (
    *("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*"),
    *("usr/lib/python3/dist-packages/*", "*/__pycache__/*", "*.a"),
)


class NoPackagesError(Exception):
    """This machine lacks the packages; the message names them."""


@dataclass(frozen=True)
class Package:
    """An installed package; `needs` lists alternatives for each thing it needs."""

    name: str
    is_essential: bool
    needs: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]


def read_packages() -> dict[str, Package]:
    """Return this machine's packages by name, and by the names they provide.

    Raises:
        NoPackagesError: where there is no dpkg.
    """
    try:
        shown = subprocess.run(
            ["dpkg-query", "-W", f"-f={_QUERY}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoPackagesError(f"a Debian machine is needed: {error}") from None
    found: dict[str, Package] = {}
    provided: dict[str, Package] = {}
    for line in shown.splitlines():
        name, essential, needs, provides, status = line.split("\t")
        if status != "installed":
            continue
        package = Package(
            name,
            essential == "yes",
            tuple(_names(n.replace("|", ",")) for n in needs.split(",") if n.strip()),
            _names(provides),
        )
        found[name.partition(":")[0]] = package
        provided |= dict.fromkeys(package.provides, package)
    return provided | found


def _names(text: str) -> tuple[str, ...]:
    words = (re.sub(r"\(.*?\)|:\w+", "", part).strip() for part in text.split(","))
    return tuple(word for word in words if word)


def closure(packages: Mapping[str, Package], names: Iterable[str]) -> list[Package]:
    """Return the named packages and all that they need.

    Raises:
        NoPackagesError: when one of the named is not installed.
    """
    if missing := [name for name in names if name not in packages]:
        raise NoPackagesError(f"Debian packages are needed: {', '.join(missing)}")
    found: dict[str, Package] = {}
    waiting = [packages[name] for name in names]
    while waiting:
        package = waiting.pop()
        if package.name in found:
            continue
        found[package.name] = package
        for alternatives in package.needs:
            known = [packages[name] for name in alternatives if name in packages]
            waiting += known[:1]
    return list(found.values())


def list_files(packages: Iterable[Package]) -> str:
    """Return the paths that the packages hold, one a line, relative to the root."""
    paths: set[str] = set()
    for package in packages:
        name = package.name.partition(":")[0]
        found = [_INFO / f"{package.name}.list", *sorted(_INFO.glob(f"{name}:*.list"))]
        path = next(path for path in (*found, _INFO / f"{name}.list") if path.exists())
        paths |= {line.lstrip("/") for line in path.read_text().splitlines()}
    there = {_place(path) for path in paths - {"", "."}} - {None}
    return "".join(f"{path}\n" for path in sorted(map(str, there)))


def _place(path: str) -> str | None:
    """Return where a package's file is, None when this minimal machine left it out.

    Debian's packages say `/bin/sh` where `/bin` is a link to `/usr/bin`.
    """
    named = Path("/", path)
    real = named.parent.resolve() / named.name
    if not real.is_symlink() and not real.exists():
        return None
    is_top_link = real.is_symlink() and real.parent == Path("/")
    return None if is_top_link else str(real.relative_to("/"))


def make_root(root: Path) -> None:
    """Fill the directory, which is made.

    Raises:
        NoPackagesError: when this machine lacks a package.
    """
    packages = read_packages()
    essential = [name for name, p in packages.items() if p.is_essential]
    chosen = closure(packages, (*essential, *_BASE))
    headers = [p for p in packages.values() if _HEADERS.fullmatch(p.name)]
    root.mkdir(parents=True)
    for link in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if (Path("/") / link).is_symlink():
            (root / link).symlink_to((Path("/") / link).readlink())
    _copy(list_files([*chosen, *headers]), root)
    for name in ("dev", "proc", "sys", "tmp", "run", "etc", "root"):
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for kind in ("passwd", "group"):
        made = (root / f"usr/share/base-passwd/{kind}.master").read_text()
        (root / "etc" / kind).write_text(made)
    python = next(root.glob("usr/bin/python3.[0-9]*")).name
    for command in (["ldconfig"], [f"/usr/bin/{python}", "-m", "venv", "/usr/local"]):
        subprocess.run(["chroot", root, *command], env=_PLAIN, check=True)


_PLAIN: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def _copy(names: str, root: Path) -> None:
    excludes = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
    # The archive goes through a file: names go in and bytes come out of the first tar.
    with tempfile.TemporaryFile() as archive:
        subprocess.run(
            ["tar", "-C", "/", "--no-recursion", *excludes, "-cf", "-", "-T", "-"],
            input=names.encode(),
            stdout=archive,
            check=True,
        )
        archive.seek(0)
        subprocess.run(["tar", "-C", root, "-xpf", "-"], stdin=archive, check=True)
