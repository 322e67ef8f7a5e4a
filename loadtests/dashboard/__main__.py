"""Draws deploy/grafana/gatehouse.json from a real run.

    python -m loadtests.dashboard --seconds 300 --picture docs/pictures/dashboard.png

All programs run under a day of users with attackers (loadtests/day/). The installed
Prometheus scrapes them every second, evaluates the shipped rules, and answers the
queries of every panel. It needs nginx, PostgreSQL, prometheus and
prometheus-blackbox-exporter. A panel without data says why, by its description.
"""

from __future__ import annotations

import shutil
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from deploy.gateway_programs.program import GatewayError
from loadtests.dashboard.panels import Panel, read_panels
from loadtests.dashboard.picture import draw
from loadtests.day.__main__ import SETTINGS, play
from loadtests.support import site as sites
from loadtests.support.postgres import PostgresMissingError
from loadtests.support.prometheus import Prometheus

_PROGRAMS = ("prometheus", "prometheus-blackbox-exporter")
_JOBS = ("gatehouse-issuer", "gatehouse-verifier", "gatehouse-readyz")


class MissingError(Exception):
    """A program is not installed; the message has the package."""


def parser() -> ArgumentParser:
    """Return the options."""
    made = ArgumentParser(
        prog="python -m loadtests.dashboard",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    made.add_argument("--seconds", type=int, default=300, help="the day's length (300)")
    made.add_argument("--users", type=int, default=24, help="at most at once (24)")
    made.add_argument("--picture", type=Path, default=Path("var/dashboard.png"))
    made.add_argument("--folder", type=Path, default=Path("var/load"))
    return made


def find_programs() -> tuple[str, str]:
    """Return where Prometheus and the exporter are.

    Raises:
        MissingError: one is not installed.
    """
    prometheus, exporter = (shutil.which(name) or "" for name in _PROGRAMS)
    if not prometheus or not exporter:
        raise MissingError(f"needs the packages {' and '.join(_PROGRAMS)}")
    return prometheus, exporter


def main() -> int:
    """Return 0 once the picture is drawn of a day without a wrong answer."""
    options = parser().parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        programs = find_programs()
        settings = SETTINGS | {"ISSUER_CANARY_INTERVAL": "5"}
        with sites.running(settings, on_postgres=True) as site:
            place = site.folder / "prometheus"
            place.mkdir()
            prometheus = Prometheus(
                place, site.factory, site.addresses, programs, is_hurried=False
            )
            prometheus.await_scrapes(_JOBS)
            began = time.time()
            code = play(site, options.seconds, options.users, folder)
            panels = read_panels(prometheus, began, time.time())
    except (GatewayError, PostgresMissingError, MissingError) as error:
        print(f"dashboard: {error}", file=sys.stderr)
        return 1
    draw(panels, options.picture)
    for panel in without_data(panels):
        print(f"dashboard: no data: {panel.title}: {panel.description or '?'}")
    print(f"dashboard: {options.picture}")
    return code


def without_data(panels: list[Panel]) -> list[Panel]:
    """Return the panels whose queries had no answer."""
    return [panel for panel in panels if panel.kind != "row" and not panel.lines]


if __name__ == "__main__":
    sys.exit(main())
