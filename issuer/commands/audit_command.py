"""`python -m issuer audit`: verify the chain, print its head, delete old events."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from tqdm import tqdm

from issuer.audit.chain import Head
from issuer.audit.verification import AuditBrokenError, AuditVerifier
from issuer.commands.moments import read_moment
from issuer.errors import InvalidRequestError

if TYPE_CHECKING:
    from issuer.composition import Issuer

NAME: Final = "audit"
_VERIFY: Final = """\
Looks at every audit event there is: whether any was changed, removed, inserted or put
in another order. The status is 1 when one was, and the first is named. What was cut
off at the end shows only against a head noted earlier and kept elsewhere (--expect):
`audit head` prints one, and a running issuer logs one every ten minutes as audit.head."""
_PRUNE: Final = """\
Deletes the audit events before a moment, from the oldest on, and leaves a sealed
checkpoint: `audit verify` goes on from there. Nothing else can delete an event."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its options."""
    audit = commands.add_parser(NAME, help="verify the audit log, or delete old events")
    acts = audit.add_subparsers(dest="audit_command", metavar="ACT", required=True)
    verify = acts.add_parser(
        "verify", help="tell whether anything was tampered with", description=_VERIFY
    )
    verify.add_argument(
        "--expect",
        metavar="HEAD",
        help="NUMBER:DIGEST as `audit head` printed it: the chain must hold it still",
    )
    verify.add_argument(
        "--retired-key",
        action="append",
        default=[],
        metavar="ID",
        help="id of a key that ISSUER_KEY_ENCRYPTION_KEYS lacks by now: what it sealed is "
        "held against the digests alone; may be repeated",
    )
    acts.add_parser("head", help="print the chain's head, to be kept elsewhere")
    prune = acts.add_parser("prune", help="delete old events", description=_PRUNE)
    prune.add_argument(
        "--before",
        required=True,
        metavar="TIME",
        help="2026-11-22T13:00:00Z or Unix seconds",
    )


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
