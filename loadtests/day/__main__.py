"""A day of users with attackers against all programs, started for it.

    make load                       # five minutes
    make load SECONDS=600 USERS=40
    python -m loadtests.day --seconds 300 --folder var/load

Issuer on PostgreSQL and verifier, each with two workers, a demo application and nginx
are started on free ports and stopped again. The folder gets Locust's report
(`report.html`), what happened by second (`record.json`) and a picture (`day.png`).
Ends with 1 if an answer was not as expected, such as an attacker's that passed.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from tqdm import tqdm

from deploy.gateway_programs.program import GatewayError
from loadtests.day import picture
from loadtests.day.shape import phase_at
from loadtests.day.start import start_load
from loadtests.support import site as sites
from loadtests.support.postgres import PostgresMissingError
from loadtests.support.site import Site

#: Tokens end within the day, so that expired ones can be shown. All guesses come from
#: one network: the account that is guessed at is slowed down, and no other.
SETTINGS = {"ISSUER_ACCESS_TTL": "30", "ISSUER_BCRYPT_COST": "10"}
REPORT, RECORD, PICTURE, LOG = "report.html", "record.json", "day.png", "load.log"


def parser() -> ArgumentParser:
    """Return the options."""
    made = ArgumentParser(
        prog="python -m loadtests.day",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    made.add_argument("--seconds", type=int, default=300, help="the day's length (300)")
    made.add_argument("--users", type=int, default=24, help="at most at once (24)")
    made.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    made.add_argument("--folder", type=Path, default=Path("var/load"))
    return made


def main() -> int:
    """Return the exit code of the load."""
    options = parser().parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with sites.running(
            SETTINGS, on_postgres=options.database == "postgres"
        ) as site:
            code = play(site, options.seconds, options.users, folder)
    except (GatewayError, PostgresMissingError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    record = json.loads((folder / RECORD).read_text())
    picture.draw(record, folder / PICTURE)
    for failure, count in record["failures"].items():
        print(f"load: {count} times {failure}")
    answers = sum(sum(second.values()) for second in record["kinds"].values())
    wrong = sum(record["failures"].values())
    print(f"load: {answers:,} answers, {wrong:,} of them wrong; see {folder}")
    return code


def play(site: Site, seconds: int, users: int, folder: Path) -> int:
    """Play a day against a site, with a progress line; return Locust's exit code."""
    files = ("--html", str(folder / REPORT), "--record", str(folder / RECORD))
    load = start_load(site, folder / LOG, seconds, users, *files)
    try:
        began = time.monotonic()
        with tqdm(total=seconds, unit="s") as progress:
            while load.exit_code is None and progress.n < seconds:
                progress.set_description(f"{phase_at(progress.n / seconds):12}")
                time.sleep(min(1.0, seconds / 20))
                passed = min(seconds, round(time.monotonic() - began))
                progress.update(passed - progress.n)
        return load.wait_for_exit()
    finally:
        if load.exit_code is None:
            load.terminate()


if __name__ == "__main__":
    sys.exit(main())
