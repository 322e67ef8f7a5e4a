"""Mutated tokens of the present time: `python -m tests.support.mutants_now COUNT`.

All values of the mutations are made when their modules are imported, at the time of a
clock that stands still. A real gateway reads the machine's clock, so this program, in a
process of its own, sets that time first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.support.clock import FakeClock


class DatedMutant(NamedTuple):
    """One token, made from a good one of this minute.

    Attributes:
        number: names it together with the time.
        kinds: the names of the edits it went through.
        token: the result.
    """

    number: int
    kinds: tuple[str, ...]
    token: bytes


def mutants_now(count: int) -> list[DatedMutant]:
    """Return the mutants 0 to `count` - 1, made from a token that is good now."""
    command = [sys.executable, "-m", __name__, str(count)]
    root = Path(__file__).parents[2]
    made = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return [
        DatedMutant(number, tuple(kinds), token.encode("latin-1"))
        for number, kinds, token in map(json.loads, made.stdout.splitlines())
    ]


def main() -> None:
    """Write the mutants, one line each."""
    FakeClock.__init__.__defaults__ = (int(time.time()),)
    from tests.support.mutations import mutants

    for mutant in mutants(int(sys.argv[1])):
        line = [mutant.number, mutant.kinds, mutant.token.decode("latin-1")]
        print(json.dumps(line))


if __name__ == "__main__":
    main()
