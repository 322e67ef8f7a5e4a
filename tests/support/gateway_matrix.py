"""Writes the table of docs/gateways.md from a run of tests/gateways.

`make gateway-matrix` runs it: `pytest -p tests.support.gateway_matrix --gateway-matrix
docs/gateways.md tests/gateways`.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import pytest

from deploy.gateway_programs.registry import NAMES, PROGRAMS
from verifier.doctor.holes import HOLES
from verifier.doctor.scenarios import SCENARIOS

_BEGIN: Final = "<!-- written by `make gateway-matrix` -->\n"
_END: Final = "<!-- end -->\n"
#: What a gateway's program is asked for its version.
_VERSION: Final = {
    "envoy": "--version",
    "caddy": "version",
    "traefik": "version",
}
#: A row for each file beside `test_scenarios.py` that runs on every gateway.
_ROWS: Final = {
    "test_requests": "requests of other forms, HTTP/2",
    "test_kinds": "facts in which gateways differ",
    "test_bodies": "bodies",
    "test_streams": "WebSocket, server-sent events",
    "test_many_streams": "many open streams",
    "test_grpc": "gRPC",
    "test_preflight": "CORS preflight",
    "test_policies": "policies by path",
    "test_identity_size": "the longest identity",
    "test_decision_ids": "decision ids",
    "test_request_ids": "request ids",
    "test_end_of_session": "logout",
    "test_verifier_away": "verifier away, slow or refusing; failover",
    "test_unix_sockets": "verifier on a unix socket; failover",
    "test_foreign_answers": "another program at the verifier's address",
    "test_readmes": "its README, followed word for word",
    "test_access_logs": "the log for `policy replay`",
    "test_doctor": "`doctor`: the shipped config and broken ones",
}
_HOLE_ROWS: Final = [hole.title.removesuffix(".") for hole in HOLES.values()]
_HOLES: Final = {scenario.title: scenario.hole for scenario in SCENARIOS}

Cell = tuple[str, str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gateway-matrix", type=Path, required=True, metavar="PAGE")


def pytest_configure(config: pytest.Config) -> None:
    # Of several processes only the first has all results (pytest-xdist).
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Matrix(config.getoption("--gateway-matrix")))


class Matrix:
    """Counts the tests of each gateway.

    Args:
        page: the page with the two marks between which the table stands.
    """

    def __init__(self, page: Path) -> None:
        self._page = page
        self._passed: Counter[Cell] = Counter()
        self._run: Counter[Cell] = Counter()

    def pytest_sessionstart(self) -> None:
        """Find the place for the table before the run, which takes minutes."""
        self._split()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test when it ran, or could not run."""
        if report.when != "call" and report.passed:
            return
        cell = find_cell(report.nodeid)
        if cell is not None:
            self._run[cell] += 1
            self._passed[cell] += report.passed

    def pytest_sessionfinish(self) -> None:
        """Write the table."""
        before, after = self._split()
        table = "\n".join(self._lines())
        self._page.write_text(f"{before}{_BEGIN}\n{table}\n\n{_END}{after}")

    def _split(self) -> tuple[str, str]:
        """Return what stands before and after the table."""
        before, _, rest = self._page.read_text().partition(_BEGIN)
        _, ended, after = rest.partition(_END)
        assert ended, f"{self._page} has no place for the table"
        return before, after

    def _lines(self) -> Iterable[str]:
        names = [name for name in NAMES if any(n == name for _, n in self._run)]
        yield from self._table("scenarios against", _HOLE_ROWS, names)
        yield ""
        yield from self._table("tests of", _ROWS.values(), names)

    def _table(
        self, title: str, rows: Iterable[str], names: Sequence[str]
    ) -> Iterable[str]:
        heads = [f"{name}<br>{read_version(name)}" for name in names]
        yield f"| {title} | {' | '.join(heads)} |"
        yield f"|---|{'---|' * len(names)}"
        for row in rows:
            cells = [self._cell(row, name) for name in names]
            if any(cells):
                yield f"| {row} | {' | '.join(cell or '-' for cell in cells)} |"

    def _cell(self, row: str, name: str) -> str:
        run, passed = self._run[row, name], self._passed[row, name]
        if not run:
            return ""
        return str(passed) if passed == run else f"**{passed} of {run}**"


def find_cell(nodeid: str) -> Cell | None:
    """Return row and gateway of a test; None for a test of no gateway."""
    path, _, rest = nodeid.partition("::")
    stem = Path(path).stem
    parameters = rest.partition("[")[2].removesuffix("]")
    # The longest first: "envoy-grpc" is not "envoy".
    for name in sorted(NAMES, key=len, reverse=True):
        if parameters == name or parameters.startswith(f"{name}-"):
            parameter = parameters.removeprefix(name).removeprefix("-")
        elif parameters.endswith(f"-{name}"):
            parameter = parameters.removesuffix(f"-{name}")
        else:
            continue
        if stem == "test_scenarios":
            hole = _HOLES.get(parameter)
            return (HOLES[hole].title.removesuffix("."), name) if hole else None
        return (_ROWS[stem], name) if stem in _ROWS else None
    return None


def read_version(name: str) -> str:
    """Return the version of an installed gateway; empty if it does not say one."""
    program = PROGRAMS[name]
    binary = program.find_binary()
    if binary is None:
        return ""
    done = subprocess.run(
        [binary, _VERSION.get(program.configs.partition("-")[0], "-v")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = re.search(r"(?<![\d.])\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return "" if found is None else found[0]
