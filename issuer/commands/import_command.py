"""`python -m issuer import-users`: accounts from a file.

Messages go to standard error, results to standard output.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING

from issuer.accounts.user_rows import RefusedRow, UserRows
from issuer.acts import Caller
from issuer.commands.errors import CommandError
from issuer.commands.row_files import (
    STANDARD_INPUT,
    follow,
    open_rows,
)

if TYPE_CHECKING:
    from issuer.composition import Issuer


async def run(issuer: Issuer, options: argparse.Namespace, actor: str) -> bool:
    """Run the command; return whether every row was used.

    Args:
        issuer: the composed parts.
        options: of the command line.
        actor: for the audit.

    Raises:
        CommandError: when a file cannot be read or written.
        UnavailableError: when the database is away; the reported rows are committed.
    """
    with ExitStack() as stack:
        lines, count = stack.enter_context(open_rows(options.file))
        rows = UserRows(lines)
        refused = stack.enter_context(_RefusedRows(rows, options))
        progress = stack.enter_context(follow(count, is_json=options.json))
        created = already = 0
        outcomes = issuer.accounts.user_import.run(
            rows, actor=actor, caller=Caller(), is_trial=options.dry_run
        )
        async for outcome in outcomes:
            created, already = created + outcome.created, already + outcome.already
            refused.write(outcome.refused)
            progress.show(outcome.rows, outcome.refused)
        _report(created, already, refused, options)
        return not refused.count


class _RefusedRows:
    """The file of refused rows, unchanged from the import; created at the first one.

    It has passwords, so only its owner may read it. An existing file is never
    overwritten: it may have corrections.
    """

    def __init__(self, rows: UserRows, options: argparse.Namespace) -> None:
        self._rows = rows
        self._is_wanted = not options.dry_run
        self._given: str | None = options.refused
        self._source: str = options.file
        self._file: IO[bytes] | None = None
        self.path: Path | None = None
        self.count = 0

    def __enter__(self) -> _RefusedRows:
        if self._is_wanted and self._given is not None and Path(self._given).exists():
            raise CommandError(f"{self._given} is there already.")
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, rows: tuple[RefusedRow, ...]) -> None:
        """Append the rows' lines; they are on the disk when this returns."""
        self.count += len(rows)
        if not rows or not self._is_wanted:
            return
        try:
            if self._file is None:
                self.path, self._file = self._create()
                self._file.write(_end(self._rows.header))
            for row in rows:
                self._file.write(_end(row.raw))
            self._file.flush()
        except OSError as error:
            name = self.path or self._given or self._source
            raise CommandError(f"{name}: {error.strerror}") from None

    def _create(self) -> tuple[Path, IO[bytes]]:
        for path in self._candidates():
            try:
                number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            except FileExistsError:
                if self._given is not None:
                    raise
                continue
            return path, os.fdopen(number, "wb")
        raise AssertionError("candidates are endless")

    def _candidates(self) -> Iterator[Path]:
        if self._given is not None:
            return iter((Path(self._given),))
        source = "users" if self._source == STANDARD_INPUT else self._source
        first = Path(f"{source}.refused")
        return itertools.chain(
            (first,), (Path(f"{first}-{n}") for n in itertools.count(2))
        )


def _report(
    created: int, already: int, refused: _RefusedRows, options: argparse.Namespace
) -> None:
    path = None if refused.path is None else str(refused.path)
    if options.json:
        text = json.dumps(
            {
                "dry_run": options.dry_run,
                "created": created,
                "already": already,
                "refused": refused.count,
                "refused_file": path,
            }
        )
    else:
        verb = "Would make" if options.dry_run else "Made"
        text = f"{verb} {created}; already there {already}; refused {refused.count}."
        if path is not None:
            text += f" The refused rows stand in {path}."
    sys.stdout.write(text + "\n")


def _end(line: bytes) -> bytes:
    """Return the line with an end, which the last line of a file may lack."""
    return line if not line or line.endswith(b"\n") else line + b"\n"
