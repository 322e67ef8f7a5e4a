"""Arguments of the commands about keys, stored secrets, the audit and the feed."""

from __future__ import annotations

import argparse
from typing import Final, TypeAlias

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_VERIFY: Final = """\
Looks at every audit event there is: whether any was changed, removed, inserted or put
in another order. The status is 1 when one was, and the first is named. What was cut
off at the end shows only against a head noted earlier and kept elsewhere (--expect):
`audit head` prints one, and a running issuer logs one every ten minutes as audit.head."""
_PRUNE: Final = """\
Deletes the audit events before a moment, from the oldest on, and leaves a sealed
checkpoint: `audit verify` goes on from there. Nothing else can delete an event."""


def add_key_commands(commands: _Commands) -> None:
    """Add the commands and their options."""
    rotate = commands.add_parser(
        "rotate-keys",
        help="publish the next signing key; it takes over by itself",
        description="Publishes the next signing key. It signs once it has stood in the "
        "JWKS for ISSUER_KEY_PUBLISH_AHEAD seconds and every verifier that follows the "
        "feed has fetched it, which the running issuer sees to.",
    )
    rotate.add_argument(
        "--now",
        action="store_true",
        help="let it sign at once; verifiers refuse its tokens until they fetch it",
    )
    _add_reencryption(commands)
    _add_audit(commands)
    commands.add_parser(
        "new-epoch",
        help="after a restore of a whole machine or directory: begin a new epoch",
        description="A restored database is found out by itself, except when all that "
        "could tell was restored with it: a whole machine, or a SQLite file with its "
        "-witness. Run this then, before the issuer serves. Every verifier takes the "
        "snapshot and keeps the revocations it had.",
    )


def _add_reencryption(commands: _Commands) -> None:
    commands.add_parser(
        "reencrypt-keys",
        help="put every stored secret under the first of ISSUER_KEY_ENCRYPTION_KEYS",
        description="To change the key: put a new ID:KEY first and keep the old one "
        "behind it, restart every issuer, run this, then remove the old one.",
    )


def _add_audit(commands: _Commands) -> None:
    audit = commands.add_parser(
        "audit", help="verify the audit log, or delete old events"
    )
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
