"""The feed's wire form: exactly this, or refused whole with the member's name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from shared.feed import (
    MAX_KEY_CHARS,
    EntryKind,
    FeedEntry,
    FeedError,
    FeedPage,
    encode_page,
    parse_page,
)

ENTRIES = [
    FeedEntry(seq, kind, f"key-{kind}", 3 if kind in {"user", "client"} else 0, 1_000)
    for seq, kind in enumerate(EntryKind, start=11)
]
PAGE = FeedPage(
    iss="https://issuer.test",
    epoch="epoch-1",
    after=10,
    to=15,
    head=20,
    as_of=1_795_396_833_123,
    max_ttl=600,
    entries=ENTRIES,
)


def wire(**changes: Any) -> bytes:
    """Return the page's JSON with changes; a change to `...` removes the member."""
    members = orjson.loads(encode_page(PAGE)) | changes
    return orjson.dumps({n: v for n, v in members.items() if v is not ...})


def entry(**changes: Any) -> list[Any]:
    members = {"seq": 11, "kind": "sid", "key": "s", "generation": 0, "prune_at": 1}
    return list((members | changes).values())


def test_writing_and_reading_round_trips() -> None:
    assert parse_page(encode_page(PAGE)) == PAGE


def test_a_page_without_news_is_a_page() -> None:
    page = replace(PAGE, after=20, to=20, entries=[])
    assert parse_page(encode_page(page)) == page


def test_the_wire_form_is_the_one_in_the_design() -> None:
    page = replace(
        PAGE, to=12, head=12, entries=[FeedEntry(11, EntryKind.USER, "sub", 4, 99)]
    )
    assert orjson.loads(encode_page(page)) == {
        "v": 1,
        "iss": "https://issuer.test",
        "epoch": "epoch-1",
        "after": 10,
        "to": 12,
        "head": 12,
        "as_of": 1_795_396_833_123,
        "max_ttl": 600,
        "entries": [[11, "user", "sub", 4, 99]],
    }


def test_members_of_a_newer_issuer_are_ignored() -> None:
    assert parse_page(wire(later="news")) == PAGE


def test_pruned_entries_may_leave_gaps() -> None:
    rows = [entry(seq=12), entry(seq=15)]
    assert [e.seq for e in parse_page(wire(entries=rows)).entries] == [12, 15]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"\xef\xbb\xbf{}", encode_page(PAGE)[:-3], b"NaN"],
)
def test_invalid_json_is_refused(body: bytes) -> None:
    with pytest.raises(FeedError, match="not JSON"):
        parse_page(body)


@pytest.mark.parametrize("body", [b"[]", b"null", b'"page"', b"{}"])
def test_json_that_is_not_a_page_is_refused(body: bytes) -> None:
    with pytest.raises(FeedError, match="members are missing"):
        parse_page(body)


@pytest.mark.parametrize(
    "member",
    ["v", "iss", "epoch", "after", "to", "head", "as_of", "max_ttl", "entries"],
)
def test_no_member_may_be_missing(member: str) -> None:
    with pytest.raises(FeedError, match="members are missing"):
        parse_page(wire(**{member: ...}))


BAD_MEMBERS = [
    *(("v", value) for value in (2, 0, "1", True, 1.0, None)),
    *((member, value) for member in ("iss", "epoch") for value in ("", 1, None, [])),
    *(
        (member, value)
        for member in ("after", "to", "head", "as_of", "max_ttl")
        for value in (-1, 1.0, True, "1", None, 1e30)
    ),
    *(("entries", value) for value in (None, {}, "", 0)),
]


@pytest.mark.parametrize(("member", "value"), BAD_MEMBERS)
def test_a_malformed_member_is_named(member: str, value: Any) -> None:
    with pytest.raises(FeedError, match=rf"^{member}: "):
        parse_page(wire(**{member: value}))


@pytest.mark.parametrize("numbers", [(16, 15, 20), (10, 21, 20), (21, 21, 20)])
def test_positions_must_not_fall(numbers: tuple[int, int, int]) -> None:
    after, to, head = numbers
    with pytest.raises(FeedError, match="must not fall"):
        parse_page(wire(after=after, to=to, head=head, entries=[]))


BAD_ENTRIES = [
    ("list of five", None),
    ("list of five", {}),
    ("list of five", []),
    ("list of five", entry()[:4]),
    ("list of five", [*entry(), 0]),
    *(("seq", entry(seq=value)) for value in (0, -1, "11", 11.0, True, None)),
    *(("kind", entry(kind=value)) for value in ("SID", "iss", "", 1, None, [])),
    *(("key", entry(key=value)) for value in ("", 1, None, [], "k" * 257)),
    *(
        ("minimum_generation", entry(generation=value))
        for value in (-1, 1.0, "1", True, None)
    ),
    *(("prune_at", entry(prune_at=value)) for value in (-1, 1.0, "1", True, None)),
]


@pytest.mark.parametrize(("named", "row"), BAD_ENTRIES)
def test_one_malformed_entry_refuses_the_page(named: str, row: Any) -> None:
    """An entry of an unknown kind would be a revocation without effect."""
    with pytest.raises(FeedError, match=rf"^entries: .*{named}"):
        parse_page(wire(entries=[row]))


def test_the_longest_key_is_read() -> None:
    rows = [entry(key="k" * MAX_KEY_CHARS)]
    assert parse_page(wire(entries=rows)).entries[0].key == "k" * MAX_KEY_CHARS


@pytest.mark.parametrize("seqs", [(10,), (16,), (12, 11), (11, 11), (9, 11)])
def test_entries_must_rise_within_their_page(seqs: tuple[int, ...]) -> None:
    with pytest.raises(FeedError, match="seq must rise"):
        parse_page(wire(entries=[entry(seq=seq) for seq in seqs]))
