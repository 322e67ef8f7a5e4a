"""Runs everything under a steady load, and ends with 1 if something grows.

    make soak                      # 15 minutes
    make soak MINUTES=120
    python -m loadtests.soak --minutes 15 --database sqlite --json var/soak.json

Issuer and verifier run with two workers (the issuer on SQLite with one), behind nginx,
under the load of loadtests/locustfile.py: people, programs, administrators and
attackers. Both programs read their files again (HUP) every 20 seconds. A third of the
time is the warm-up; then memory, descriptors and files may grow by 2 %.
loadtests/SOAK.md has the method and one run.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tqdm import tqdm

from deploy.gateway_programs.program import GatewayError
from loadtests.day.start import start_load
from loadtests.soak import picture
from loadtests.soak.fill import fill_caches, fill_feed
from loadtests.soak.growth import MOST, Growth
from loadtests.soak.readings import files_of, rows_of, usage_of
from loadtests.soak.series import Series
from loadtests.support import site as sites
from loadtests.support.postgres import PostgresMissingError
from loadtests.support.processes import Process
from loadtests.support.site import Site

#: Of the whole time; the rest is measured.
WARM_UP = 1 / 3
#: Seconds between two readings of processes and files, at most.
_READING = 5.0
#: Seconds between two counts of all rows.
_COUNTING = 30.0
#: Seconds that the load goes on after the time.
_LOAD_LONGER = 10
#: Seconds between two reloads.
_RELOADING = 20.0
#: Small bounds are reached in the warm-up: tokens come and go, and the cache of facts
#: is full. What hashing costs is not measured, and no account is held up.
SETTINGS = {
    "ISSUER_ACCESS_TTL": "30",
    "ISSUER_BCRYPT_COST": "10",
    "ISSUER_SESSION_LIMIT": "1000000",
    "ISSUER_PERSONAL_KEY_LIMIT": "100000",
    "VERIFIER_CACHE_ENTRIES": "100",
}


def parser() -> ArgumentParser:
    """Return the options."""
    made = ArgumentParser(
        prog="python -m loadtests.soak",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    made.add_argument("--minutes", type=float, default=15.0, help="how long (15)")
    made.add_argument("--users", type=int, default=20, help="users at once (20)")
    made.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    made.add_argument("--json", type=Path, help="file for all readings")
    made.add_argument("--plot", type=Path, help="file for a picture, PNG")
    return made


def main() -> int:
    """Return 0 if nothing grew and every answer was right, else 1."""
    options = parser().parse_args()
    try:
        with sites.running(
            SETTINGS,
            on_postgres=options.database == "postgres",
            prepare=partial(fill_feed, users=options.users),
        ) as site:
            fill_caches(site, options.minutes)
            series, load = _soak(site, options)
    except (GatewayError, PostgresMissingError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    growths = series.growths()
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(to_json(options, series, growths, load)))
    if options.plot:
        picture.draw(series, options.plot)
    print(table(growths))
    for growth in growths:
        if growth.is_too_much:
            print(f"soak: {growth.name} grew by {growth.share:.1%} (most: {MOST:.0%})")
    if load:
        print(f"soak: an answer to the load was wrong; its log is {_log(options)}")
    return 1 if load or any(growth.is_too_much for growth in growths) else 0


def _log(options: Namespace) -> Path:
    """Return where the load's own report goes."""
    beside: Path = options.json or Path("var/soak.json")
    return beside.with_suffix(".load.log")


def _soak(site: Site, options: Namespace) -> tuple[Series, int]:
    """Return the readings, and the exit code of the load."""
    seconds = options.minutes * 60
    series = Series(warm_up=seconds * WARM_UP)
    pace = min(_READING, seconds / 40)
    log = _log(options)
    log.parent.mkdir(parents=True, exist_ok=True)
    # The load ends later, so that every reading is of a loaded program.
    with _load(site, options.users, int(seconds) + _LOAD_LONGER, log) as load:
        began = time.monotonic()
        due = {"read": 0.0, "count": 0.0, "reload": min(_RELOADING, seconds / 6)}
        with tqdm(total=round(seconds), unit="s", desc="soak") as progress:
            # On a busy machine a count of all rows takes longer than its pace.
            while (now := time.monotonic() - began) < seconds or (
                series.is_short and now < seconds + _LOAD_LONGER
            ):
                if now >= due["read"]:
                    due["read"] += pace
                    _read(site, series, now)
                if now >= due["count"]:
                    due["count"] += min(_COUNTING, seconds / 20)
                    series.note_rows(now, rows_of(site))
                if now >= due["reload"]:
                    due["reload"] += min(_RELOADING, seconds / 6)
                    for name in ("issuer", "verifier"):
                        site.processes[name].send_signal(signal.SIGHUP)
                progress.update(round(now) - progress.n)
                time.sleep(max(0.0, min(due.values()) - (time.monotonic() - began)))
        return series, load.wait_for_exit()


def _read(site: Site, series: Series, now: float) -> None:
    for name, process in site.processes.items():
        series.note_usage(now, name, usage_of(process.pid))
    if site.postgres is not None:
        series.note_usage(now, "postgres", usage_of(site.postgres.pid))
    series.note_files(now, files_of(site.folder))


@contextmanager
def _load(site: Site, users: int, seconds: int, log: Path) -> Iterator[Process]:
    """Run the load beside; it has ended after the block."""
    load = start_load(site, log, seconds, users, "--steady")
    try:
        yield load
    finally:
        if load.exit_code is None:
            load.terminate()


def table(growths: list[Growth]) -> str:
    """Return the growths as a table of Markdown."""
    lines = ["| what | first quarter | last quarter | growth | per hour | most |"]
    lines.append("|---|--:|--:|--:|--:|--:|")
    for growth in growths:
        most = f"{MOST:.0%}" if growth.judged else ""
        lines.append(
            f"| {growth.name} | {_number(growth, growth.first)} | "
            f"{_number(growth, growth.last)} | {growth.share:+.2%} | "
            f"{_number(growth, growth.per_hour, signed=True)} | {most} |"
        )
    return "\n".join(lines)


def _number(growth: Growth, value: float, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if growth.name.endswith(("memory", "private", "bytes")):
        return f"{value / 1_048_576:{sign}.2f} MiB"
    return f"{value:{sign}.1f}" if signed else f"{value:g}"


def to_json(
    options: Namespace, series: Series, growths: list[Growth], load: int
) -> dict[str, object]:
    """Return all that was found, as JSON takes it."""
    return {
        "minutes": options.minutes,
        "users": options.users,
        "database": options.database,
        "settings": SETTINGS,
        "warm_up": series.warm_up,
        "load_exit_code": load,
        "growth": [
            vars(growth) | {"share": growth.share, "is_too_much": growth.is_too_much}
            for growth in growths
        ],
        "values": series.values,
    }


if __name__ == "__main__":
    sys.exit(main())
