"""`python -m issuer revoke-many`: bulk revocation from the command line.

Messages go to standard error, results to standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from issuer.acts import Caller
from issuer.commands.errors import CommandError
from issuer.commands.moments import read_moment
from issuer.commands.row_files import follow, open_rows
from issuer.errors import InvalidRequestError
from issuer.revoking.bulk import BulkOutcome, BulkRun, collect
from issuer.revoking.bulk_filter import SessionFilter, read_network
from issuer.revoking.bulk_items import read_lines

if TYPE_CHECKING:
    from issuer.composition import Issuer


async def run(issuer: Issuer, options: argparse.Namespace, actor: str) -> bool:
    """Run the command; return whether every row was used.

    Args:
        issuer: the composed parts.
        options: of the command line.
        actor: for the audit.

    Raises:
        CommandError: when it was not confirmed, or the file cannot be read.
        InvalidRequestError: for arguments that break a rule.
        UnavailableError: when the database is away; the counted rows are committed.
    """
    sessions = _read_filter(options)
    if (sessions is None) == (options.file is None):
        raise InvalidRequestError.of_field(
            "arguments", "give either --file or conditions"
        )
    if sessions is not None:
        total = await issuer.revoking.bulk.count_matching(sessions)
        if not options.dry_run and not options.yes:
            _ask(total)
        described = sessions.describe()
        outcomes = issuer.revoking.bulk.revoke_matching(
            sessions, _begin(options, described, actor)
        )
        outcome = await _follow(outcomes, total, options)
    else:
        with open_rows(options.file) as (lines, count):
            outcomes = issuer.revoking.bulk.revoke(
                read_lines(lines), _begin(options, "file", actor)
            )
            outcome = await _follow(outcomes, count, options)
    position = None
    if not options.dry_run:
        position = await issuer.revoking.bulk.confirmable_position(outcome)
    _report(outcome, None if position is None else position.seq, options)
    return not outcome.refused


def _begin(options: argparse.Namespace, source: str, actor: str) -> BulkRun:
    return BulkRun(source, actor, Caller(), is_trial=options.dry_run)


async def _follow(
    outcomes: AsyncIterator[BulkOutcome], total: int | None, options: argparse.Namespace
) -> BulkOutcome:
    with follow(total, is_json=options.json) as progress:
        return await collect(
            outcomes, lambda outcome: progress.show(outcome.rows, outcome.refused)
        )


def _report(
    outcome: BulkOutcome, position: int | None, options: argparse.Namespace
) -> None:
    counts = {
        "dry_run": options.dry_run,
        "revoked": outcome.revoked,
        "already": outcome.already,
        "refused": len(outcome.refused),
        "position": position,
    }
    if options.json:
        text = json.dumps(counts)
    else:
        verb = "Would revoke" if options.dry_run else "Revoked"
        text = (
            f"{verb} {outcome.revoked}; already revoked {outcome.already}; "
            f"refused {len(outcome.refused)}."
        )
        if position is not None:
            text += f" Position {position} of the feed."
    sys.stdout.write(text + "\n")


def _read_filter(options: argparse.Namespace) -> SessionFilter | None:
    given = (
        options.role,
        options.client,
        options.started_before,
        options.started_since,
        options.address,
    )
    if all(value is None for value in given):
        return None
    return SessionFilter(
        role=options.role,
        client_id=options.client,
        started_before=_read_time("started-before", options.started_before),
        started_since=_read_time("started-since", options.started_since),
        address=None if options.address is None else read_network(options.address),
    )


def _read_time(option: str, text: str | None) -> int | None:
    return None if text is None else read_moment(option, text)


def _ask(total: int) -> None:
    if not sys.stdin.isatty():
        raise CommandError(
            f"{total} sessions would end: add --yes to carry it out, or --dry-run."
        )
    sys.stderr.write(f"End {total} sessions? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandError("Nothing was changed.")
