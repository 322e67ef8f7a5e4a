"""A real browser without a window: its page, loads, refusals and console."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Debian's names, the one that needs less first.
_BINARIES = ("chromium-headless-shell", "chromium")
#: Milliseconds a page is given, by a clock that stands while an answer is awaited.
_PAGE_BUDGET = 20_000
_DEADLINE = 240


@dataclass(frozen=True)
class Visit:
    """A page as a browser shows it.

    Attributes:
        dom: the document as its scripts left it.
        requested: every URL it sent a request to.
        console: the lines written there; a refused load has a line.
    """

    dom: str
    requested: frozenset[str]
    console: tuple[str, ...]


def visit(url: str) -> Visit:
    """Open a page in a browser without a profile, and wait until it
    rests.
    """
    # A sandbox of its own needs rights that root in a container does not have; the page
    # is ours.
    options = (
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--enable-logging=stderr",
        f"--virtual-time-budget={_PAGE_BUDGET}",
        "--dump-dom",
    )
    with tempfile.TemporaryDirectory(
        prefix="tests-chromium-", ignore_cleanup_errors=True
    ) as folder:
        log = Path(folder) / "requests.json"
        run = subprocess.run(
            [
                find_browser(),
                *options,
                f"--user-data-dir={folder}/profile",
                f"--log-net-log={log}",
                url,
            ],
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=True,
        )
        requested = re.findall(r'"url":"(\w+://[^"#]+)', log.read_text())
    console = [line for line in run.stderr.splitlines() if ":CONSOLE:" in line]
    return Visit(run.stdout, frozenset(requested), tuple(console))


def find_browser() -> str:
    """Return the browser's path.

    Without one the test is skipped, and fails in CI: it must be there.
    """
    for name in _BINARIES:
        found = shutil.which(name)
        if found:
            return found
    message = f"no browser: apt-get install {_BINARIES[0]}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{message}; in CI it must be there")
    pytest.skip(message)
