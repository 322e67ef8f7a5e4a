"""One target under libFuzzer: `python -m tests.fuzz.child NAME [libFuzzer's
arguments]`.

Started by `tests/fuzz/__main__.py`; libFuzzer ends the process itself.
"""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    """Fuzz the target; never returns."""
    name, *arguments = sys.argv[1:]
    # Coverage is counted in our own code alone.
    with atheris.instrument_imports(include=["shared", "verifier"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
