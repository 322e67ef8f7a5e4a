"""Long proofs: a small share of each in every test run, the whole in `make proof`.

A proof is a test that gets stronger the longer it runs: every history of a small world,
random histories, mutants, fuzzing, faults at random moments, the gate's tests once more
on the compiled gate. Such a test carries the marker `proof`. `--proof-scale=N` makes N
times its share; from 2 on also all of what has an end (tests/README.md).
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import settings

OPTION: Final = "--proof-scale"
#: From this scale on the followers of the model's small worlds ask once more.
DEEP: Final = 100
#: Hypothesis's own number of examples, to which its profile is a scale here.
_BASE: Final = 100


def add_option(parser: pytest.Parser) -> None:
    """Add `--proof-scale` to pytest's options."""
    parser.addoption(
        OPTION,
        type=int,
        default=1,
        help="how many times its share in `make test` each long proof makes; from 2 on "
        "also every case of those that have an end (default: 1; tests/README.md)",
    )


def read_scale(config: pytest.Config) -> int:
    """Return the scale of this run: 1 is the share of `make test`."""
    scale: int = config.getoption(OPTION)
    if scale < 1:
        raise pytest.UsageError(f"{OPTION}: {scale} is not 1 or more")
    return scale


def configure(config: pytest.Config) -> None:
    """Let `examples` know the scale, before test modules are imported."""
    settings.register_profile("proofs", max_examples=_BASE * read_scale(config))
    settings.load_profile("proofs")


def examples(share: int) -> int:
    """Return how many examples a property test tries, of which `share` in every run."""
    return share * settings.default.max_examples // _BASE


def is_whole() -> bool:
    """Return whether this run makes the proofs whole."""
    return examples(1) > 1


def lift_time_limits(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let whole proofs take the time they need."""
    if read_scale(config) > 1:
        for item in items:
            if item.get_closest_marker("proof"):
                item.add_marker(pytest.mark.timeout(0), append=False)
