"""Fills what is bounded, so that a soak of minutes does not only see it fill.

A revocation is kept for 65 minutes, whatever the lifetime of tokens, because an earlier
start may have had a longer one. A soak would have to run that long before as many end
as are made. So the feed begins with what an hour of this load leaves, which ends entry
by entry while new ones are made. Bad signatures and facts of tokens are kept
up to a number; as many different tokens are shown.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import insert, select, update

from deploy.demo.installation import Installation
from issuer.storage.db import Database
from issuer.storage.tables.feed import FeedEntryRow, FeedHead
from loadtests.support.raw_http import bearer, send
from loadtests.support.site import Site
from shared.claims import CLOCK_ALLOWANCE, LONGEST_ACCESS_TTL, MAX_LEEWAY
from shared.feed import EntryKind

#: Revocations that one user of the load causes in a second, and canaries besides.
REVOKED_PER_USER = 0.14
_CANARIES = 2 / 30
#: Seconds from a revocation to the `prune_at` of its entry, and from there to its end.
_KEPT = LONGEST_ACCESS_TTL + MAX_LEEWAY
_MARGIN = 2 * CLOCK_ALLOWANCE
#: Tokens of programs that are shown, and how often each with another bad signature: a
#: worker keeps 1,024 of these, and a gateway's two workers ask either verifier.
_TOKENS = 1_000
_BAD_SIGNATURES = 4
_CALLERS = 8


def fill_feed(installation: Installation, users: int) -> None:
    """Add the revocations of an hour of this load; no program may run yet.

    Args:
        installation: names the database.
        users: as many as the load will have.
    """
    url = installation.issuer_env["ISSUER_DATABASE_URL"]
    asyncio.run(_fill_feed(url, users * REVOKED_PER_USER))


async def _fill_feed(url: str, rate: float) -> None:
    now = int(time.time())
    entries = [
        (kind, now - _MARGIN + int(number / per_second))
        for kind, per_second in ((EntryKind.SID, rate), (EntryKind.JTI, _CANARIES))
        for number in range(int((_KEPT + _MARGIN) * per_second))
    ]
    entries.sort(key=lambda entry: entry[1])
    rows = [
        {
            "seq": seq,
            "kind": kind,
            "key": str(uuid.uuid4()),
            "minimum_generation": 0,
            "prune_at": prune_at,
        }
        for seq, (kind, prune_at) in enumerate(entries, 1)
    ]
    database = Database(url, pool_size=1)
    try:
        async with database.write() as db:
            head = (await db.execute(select(FeedHead.seq))).scalar_one()
            assert head == 0, "the feed is not empty"
            await db.execute(update(FeedHead).values(seq=len(rows)))
            await db.execute(insert(FeedEntryRow), rows)
    finally:
        await database.close()


def fill_caches(site: Site, minutes: float) -> None:
    """Show tokens of programs through the gateway, good ones and spoilt ones.

    Args:
        site: the programs.
        minutes: how long the soak will be; a trial of seconds fills nothing.
    """
    made = site.installation
    pair = b64encode(f"{made.client_id}:{made.client_secret}".encode()).decode()
    form = b"grant_type=client_credentials"
    headers = [
        ("Authorization", f"Basic {pair}"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Length", str(len(form))),
    ]

    def show_one(_: int) -> None:
        answer = send(site.addresses.issuer, "POST", "/oauth2/token", headers, form)
        token: str = answer.json()["access_token"]
        for shown, status in [(token, 200), *((bad, 401) for bad in _spoil(token))]:
            found = send(site.addresses.gateway, "GET", "/", [bearer(shown)]).status
            assert found == status, found

    with ThreadPoolExecutor(_CALLERS) as callers:
        for _ in callers.map(show_one, range(min(_TOKENS, int(minutes * 100)))):
            pass


def _spoil(token: str) -> list[str]:
    """Return the token with signatures of the right form that are not its own."""
    head, _, signature = token.rpartition(".")
    return [
        f"{head}.{signature[:number]}{'B' if signature[number] == 'A' else 'A'}"
        f"{signature[number + 1:]}"
        for number in range(_BAD_SIGNATURES)
    ]
