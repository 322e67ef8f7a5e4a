"""Fuzzes the readers of untrusted bytes: `python -m tests.fuzz --seconds 600`.

Each target runs in a process of its own under libFuzzer. A finding ends the run with 1
and leaves its input in a file; `--reproduce FILE --target NAME` runs that one again.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.seeds import seeds_for
from tests.fuzz.targets import TARGETS

#: Bytes of one input at most: a token has 8,000.
MAX_INPUT = 8_500
#: Seconds past its time after which a child is ended: it hangs.
_GRACE = 60


@dataclass(frozen=True)
class Outcome:
    """The outcome of one target.

    Attributes:
        target: its name.
        exit_code: 0 without a finding.
        runs: inputs tried.
        coverage: edges reached.
        log: the output of libFuzzer.
    """

    target: str
    exit_code: int
    runs: int
    coverage: int
    log: str


def main() -> int:
    """Run the targets of the command line; return 0 without a finding."""
    options = _parse()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: it has wheels for Linux on x86_64 alone")
        return 2
    names = options.target or list(TARGETS)
    options.findings.mkdir(parents=True, exist_ok=True)
    if options.reproduce:
        return _run(names[0], [str(options.reproduce)], 0).exit_code
    share = max(1, options.seconds * options.jobs // len(names))
    with tempfile.TemporaryDirectory() as scratch:
        corpus = options.corpus or Path(scratch)

        def fuzz(name: str) -> Outcome:
            return _fuzz(name, share, corpus / name, options.findings)

        with ThreadPoolExecutor(options.jobs) as pool:
            outcomes = list(pool.map(fuzz, names))
    for outcome in outcomes:
        verdict = "ok" if outcome.exit_code == 0 else f"FAILED\n{outcome.log}"
        print(
            f"{outcome.target:13} {outcome.runs:9} inputs, {outcome.coverage:5} edges"
            f" in {share} s: {verdict}"
        )
    return int(any(outcome.exit_code for outcome in outcomes))


def _fuzz(name: str, seconds: int, corpus: Path, findings: Path) -> Outcome:
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds_for(name)):
        (corpus / f"seed-{number:04}").write_bytes(seed)
    arguments = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={findings}/{name}-",
        str(corpus),
    ]
    return _run(name, arguments, seconds)


def _run(name: str, arguments: list[str], seconds: int) -> Outcome:
    command = [sys.executable, "-m", "tests.fuzz.child", name, *arguments]
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=seconds + _GRACE,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode("utf-8", "replace")
        return Outcome(name, 124, 0, 0, f"hangs\n{said[-4_000:]}")
    log = (ended.stdout + ended.stderr).decode("utf-8", "replace")
    return Outcome(
        name,
        ended.returncode,
        _last(rb"number_of_executed_units: (\d+)", ended.stderr),
        _last(rb"cov: (\d+)", ended.stderr),
        _story(log),
    )


def _story(log: str) -> str:
    """Return the exception and the input, without the tale of how it was found."""
    start = log.find("=== Uncaught Python exception")
    return log[start if start >= 0 else -4_000 :][:6_000]


def _last(pattern: bytes, text: bytes) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--seconds",
        type=int,
        default=600,
        help="about how long it may take (default: 600); each target gets 1 s at least",
    )
    parser.add_argument(
        "--target",
        action="append",
        choices=list(TARGETS),
        help="only this one; may be given several times",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="targets at the same time (default: 1)"
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        help="folder that keeps what was found worth keeping, for the next run",
    )
    parser.add_argument(
        "--findings",
        type=Path,
        default=Path("var/fuzz"),
        help="folder for inputs that failed (default: var/fuzz)",
    )
    parser.add_argument(
        "--reproduce", type=Path, metavar="FILE", help="run this one input again"
    )
    options = parser.parse_args()
    if options.reproduce and len(options.target or ()) != 1:
        parser.error("--reproduce needs the one --target it belongs to")
    return options


if __name__ == "__main__":
    sys.exit(main())
