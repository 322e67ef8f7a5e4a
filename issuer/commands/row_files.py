"""Files of rows for commands: opened, counted, and followed row by row.

Messages go to standard error, results to standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol

from tqdm import tqdm

from issuer.commands.errors import CommandError

#: The name of a file that stands for standard input.
STANDARD_INPUT: Final = "-"


class Refusal(Protocol):
    """A row that was not used: its line, the field that is wrong, and the rule."""

    @property
    def line(self) -> int:
        """Its number, from 1."""

    @property
    def field(self) -> str:
        """The field that is wrong."""

    @property
    def rule(self) -> str:
        """The rule that it breaks."""


@contextmanager
def open_rows(name: str) -> Iterator[tuple[Iterator[bytes], int | None]]:
    """Yield the file's lines, and their number if it is known in advance.

    Raises:
        CommandError: when the file cannot be read.
    """
    if name == STANDARD_INPUT:
        yield _read(name, sys.stdin.buffer), None
        return
    try:
        path = Path(name)
        count = None
        if path.is_file():
            with path.open("rb") as counted:
                count = sum(1 for _ in counted)
        lines = path.open("rb")
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from None
    with lines:
        yield _read(name, lines), count


def _read(name: str, lines: IO[bytes]) -> Iterator[bytes]:
    try:
        yield from lines
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from None


class RowProgress:
    """Shows how far a command is, and each refused row.

    Args:
        bar: the progress bar.
        is_json: whether refused rows are JSON objects on standard output instead of
            lines on standard error.
    """

    def __init__(self, bar: tqdm[object], *, is_json: bool) -> None:
        self._bar = bar
        self._is_json = is_json

    def show(self, rows: int, refused: Iterable[Refusal]) -> None:
        """Advance by this number of rows, and show the refused ones among them."""
        self._bar.update(rows)
        for row in refused:
            if self._is_json:
                refusal = {"line": row.line, "field": row.field, "rule": row.rule}
                sys.stdout.write(json.dumps({"refused": refusal}) + "\n")
            else:
                text = f"line {row.line}: {row.field}: {row.rule}"
                self._bar.write(text, file=sys.stderr)


@contextmanager
def follow(total: int | None, *, is_json: bool) -> Iterator[RowProgress]:
    """Yield the progress of a command over this number of rows; None: unknown."""
    # `disable=None`: silent when standard error is no terminal.
    with tqdm(total=total, unit="row", disable=None, file=sys.stderr) as bar:
        yield RowProgress(bar, is_json=is_json)
