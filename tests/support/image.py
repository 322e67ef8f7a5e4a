"""The Dockerfile's own instructions, carried out without Docker: build, run, ask.

A stage is a stack of directories (overlayfs), as in an engine. `RUN` is done in a root
of its own without a network; what it installs comes from wheels that were fetched
before, and from the Debian packages of this machine. Needs root.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.support.debian_root import closure, list_files, make_root, read_packages
from tests.support.dockerfile import (
    ROOT,
    Instruction,
    base_of,
    context_rules,
    read_stages,
)

_BASE: Final = "python:3.11-slim"
#: The same for every container: what Docker sets, and the image's Python comes first.
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin"}
#: Stands for apt-get: copies the files of packages that this machine has.
_APT_GET: Final = """#!/bin/sh -e
for word; do
    case $word in
        update | install | -*) ;;
        *) tar -C /machine --no-recursion -cf - -T "/lists/$word" | tar -C / -xpf - ;;
    esac
done
"""
_PACKAGE: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")


class BuildError(AssertionError):
    """An instruction failed; the message shows it and its output."""


@dataclass(frozen=True)
class Stage:
    """The result of a stage.

    Attributes:
        layers: directories, the newest first.
        environment: of `RUN` and of the program.
        directory: the working directory.
        user: `USER:GROUP`, numbers.
        entrypoint: the program.
        health: the command of `HEALTHCHECK`.
    """

    layers: tuple[Path, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(_ENVIRONMENT))
    directory: str = "/"
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()
    health: tuple[str, ...] = ()


class ImageBuilder:
    """Builds targets of the Dockerfile, each stage once.

    Args:
        folder: for the layers; made.
        wheels: a folder with every wheel that the locks name.
    """

    def __init__(self, folder: Path, wheels: Path) -> None:
        self._folder = folder
        self._wheels = wheels
        self._stages: dict[str, Stage] = {}
        self._instructions = read_stages()
        self._packages = read_packages()

    def build(self, target: str) -> Stage:
        """Return a stage, built when it was not yet.

        Raises:
            BuildError: when an instruction fails.
        """
        if target not in self._stages:
            self._stages[target] = self._make(target)
        return self._stages[target]

    def _make(self, target: str) -> Stage:
        if target == _BASE:
            root = self._folder / "base"
            make_root(root)
            return Stage((root,))
        first, *rest = self._instructions[target]
        below = self.build(base_of([first]))
        layer = self._folder / target
        layer.mkdir()
        stage = replace(below, layers=(layer, *below.layers))
        for instruction in rest:
            stage = self._do(stage, instruction)
        return stage

    def _do(self, stage: Stage, instruction: Instruction) -> Stage:
        word, rest = instruction
        match word:
            case "ENV":
                pairs = (pair.split("=", 1) for pair in shlex.split(rest))
                path = stage.environment["PATH"]
                given = {n: v.replace("$PATH", path) for n, v in pairs}
                return replace(stage, environment={**stage.environment, **given})
            case "WORKDIR":
                (stage.layers[0] / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
                return replace(stage, directory=rest)
            case "USER":
                return replace(stage, user=rest)
            case "RUN":
                self._run(stage, rest)
                return stage
            case "COPY":
                self._copy(stage, rest)
                return stage
            case "ENTRYPOINT":
                return replace(stage, entrypoint=_read_list(rest))
            case "HEALTHCHECK":
                return replace(stage, health=_read_list(rest.partition(" CMD ")[2]))
            case "EXPOSE":
                return stage
        raise BuildError(f"{word}: is not carried out here")

    def _run(self, stage: Stage, command: str) -> None:
        lists = self._folder / "lists"
        lists.mkdir(exist_ok=True)
        if "apt-get" in command:
            for name in filter(_PACKAGE.fullmatch, shlex.split(command)):
                if name in self._packages:
                    needed = closure(self._packages, [name])
                    (lists / name).write_text(list_files(needed))
        shim = self._folder / "apt-get"
        shim.write_text(_APT_GET)
        shim.chmod(0o755)
        environment = {
            **stage.environment,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/wheels",
        }
        done = Container(
            stage,
            self._folder / "mount",
            is_writable=True,
            binds={
                self._wheels: "/wheels",
                lists: "/lists",
                Path("/"): "/machine",
                shim: "/usr/local/sbin/apt-get",
            },
            environment=environment,
        ).run(["/bin/sh", "-c", command], own_network=True)
        for left in ("wheels", "lists", "machine", "usr/local/sbin/apt-get"):
            _remove_mount_point(stage.layers[0] / left)
        if done.returncode != 0:
            raise BuildError(
                f"RUN {command}\n{done.stdout[-4_000:]}{done.stderr[-4_000:]}"
            )

    def _copy(self, stage: Stage, rest: str) -> None:
        *sources, target = shlex.split(rest)
        origin: Stage | None = None
        if sources[0].startswith("--from="):
            origin = self.build(sources.pop(0).removeprefix("--from="))
        for source in sources:
            where = stage.layers[0] / target.lstrip("/")
            where.parent.mkdir(parents=True, exist_ok=True)
            if origin is None:
                _copy_from_context(source, where)
                continue
            # Oldest first, so that a later layer replaces an earlier one.
            for layer in reversed(origin.layers):
                found = layer / source.lstrip("/")
                if found.exists():
                    subprocess.run(["cp", "-a", "-T", found, where], check=True)


def _remove_mount_point(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _copy_from_context(source: str, where: Path) -> None:
    allowed, refused = context_rules()
    if source not in allowed:
        raise BuildError(f"COPY {source}: .dockerignore keeps it out of the build")

    def leave_out(folder: str, names: list[str]) -> set[str]:
        patterns = [rule.removeprefix("**/") for rule in refused]
        return {n for n in names if any(fnmatch.fnmatch(n, p) for p in patterns)}

    path = ROOT / source
    if path.is_dir():
        shutil.copytree(path, where, ignore=leave_out, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, where)


def _read_list(text: str) -> tuple[str, ...]:
    words = re.findall(r'"([^"]*)"', text)
    return tuple(words)


@dataclass(frozen=True)
class Container:
    """One way to run an image: `docker run` with its options.

    Attributes:
        stage: the image.
        mount: a directory to mount it at; made.
        is_writable: False is `--read-only`.
        binds: volumes: here, and inside.
        environment: the program's whole environment.
        is_tmp_writable: `--tmpfs /tmp`.
    """

    stage: Stage
    mount: Path
    is_writable: bool = False
    binds: Mapping[Path, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    is_tmp_writable: bool = True

    def command(self, command: list[str], *, own_network: bool = False) -> list[str]:
        """Return the command line that runs it as the container's first process."""
        self.mount.mkdir(exist_ok=True)
        layers = [str(layer) for layer in self.stage.layers]
        work = self.mount.with_name(f"{self.mount.name}-work")
        work.mkdir(exist_ok=True)
        if self.is_writable:
            options = f"lowerdir={':'.join(layers[1:])},upperdir={layers[0]}"
            options += f",workdir={work}"
        else:
            # Without an upper directory there is nowhere to write to.
            options = f"lowerdir={':'.join([str(work), *layers])}"
            for inside in self.binds.values():
                # As an engine makes mount points that the image lacks.
                (work / inside.lstrip("/")).mkdir(parents=True, exist_ok=True)
        user, _, group = self.stage.user.partition(":")
        return [
            *(
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--ipc",
                "--uts",
            ),
            *(("--net",) if own_network else ()),
            *(sys.executable, "-m", "tests.support.container"),
            *(("--loopback",) if own_network else ()),
            *("--overlay", options, "--root", str(self.mount)),
            *("--user", user, "--group", group, "--directory", self.stage.directory),
            *(("--tmpfs", "/tmp") if self.is_tmp_writable else ()),
            *(f"--bind={here}:{inside}" for here, inside in self.binds.items()),
            *(f"--env={name}={value}" for name, value in self.environment.items()),
            *("--", *command),
        ]

    def run(
        self, command: list[str], *, own_network: bool = False, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the container's first process, to its end."""
        return subprocess.run(
            self.command(command, own_network=own_network),
            cwd=ROOT,
            input=given,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    def execute(
        self, pid: int, command: list[str] | tuple[str, ...]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command beside the container's first process: `docker exec`.

        Args:
            pid: of the first process, as this machine counts.
            command: as the image would run it: same user, directory and environment.
        """
        user, _, group = self.stage.user.partition(":")
        return subprocess.run(
            [
                *("nsenter", f"--target={pid}", "--mount", "--pid", "--net", "--root"),
                f"--wd={Path(f'/proc/{pid}/root') / self.stage.directory.lstrip('/')}",
                *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"),
                *("--bounding-set=-all", "--no-new-privs", "env", "-i"),
                *(f"{name}={value}" for name, value in self.environment.items()),
                *command,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def make_volume(stage: Stage, inside: str, here: Path) -> Path:
    """Make a new named volume, to be mounted at `inside`, and return it.

    Docker gives it the owner and mode of the image's directory, and else root's.
    """
    here.mkdir(mode=0o755)
    for layer in stage.layers:
        found = layer / inside.lstrip("/")
        if found.is_dir():
            status = found.stat()
            os.chown(here, status.st_uid, status.st_gid)
            here.chmod(status.st_mode & 0o7777)
            break
    return here


def first_process(launcher: int) -> int:
    """Return the container's first process, as this machine counts.

    Args:
        launcher: the pid of the process of `Container.command`.
    """
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return int(children[0])


def fetch_wheels(folder: Path, locks: list[Path]) -> None:
    """Fetch every wheel that the locks name, by pip and with its settings here.

    Raises:
        BuildError: when pip fails.
    """
    for lock in locks:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--disable-pip-version-check", "--require-hashes"),
                *("--only-binary", ":all:", "-r", lock, "-d", folder),
            ],
            env=os.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BuildError(f"pip download -r {lock.name}\n{done.stderr[-2_000:]}")
