"""Run one command as a unit's program: `python -m tests.support.unit_sandbox SPEC`.

Stands in for systemd where none runs. It does what the unit's keys ask for (user,
namespaces, mounts, system calls), becomes the parent that passes signals on, and writes
every denied system call to a file. A key that it does not know ends it: a restriction
that no test applies must not look tested.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shlex
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from tests.support import linux, seccomp
from tests.support.processes import descendants
from tests.support.seccomp import Condition, Filter
from tests.support.unit_file import Unit, read_unit
from tests.support.unit_root import Places, build_root

#: Keys that are done here, and those that only say when to start and stop.
_DONE: Final = frozenset(
    (
        *("Environment", "EnvironmentFile", "WorkingDirectory", "UMask", "DynamicUser"),
        *("Group", "StateDirectory", "StateDirectoryMode", "RuntimeDirectory"),
        *("RuntimeDirectoryMode", "NoNewPrivileges", "CapabilityBoundingSet"),
        *("AmbientCapabilities", "ProtectSystem", "ProtectHome", "PrivateTmp"),
        *("PrivateDevices", "PrivateUsers", "ProtectProc", "RestrictAddressFamilies"),
        *("RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID"),
        *("LockPersonality", "MemoryDenyWriteExecute", "SystemCallArchitectures"),
        *("SystemCallFilter", "SystemCallErrorNumber", "ProtectClock"),
        *("ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules"),
        *("Type", "ExecStart", "ExecStartPre", "ExecReload", "Restart", "RestartSec"),
        "TimeoutStopSec",
        # Its number is that of a dynamic user all the same.
        "User",
    )
)
#: Keys of which only a part is done: the files under /proc/sys and /sys/fs/cgroup stay
#: as they are, though not writable for this user; SysV objects are not removed.
_PARTLY: Final = frozenset(
    {"ProtectControlGroups", "ProtectKernelTunables", "RemoveIPC"}
)
_NAMESPACES: Final = 0x7E020080
_EXIT_SETUP: Final = 125
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


@dataclass(frozen=True)
class Spec:
    """The command to run.

    Attributes:
        unit: path of the unit file.
        places: the folder that `Places` describes.
        command: program and arguments.
        user: number that DynamicUser would have given.
        group: likewise, or that of the unit's `Group=`.
        binds: further paths: here, and inside.
        denials: file that gets one line per denied system call.
    """

    unit: str
    places: str
    command: list[str]
    user: int
    group: int
    binds: list[tuple[str, str]]
    denials: str

    def to_json(self) -> str:
        """Return it as the command's argument."""
        return json.dumps(asdict(self))


def main() -> int:
    """Run the command; return its exit status, 128 and the signal when it was
    killed.
    """
    spec = Spec(**json.loads(sys.argv[1]))
    unit = read_unit(Path(spec.unit))
    keys = {k.removeprefix("Service.") for k in unit.keys if k.startswith("Service.")}
    if unknown := keys - _DONE - _PARTLY:
        raise SystemExit(f"{spec.unit}: not done here: {', '.join(sorted(unknown))}")
    filter_ = filter_of(unit)
    linux.adopt_orphans()
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            _become(spec, unit, filter_, theirs)
        except BaseException:
            traceback.print_exc()
        os._exit(_EXIT_SETUP)
    theirs.close()
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _frame: _send_to_all(number))
    with ours:
        descriptor = _attend(ours, child, spec)
    if descriptor is not None:
        _watch(descriptor, child, filter_, Path(spec.denials))
    _, status = os.waitpid(child, 0)
    _send_to_all(signal.SIGKILL)
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def filter_of(unit: Unit) -> Filter:
    """Return the system calls that the unit allows its program."""
    word = unit.value("Service.SystemCallErrorNumber")
    families = [getattr(socket, name) for name in unit.words("RestrictAddressFamilies")]
    conditional: dict[str, seccomp.Alternatives] = {}
    absent = set()
    if families:
        conditional["socket"] = [[Condition(0, 0xFFFFFFFF, f)] for f in families]
    if unit.is_on("MemoryDenyWriteExecute"):
        # Pages are written or executed (PROT_WRITE 2, PROT_EXEC 4), never both.
        conditional["mmap"] = [[Condition(2, 6, value)] for value in (0, 2, 4)]
        conditional["mprotect"] = conditional["pkey_mprotect"] = [[Condition(2, 4, 0)]]
        conditional["shmat"] = [[Condition(2, 0o100000, 0)]]
    if unit.is_on("RestrictNamespaces"):
        conditional["clone"] = [[Condition(0, _NAMESPACES, 0)]]
        # Its flags are in memory, where no filter can look.
        absent.add("clone3")
    if unit.is_on("RestrictRealtime"):
        policies = (0, 3, 5)  # SCHED_OTHER, SCHED_BATCH, SCHED_IDLE
        conditional["sched_setscheduler"] = [
            [Condition(1, 0xFFFFFFFF, policy)] for policy in policies
        ]
    if unit.is_on("RestrictSUIDSGID"):
        conditional |= _without_set_id()
        absent.add("openat2")
    if unit.is_on("LockPersonality"):
        shown = (0, 0xFFFFFFFF)
        conditional["personality"] = [[Condition(0, 0xFFFFFFFF, v)] for v in shown]
    return Filter(
        allowed=unit.allowed_calls(),
        conditional=conditional,
        absent=frozenset(absent),
        errors={"socket": errno.EAFNOSUPPORT}
        | dict.fromkeys(conditional.keys() - {"socket"}, errno.EPERM),
        default_error=getattr(errno, word) if word else None,
    )


def _without_set_id() -> Mapping[str, seccomp.Alternatives]:
    """Return the conditions under which no file gets a set-user-ID or -group-ID bit."""
    bits, create = 0o6000, os.O_CREAT
    modes = {"chmod": 1, "fchmod": 1, "mkdir": 1, "mknod": 1, "creat": 1}
    modes |= {"fchmodat": 2, "fchmodat2": 2, "mkdirat": 2, "mknodat": 2}
    found: dict[str, seccomp.Alternatives] = {
        name: [[Condition(argument, bits, 0)]] for name, argument in modes.items()
    }
    for name, flags in (("open", 1), ("openat", 2)):
        # Without O_CREAT the mode is not looked at, and may be anything.
        found[name] = [
            [Condition(flags, create, 0)],
            [Condition(flags, create, create), Condition(flags + 1, bits, 0)],
        ]
    return found


def _become(spec: Spec, unit: Unit, filter_: Filter, parent: socket.socket) -> None:
    """Turn this process into the unit's program."""
    places = Places(Path(spec.places))
    environment = _environment(unit, places)
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC)
    build_root(unit, places, spec.binds)
    linux.change_root(places.root)
    if unit.is_on("PrivateUsers"):
        linux.unshare(linux.CLONE_NEWUSER)
        parent.sendall(b"u")
        parent.recv(1)
    # CapabilityBoundingSet= with nothing in it
    linux.drop_capabilities()
    os.setgroups([])
    os.setresgid(spec.group, spec.group, spec.group)
    os.setresuid(spec.user, spec.user, spec.user)
    linux.die_with_parent(signal.SIGKILL)
    os.umask(int(unit.value("Service.UMask", "0022"), 8))
    os.chdir(unit.value("Service.WorkingDirectory", "/"))
    linux.forbid_new_privileges()
    descriptor = seccomp.install(filter_)
    socket.send_fds(parent, [b"f"], [descriptor])
    os.execve(spec.command[0], spec.command, environment)


def _environment(unit: Unit, places: Places) -> dict[str, str]:
    """Return the program's environment: systemd's own, the unit's, the file's.

    Without HOME and without an entry in passwd, as where libnss-systemd is missing.
    """
    made = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
        "USER": unit.name,
        "LOGNAME": unit.name,
    }
    for text in unit.values("Service.Environment"):
        made |= dict(pair.split("=", 1) for pair in shlex.split(text))
    file = places.environment_file(unit)
    values = dotenv_values(file, interpolate=False)
    return made | {name: value or "" for name, value in values.items()}


def _attend(ours: socket.socket, child: int, spec: Spec) -> int | None:
    """Give the child its map of users and take the descriptor of its denials."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        if message == b"u":
            for kind, number in (("uid", spec.user), ("gid", spec.group)):
                lines = f"0 0 1\n{number} {number} 1\n"
                Path(f"/proc/{child}/{kind}_map").write_text(lines)
            ours.sendall(b"u")
            continue
        return descriptors[0] if descriptors else None


def _watch(descriptor: int, child: int, filter_: Filter, denials: Path) -> None:
    """Answer denied calls and write them down until the program has ended."""
    end = os.pidfd_open(child)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(end, select.POLLIN)
    while True:
        # Once no process has the filter any more, there is no more than POLLHUP.
        ready = {number for number, events in poll.poll() if events & select.POLLIN}
        if descriptor in ready:
            line = seccomp.answer_one(descriptor, filter_)
            if line is not None:
                with denials.open("a") as file:
                    file.write(line + "\n")
        elif end in ready:
            return


def _send_to_all(number: int) -> None:
    """Send a signal to every process of the unit (KillMode=control-group)."""
    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    sys.exit(main())
