"""A network of its own for one program, joined to ours by one virtual cable.

Needs the rights to make network namespaces. Without them a test is skipped, and in CI
it fails: a test that did not run must not look green.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_numbers = itertools.count(1)
_UNKNOWN_QDISC = "qdisc kind is unknown"


class Namespace:
    """A namespace and its cable.

    Attributes:
        prefix: stands before a command that is to run in it.
        here: our end's address.
    """

    def __init__(self) -> None:
        number = next(_numbers)
        self._name = f"gatehouse-{os.getpid()}-{number}"
        self._ours, self._theirs = (f"gh{os.getpid()}{e}{number}" for e in "ab")
        # Of 198.18.0.0/15, which is for tests of networks (RFC 2544).
        net = f"198.18.{os.getpid() % 256}.{number % 60 * 4}"
        stem, _, last = net.rpartition(".")
        self.here, there = (f"{stem}.{int(last) + n}" for n in (1, 2))
        self.prefix = ("ip", "netns", "exec", self._name)
        _run("ip", "netns", "add", self._name)
        try:
            pair = ("type", "veth", "peer", "name", self._theirs)
            _run("ip", "link", "add", self._ours, *pair, "netns", self._name)
            _run("ip", "address", "add", f"{self.here}/30", "dev", self._ours)
            _run("ip", "link", "set", self._ours, "up")
            inside = ("ip", "-n", self._name)
            _run(*inside, "address", "add", f"{there}/30", "dev", self._theirs)
            _run(*inside, "link", "set", self._theirs, "up")
            _run(*inside, "link", "set", "lo", "up")
        except BaseException:
            self.remove()
            raise

    def spoil(self, *, delay_ms: int, loss_percent: int) -> bool:
        """Delay and lose packets both ways; return whether this kernel can (netem)."""
        ends = (((), self._ours), (self.prefix, self._theirs))
        netem = ("netem", "delay", f"{delay_ms}ms", "loss", f"{loss_percent}%")
        for prefix, device in ends:
            try:
                _run(*prefix, "tc", "qdisc", "add", "dev", device, "root", *netem)
            except NetworkError as error:
                if _UNKNOWN_QDISC in str(error):
                    return False
                raise
        return True

    def cut(self) -> None:
        """Drop every packet silently."""
        _run("ip", "link", "set", self._ours, "down")

    def mend(self) -> None:
        """Let packets through again."""
        _run("ip", "link", "set", self._ours, "up")

    def remove(self) -> None:
        """Remove it with its cable; its programs were stopped before."""
        _run("ip", "netns", "delete", self._name)


class NetworkError(Exception):
    """A command failed; the message is its output."""


@contextmanager
def new_namespace() -> Iterator[Namespace]:
    """Give a namespace for the length of the block."""
    try:
        namespace = Namespace()
    except (NetworkError, FileNotFoundError) as error:
        message = f"network namespaces cannot be made here: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    try:
        yield namespace
    finally:
        namespace.remove()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NetworkError(f"{' '.join(command)}: {done.stderr.strip()}")
