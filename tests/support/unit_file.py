"""A systemd unit as systemd reads it: sections, repeated keys, continued lines."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "deploy/systemd"

#: What each of these switches takes out of the allowed system calls, by systemd.exec(5)
#: and systemd's own groups.
_SWITCHED_OFF = {
    "PrivateDevices": ("@raw-io",),
    "ProtectClock": ("@clock",),
    "ProtectHostname": ("sethostname", "setdomainname"),
    "ProtectKernelLogs": ("syslog",),
    "ProtectKernelModules": ("@module",),
    "ProtectKernelTunables": ("_sysctl",),
    "RestrictNamespaces": ("setns", "unshare"),
}


@dataclass(frozen=True)
class Unit:
    """The keys of a service unit, each with its values in order.

    Attributes:
        name: of the file, without `.service`: also the user's name under DynamicUser.
        keys: `Section.Key` to values; an empty assignment forgets those before it, as
            it does in systemd.
    """

    name: str
    keys: dict[str, list[str]]

    def values(self, key: str) -> list[str]:
        """Return all values of `Section.Key`, none when it is not set."""
        return self.keys.get(key, [])

    def value(self, key: str, default: str = "") -> str:
        """Return the last value of `Section.Key`."""
        return (self.values(key) or [default])[-1]

    def is_on(self, key: str) -> bool:
        """Return whether a switch of the section `Service` is on."""
        return self.value(f"Service.{key}") in {"yes", "true", "on", "1"}

    def words(self, key: str) -> list[str]:
        """Return the words of a list in the section `Service`."""
        return [w for v in self.values(f"Service.{key}") for w in v.split()]

    def command(self, key: str) -> list[str]:
        """Return the one command of `ExecStart` and its like, empty without one."""
        return shlex.split(self.value(f"Service.{key}"))

    def allowed_calls(self) -> frozenset[str]:
        """Return the system calls that the unit's filters let through.

        The first list decides which kind it is, later ones add to it and take from it
        in order; an allowed list always has `@default` (systemd.exec(5)).

        Raises:
            ValueError: when the unit has no allowed list.
        """
        lists = self.values("Service.SystemCallFilter")
        if not lists or lists[0].startswith("~"):
            raise ValueError(f"{self.name}: SystemCallFilter= has no allowed list")
        allowed = set(expand("@default"))
        for text in lists:
            names = {n for w in text.removeprefix("~").split() for n in expand(w)}
            allowed = allowed - names if text.startswith("~") else allowed | names
        for switch, words in _SWITCHED_OFF.items():
            if self.is_on(switch):
                allowed -= {name for word in words for name in expand(word)}
        return frozenset(allowed)


def read_unit(path: Path) -> Unit:
    """Return a unit file's content."""
    text = re.sub(r"\\\n", " ", path.read_text())
    keys: dict[str, list[str]] = {}
    section = ""
    for line in map(str.strip, text.splitlines()):
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            section = line.strip("[]")
            continue
        key, _, value = line.partition("=")
        values = keys.setdefault(f"{section}.{key.strip()}", [])
        if value.strip():
            values.append(value.strip())
        else:
            values.clear()
    return Unit(path.stem, keys)


def shipped(program: str) -> Unit:
    """Return the unit that ships for `issuer` or `verifier`."""
    return read_unit(UNITS / f"gatehouse-{program}.service")


@cache
def expand(word: str) -> frozenset[str]:
    """Return the system calls that a word of `SystemCallFilter=` stands for.

    A group is what this machine's systemd has in it; a name stands for itself.
    """
    if not word.startswith("@"):
        return frozenset({word.partition(":")[0]})
    shown = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", word],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line.strip() for line in shown.splitlines()[1:]]
    names = [line for line in lines if line and not line.startswith("#")]
    return frozenset().union(*(expand(name) for name in names))
