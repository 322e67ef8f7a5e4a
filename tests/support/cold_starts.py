"""Verifiers that are killed and started again from one directory of disk copies."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path
from typing import Any

from tests.support.clock import FakeClock
from tests.support.gatehouse_verifier import SimulatedVerifier
from tests.support.issuer_simulator import FEED_TOKEN, IssuerSimulator
from verifier.disk.copy_format import Record, RecordKind, RecordReader, derive_key
from verifier.disk.state_directory import OWN_NAME

KEY = derive_key(FEED_TOKEN)


class VerifierHost:
    """One issuer, one directory of copies, and the verifiers that share them.

    Attributes:
        state_dir: the directory that is configured.
        directory: the verifiers' own within it, where the copies are.
    """

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.directory = state_dir / OWN_NAME
        self.clock = FakeClock()
        self.issuer = IssuerSimulator(self.clock)
        self._numbers = itertools.count(1)

    async def start(self, *, workers: int = 1, **options: Any) -> SimulatedVerifier:
        """Start a process: it reads the copies, and has not asked the issuer yet."""
        follower_id = str(uuid.UUID(int=next(self._numbers)))
        verifier = SimulatedVerifier(
            self.clock, self.issuer, follower_id=follower_id, **options
        )
        await verifier.start_from(self.state_dir, workers=workers)
        return verifier

    def copies(self) -> list[Path]:
        """Return the files of the directory, but for its lock."""
        return sorted(p for p in self.directory.iterdir() if p.suffix != ".lock")


def kill(verifier: SimulatedVerifier) -> None:
    """End a process without warning: its lock is free, nothing more is written."""
    verifier.copy.close()


def records(path: Path, key: bytes = KEY) -> list[Record]:
    """Read the records of a copy that is whole."""
    with path.open("rb") as file:
        reader = RecordReader(file.fileno(), key)
        return list(reader.records(path.stat().st_size))


def offsets(path: Path) -> list[int]:
    """Return where each record of a copy that is whole begins, and where the last
    ends.
    """
    with path.open("rb") as file:
        reader = RecordReader(file.fileno(), KEY)
        found = [reader.offset]
        for _ in reader.records(path.stat().st_size):
            found.append(reader.offset)
    return found


def has_record(path: Path, kind: RecordKind, content: bytes) -> bool:
    """Return whether some record of that kind holds `content`."""
    return any(r.kind is kind and content in r.payload for r in records(path))
