"""`python -m issuer audit`: verify the chain, print its head, delete old events."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from issuer.audit.chain import Head
from issuer.audit.verification import AuditBrokenError, AuditVerifier
from issuer.commands.moments import read_moment
from issuer.errors import InvalidRequestError

if TYPE_CHECKING:
    from issuer.composition import Issuer


async def run(issuer: Issuer, options: argparse.Namespace, actor: str) -> bool:
    """Run the command; return whether the log was not changed.

    Args:
        issuer: the composed parts.
        options: of the command line.
        actor: for the audit.

    Raises:
        InvalidRequestError: for arguments that break a rule.
        UnavailableError: when the database is away.
    """
    # There may be no running issuer that does it.
    await issuer.audit.linker.link()
    if options.audit_command == "verify":
        return await _verify(issuer, options)
    if options.audit_command == "head":
        sys.stdout.write(f"{await issuer.audit.linker.head()}\n")
        return True
    before = read_moment("before", options.before)
    head = await issuer.audit.retention.delete_before(before, actor=actor)
    reached = "Nothing is that old." if head is None else f"Deleted up to {head}"
    sys.stdout.write(reached + "\n")
    return True


async def _verify(issuer: Issuer, options: argparse.Namespace) -> bool:
    verifier = AuditVerifier(
        issuer.base.database, issuer.audit.log.sealer, retired_keys=options.retired_key
    )
    # `disable=None`: silent when standard error is no terminal.
    with tqdm(unit="event", disable=None, file=sys.stderr) as bar:

        def show(done: int, everything: int) -> None:
            bar.total = everything
            bar.update(done - bar.n)

        try:
            found = await verifier.verify(_read_head(options.expect), show)
        except AuditBrokenError as error:
            bar.close()
            sys.stderr.write(f"The audit log is not what it was: {error}.\n")
            return False
    sys.stdout.write(
        f"{found.head.seq - found.start.seq} events in order; "
        f"not linked yet: {found.waiting}.\n{found.head}\n"
    )
    return True


def _read_head(text: str | None) -> Head | None:
    if text is None:
        return None
    try:
        return Head.parse(text)
    except ValueError as error:
        raise InvalidRequestError.of_field("expect", str(error)) from None
