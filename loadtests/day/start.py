"""Starts the load as a process of its own, since Locust changes the one it is in."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.demo.installation import ROOT, plain_environment
from loadtests.support.processes import Process
from loadtests.support.site import Site


def start_load(site: Site, log: Path, seconds: int, users: int, *more: str) -> Process:
    """Start the load of `loadtests/locustfile.py` against a site.

    Args:
        site: gets the load.
        log: file for what Locust says; made anew.
        seconds: how long it goes on.
        users: at most at once.
        more: further options.
    """
    log.unlink(missing_ok=True)
    words = ("--users", str(users), "--rate", str(users), "--seconds", str(seconds))
    return Process(
        "load",
        (sys.executable, "loadtests/locustfile.py", *words, *more),
        log_path=log,
        env=plain_environment() | {"GATEHOUSE_VAR": str(site.folder)},
        cwd=ROOT,
    )
