"""What is read of running programs: memory, descriptors, threads, rows, files, logs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from issuer.storage.tables import Base
from loadtests.support.processes import descendants
from loadtests.support.site import Site
from verifier.disk.state_directory import OWN_NAME as COPIES


class Usage(NamedTuple):
    """What one program takes, all its processes together.

    Attributes:
        processes: how many there are.
        memory: proportional set size, bytes: shared pages count in parts, so that the
            sum over all processes is what the machine has to hold.
        private: of it, what no other process shares, bytes.
        descriptors: open files and sockets.
        threads: threads.
    """

    processes: int
    memory: int
    private: int
    descriptors: int
    threads: int


class Files(NamedTuple):
    """What is on the disk, without the database.

    Attributes:
        files: how many files there are besides the logs.
        file_bytes: their sizes in sum, without the next.
        copy_bytes: that of the verifier's disk copies, which are appended to until they
            are written anew.
        log_bytes: that of the logs.
    """

    files: int
    file_bytes: int
    copy_bytes: int
    log_bytes: int


def usage_of(pid: int) -> Usage:
    """Return what a program takes: this process and all that descend from it."""
    # One that ends while it is read counts no more.
    read = [
        found
        for each in sorted({pid, *descendants(pid)})
        if (found := _usage_of_process(Path(f"/proc/{each}"))) is not None
    ]
    return Usage(*(sum(column) for column in zip(*read, strict=True)))


def _usage_of_process(proc: Path) -> Usage | None:
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        memory = _fields(proc / "smaps_rollup")
        threads = _fields(proc / "status")["Threads"]
        private = memory["Private_Clean"] + memory["Private_Dirty"]
        descriptors = sum(1 for _ in (proc / "fd").iterdir())
        pss = memory["Pss"] * 1024
        return Usage(1, pss, private * 1024, descriptors, threads)
    return None


def _fields(path: Path) -> dict[str, int]:
    """Return the lines `Name: number` of a file of /proc."""
    found = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name] = int(words[0])
    return found


def files_of(folder: Path) -> Files:
    """Return what is in the folder of a site; SQLite's own files are left out."""
    files = 0
    sizes = {"file": 0, "copy": 0, "log": 0}
    for path in folder.rglob("*"):
        if path.name.startswith("issuer.db"):
            continue
        with suppress(FileNotFoundError):
            if not path.is_file():
                continue
            kind = _kind_of(path)
            sizes[kind] += path.stat().st_size
            files += kind != "log"
    return Files(files, sizes["file"], sizes["copy"], sizes["log"])


def _kind_of(path: Path) -> str:
    if path.suffix == ".log":
        return "log"
    return "copy" if path.parent.name == COPIES else "file"


def rows_of(site: Site) -> Mapping[str, int]:
    """Return how many rows each table has, counted."""
    query = _counting(sorted(Base.metadata.tables))
    if site.postgres is not None:
        lines = site.postgres.run_sql(query, database=site.database).splitlines()
        pairs: Iterable[tuple[str, str]] = (
            (name, number)
            for name, _, number in (line.partition("|") for line in lines)
        )
    else:
        reading = f"file:{site.folder / 'issuer.db'}?mode=ro"
        with sqlite3.connect(reading, uri=True, timeout=30) as database:
            pairs = database.execute(query).fetchall()
    return {name: int(number) for name, number in pairs}


def _counting(tables: Iterable[str]) -> str:
    return " UNION ALL ".join(
        f"SELECT '{table}', count(*) FROM {table}" for table in tables
    )
