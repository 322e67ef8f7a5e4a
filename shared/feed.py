"""The revocation feed's wire form (docs/design.md, "The revocation feed").

One page is a JSON object; each entry `[seq, kind, key, minimum_generation, prune_at]`.
The issuer writes pages and the verifier reads them. A page that is not exactly of this
form is refused as a whole, so that half a page is never applied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

import orjson

VERSION: Final = 1
#: A feed credential; many servers refuse a header line that is much longer.
FEED_TOKEN_FORM: Final = re.compile(r"[ -~]{32,4096}")
#: Entries in one page at most; a verifier asks again at once while `to < head`.
MAX_PAGE_ENTRIES: Final = 10_000
#: The type in Accept that asks for a snapshot as lines. Each line is a page of at most
#: that many entries and continues the one before; the last one reaches the head.
LINES_TYPE: Final = "application/x-ndjson"
#: Seconds a request without news may be held at most.
MAX_WAIT: Final = 60
#: The follower's id, a UUID that it keeps for its life.
FOLLOWER_HEADER: Final = "Gatehouse-Follower"
#: The follower's own hard staleness bound, in whole seconds.
FOLLOWER_STALENESS_HEADER: Final = "Gatehouse-Follower-Staleness"
#: `allow` when some policy of the follower answers from stale revocations.
FOLLOWER_ON_STALE_HEADER: Final = "Gatehouse-Follower-On-Stale"
FOLLOWER_ON_STALE_ALLOW: Final = "allow"
#: Ids of processes known to have ended whose disk copy the follower took over, in one
#: line, with commas between them.
FOLLOWER_REPLACES_HEADER: Final = "Gatehouse-Follower-Replaces"
#: The position up to which everything is in force, from a follower that writes into
#: gateways and has read further than that. Its answer repeats it.
FOLLOWER_APPLIED_HEADER: Final = "Gatehouse-Follower-Applied"
#: The most ids in FOLLOWER_REPLACES_HEADER.
MAX_REPLACED_FOLLOWERS: Final = 64
MAX_KEY_CHARS: Final = 256
#: Appended to the feed's URL. A follower that will never answer 200 again, and leaves
#: no disk copy that counts as fresh, posts here with the same headers as for the feed.
GOODBYE_PATH: Final = "/goodbye"

_MEMBERS: Final = frozenset(
    {"v", "iss", "epoch", "after", "to", "head", "as_of", "max_ttl", "entries"}
)


class FeedError(ValueError):
    """A feed page is not of the form above; the message names the member."""


class EntryKind(StrEnum):
    """The kind of thing that a revocation ends."""

    JTI = "jti"  #: one access token
    SID = "sid"  #: every token of one session
    USER = "user"  #: every token of a user below a generation
    CLIENT = "client"  #: every token a client holds for itself, below a generation
    KID = "kid"  #: every token of one signing key

    # Enum's own hashes the name in Python; a snapshot has a million of them.
    __hash__ = str.__hash__


#: The kinds whose entry carries a minimum generation; the others carry 0.
GENERATION_KINDS: Final = frozenset({EntryKind.USER, EntryKind.CLIENT})
_KINDS: Final = {kind.value: kind for kind in EntryKind}


class FeedEntry(NamedTuple):
    """One revocation.

    Attributes:
        seq: position in the feed, from 1, gapless and in commit order.
        kind: what `key` names.
        key: the jti, sid, sub, client_id or kid.
        minimum_generation: the least `gen` still accepted, for `user` and `client`.
        prune_at: Unix seconds after which no token it concerns can be alive.
    """

    seq: int
    kind: EntryKind
    key: str
    minimum_generation: int
    prune_at: int


@dataclass(frozen=True, slots=True)
class FeedPage:
    """One answer of the feed.

    Attributes:
        iss: the issuer's URL, as in the tokens.
        epoch: identity of the counter that `seq` belongs to.
        after: the position asked for.
        to: the position reached when all `entries` are applied.
        head: the newest position there is; `to < head` means ask again at once.
        as_of: Unix milliseconds at which the issuer read its database.
        max_ttl: the longest lifetime of any access token, seconds.
        entries: in rising order of `seq`.
    """

    iss: str
    epoch: str
    after: int
    to: int
    head: int
    as_of: int
    max_ttl: int
    entries: Sequence[FeedEntry]


def encode_page(page: FeedPage) -> bytes:
    """Return the page as UTF-8 JSON."""
    return orjson.dumps(
        {
            "v": VERSION,
            "iss": page.iss,
            "epoch": page.epoch,
            "after": page.after,
            "to": page.to,
            "head": page.head,
            "as_of": page.as_of,
            "max_ttl": page.max_ttl,
            "entries": page.entries,
        },
        default=tuple,  # orjson writes tuples, not named ones
    )


def parse_page(body: bytes) -> FeedPage:
    """Read one page.

    Unknown members are ignored, so that a newer issuer can serve us; an unknown version
    is refused.

    Raises:
        FeedError: for anything that is not exactly the form above.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise FeedError("not JSON") from None
    if not isinstance(data, dict) or not data.keys() >= _MEMBERS:
        raise FeedError("members are missing")
    if data["v"] != VERSION or type(data["v"]) is not int:
        raise FeedError("v: unknown version")
    for member in ("iss", "epoch"):
        if not isinstance(data[member], str) or not data[member]:
            raise FeedError(f"{member}: must be text")
    for member in ("after", "to", "head", "as_of", "max_ttl"):
        if type(data[member]) is not int or data[member] < 0:
            raise FeedError(f"{member}: must be a whole number from 0")
    if not data["after"] <= data["to"] <= data["head"]:
        raise FeedError("after, to, head: must not fall")
    if not isinstance(data["entries"], list):
        raise FeedError("entries: must be a list")
    entries = [_parse_entry(row) for row in data["entries"]]
    _check_order(entries, data["after"], data["to"])
    return FeedPage(
        iss=data["iss"],
        epoch=data["epoch"],
        after=data["after"],
        to=data["to"],
        head=data["head"],
        as_of=data["as_of"],
        max_ttl=data["max_ttl"],
        entries=entries,
    )


def _parse_entry(row: Any) -> FeedEntry:
    if not isinstance(row, list) or len(row) != 5:
        raise FeedError("entries: each must be a list of five")
    seq, kind, key, minimum_generation, prune_at = row
    if type(seq) is not int or seq < 1:
        raise FeedError("entries: seq must be a whole number from 1")
    # Skipping an entry of an unknown kind would leave a revocation unenforced. Refusing
    # the page closes the gate when it becomes stale.
    if not isinstance(kind, str) or kind not in _KINDS:
        raise FeedError("entries: unknown kind")
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS:
        raise FeedError("entries: key must be text")
    if type(minimum_generation) is not int or minimum_generation < 0:
        raise FeedError("entries: minimum_generation must be a whole number from 0")
    if type(prune_at) is not int or prune_at < 0:
        raise FeedError("entries: prune_at must be Unix seconds")
    return FeedEntry(seq, _KINDS[kind], key, minimum_generation, prune_at)


def _check_order(entries: Sequence[FeedEntry], after: int, to: int) -> None:
    """Pruned entries leave gaps in `seq`, but it rises, and within `after`..`to`."""
    last = after
    for entry in entries:
        if not last < entry.seq <= to:
            raise FeedError("entries: seq must rise from after up to to")
        last = entry.seq
