"""Calls of Linux that Python has no function for, all for throw-away child
processes.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_REMOUNT: Final = 32
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2

_PR_SET_PDEATHSIG: Final = 1
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38

_libc = ctypes.CDLL(None, use_errno=True)
#: The contents of `/dev` for a program that has devices of its own.
DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the namespaces that the flags name for new ones."""
    _check(_libc.unshare(flags), "unshare")


def make_mounts_private() -> None:
    """Keep later mounts in this mount namespace."""
    _mount(None, Path("/"), None, _MS_REC | _MS_PRIVATE)


def mount_tmpfs(where: Path, mode: str) -> None:
    """Mount an empty file system; the directory is made."""
    where.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", where, "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode={mode}")


def mount_overlay(where: Path, options: str) -> None:
    """Mount directories over one another (overlayfs)."""
    _mount("overlay", where, "overlay", 0, options)


def mount_proc(where: Path, options: str = "") -> None:
    """Mount this PID namespace's processes."""
    where.mkdir(parents=True, exist_ok=True)
    _mount("proc", where, "proc", _MS_NOSUID | _MS_NODEV, options)


def bind(what: Path, where: Path, *, is_writable: bool = False) -> None:
    """Show `what` at `where` as well, with what is mounted in it; makes the mount
    point.
    """
    if what.is_dir():
        where.mkdir(parents=True, exist_ok=True)
    elif not where.exists():
        where.parent.mkdir(parents=True, exist_ok=True)
        where.touch()
    _mount(str(what), where, None, _MS_BIND | _MS_REC)
    if not is_writable:
        make_read_only(where)


def make_read_only(where: Path) -> None:
    """Let nothing be written through this mount."""
    _mount(None, where, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def mount_devices(where: Path) -> None:
    """Mount the devices that hold nothing, and the shared memory."""
    mount_tmpfs(where, "755")
    for name in DEVICES:
        bind(Path("/dev") / name, where / name, is_writable=True)
    bind(Path("/dev/shm"), where / "shm", is_writable=True)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1")):
        (where / name).symlink_to(f"/proc/self/{target}")
    (where / "stderr").symlink_to("/proc/self/fd/2")


def change_root(root: Path) -> None:
    """Make `root`, a mount point, the root of this mount namespace."""
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")


def drop_capabilities() -> None:
    """Empty the bounding set: no program started from here can gain a capability."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        _prctl(_PR_CAPBSET_DROP, capability)


def forbid_new_privileges() -> None:
    """Let no program gain rights by its file's mode (no_new_privs)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(signal_number: int) -> None:
    """Get this signal when the parent ends; to be asked for after the user changed."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def adopt_orphans() -> None:
    """Become the parent of descendants with an ended parent."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    words = (ctypes.c_ulong(word) for word in (value, 0, 0, 0))
    _check(_libc.prctl(option, *words), f"prctl {option}")


def _mount(
    source: str | None, where: Path, kind: str | None, flags: int, data: str = ""
) -> None:
    result = _libc.mount(
        source.encode() if source is not None else None,
        str(where).encode(),
        kind.encode() if kind is not None else None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, f"mount {source or kind or flags} on {where}")
