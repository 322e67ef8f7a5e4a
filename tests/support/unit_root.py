"""The file system that a unit's program sees: the mounts of systemd, and no more.

Stands on a fresh tmpfs and not on the machine's root: `/opt/gatehouse` and the unit's
directories need not be there, and nothing on this machine is changed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.support import linux
from tests.support.unit_file import ROOT, Unit

INSTALLED = Path("/opt/gatehouse")
#: The files that a program looks up in /etc; all the rest stays out.
_LOOKED_UP = (
    *("passwd", "group", "nsswitch.conf", "hosts", "resolv.conf", "host.conf"),
    *("gai.conf", "services", "protocols", "ld.so.cache", "localtime", "ssl"),
)
_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True)
class Places:
    """The machine's own directories that a unit uses, in a folder of the test's.

    Attributes:
        folder: holds `etc/gatehouse`, `var/lib`, `run`, and the mount point `root`.
    """

    folder: Path

    @property
    def root(self) -> Path:
        """Where the program's root is put together."""
        return self.folder / "root"

    def environment_file(self, unit: Unit) -> Path:
        """Return the file of settings, which systemd reads and not the program."""
        return self.folder / unit.value("Service.EnvironmentFile").lstrip("/")

    def directories(self, unit: Unit) -> Iterable[tuple[Path, str, int]]:
        """Give each directory of the unit's own: here, inside, and its mode."""
        for key, base in (("StateDirectory", "var/lib"), ("RuntimeDirectory", "run")):
            mode = int(unit.value(f"Service.{key}Mode", "0755"), 8)
            for name in unit.words(key):
                yield self.folder / base / name, f"/{base}/{name}", mode


def build_root(unit: Unit, places: Places, binds: Iterable[tuple[str, str]]) -> None:
    """Mount the unit's root at `places.root`, in a mount namespace of this process.

    Args:
        unit: names its own paths and the closed ones.
        places: where its directories are.
        binds: further paths that are there on such a machine: here, and inside.
    """
    linux.make_mounts_private()
    root = places.root
    linux.mount_tmpfs(root, "755")
    _mount_system(root)
    # ProtectProc=
    is_hidden = unit.value("Service.ProtectProc") == "invisible"
    linux.mount_proc(root / "proc", f"hidepid={'invisible' if is_hidden else 'off'}")
    _mount_project(root)
    linux.bind(places.folder / "etc/gatehouse", root / "etc/gatehouse")
    for here, inside, _ in places.directories(unit):
        linux.bind(here, root / inside[1:], is_writable=True)
    for here, inside in binds:
        linux.bind(Path(here), root / inside[1:], is_writable=True)
    for name in ("tmp", "var/tmp"):
        # PrivateTmp=yes
        linux.mount_tmpfs(root / name, "1777")
    for name in ("home", "root", "run/user"):
        # ProtectHome=yes
        (root / name).mkdir(mode=0o000, parents=True, exist_ok=True)
    # ProtectSystem=strict
    linux.make_read_only(root)


def _mount_system(root: Path) -> None:
    linux.bind(Path("/usr"), root / "usr")
    base = Path(sys.base_prefix)
    if not base.is_relative_to("/usr"):
        linux.bind(base, root / str(base)[1:])
    for path in (Path("/") / name for name in _LINKED):
        if path.is_symlink():
            (root / path.name).symlink_to(path.readlink())
        elif path.is_dir():
            linux.bind(path, root / path.name)
    (root / "etc").mkdir()
    for path in (Path("/etc") / name for name in _LOOKED_UP):
        if path.is_dir():
            linux.bind(path, root / "etc" / path.name)
        elif path.exists():
            shutil.copyfile(path, root / "etc" / path.name)
    linux.bind(Path("/sys"), root / "sys")
    # PrivateDevices=yes
    linux.mount_devices(root / "dev")


def _mount_project(root: Path) -> None:
    """Show the tree where the unit expects it, as if it had been cloned there.

    An editable installation names the tree's path in its own files.
    """
    installed = root / str(INSTALLED)[1:]
    venv = Path(sys.prefix)
    if not (ROOT / ".venv").is_dir():
        raise FileNotFoundError(f"{ROOT / '.venv'}: run `make setup` first")
    linux.bind(ROOT, installed)
    if venv != ROOT / ".venv":
        linux.bind(venv, installed / ".venv")
    rewritten = root / "rewritten"
    rewritten.mkdir()
    for file in (installed / ".venv").glob("lib/python*/site-packages/__editable__*"):
        if file.is_file():
            moved = rewritten / file.name
            moved.write_text(file.read_text().replace(str(ROOT), str(INSTALLED)))
            linux.bind(moved, file)
