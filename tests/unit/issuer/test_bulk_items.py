"""Rows of a bulk revocation: each is used or refused by itself, and none is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issuer.revoking.bulk_items import (
    BulkItem,
    BulkKind,
    RefusedItem,
    read_item,
    read_lines,
)

SID, JTI = BulkKind.SID, BulkKind.JTI


def read(text: str | bytes) -> list[BulkItem | RefusedItem]:
    data = text if isinstance(text, bytes) else text.encode()
    return list(read_lines(data.splitlines(keepends=True)))


def refusals(text: str | bytes) -> list[tuple[int, str]]:
    return [(r.line, r.field) for r in read(text) if isinstance(r, RefusedItem)]


def test_csv_is_read_by_its_header_in_any_order() -> None:
    assert read("exp,kind,key\n,sid,s1\n\n5,jti,j1\r\n") == [
        BulkItem(2, SID, "s1"),
        BulkItem(4, JTI, "j1", 5),
    ]
    assert read('\ufeffkind,key\nsid,"a,""b"\n') == [BulkItem(2, SID, 'a,"b')]


def test_json_lines_are_read() -> None:
    assert read('\n {"kind":"sid","key":"s1"}\n{"kind":"jti","key":"j","exp":5}') == [
        BulkItem(2, SID, "s1"),
        BulkItem(3, JTI, "j", 5),
    ]


@pytest.mark.parametrize("kind", list(BulkKind))
def test_every_kind_is_known(kind: BulkKind) -> None:
    assert read(f"kind,key\n{kind},x\n") == [BulkItem(2, kind, "x")]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("sid", "row"),
        ("sid,a,b", "row"),
        ("cookie,a", "kind"),
        ("SID,a", "kind"),
        (",a", "kind"),
        ("sid,", "key"),
        (f"sid,{'x' * 257}", "key"),
        ("sid,a\x07b", "key"),
        ("sid,a\u202eb", "key"),
        ('sid,"a', "row"),
        ("sid," + "x" * 5_000, "row"),
    ],
)
def test_a_bad_csv_row_is_refused_by_line_field_and_rule(row: str, field: str) -> None:
    text = f"kind,key\nsid,good\n{row}\nsid,also\n"
    assert refusals(text) == [(3, field)]
    assert [item.key for item in read(text) if isinstance(item, BulkItem)] == [
        "good",
        "also",
    ]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("{", "row"),
        ("[]", "row"),
        ('{"kind":"sid"}', "key"),
        ('{"kind":"sid","key":7}', "key"),
        ('{"key":"a"}', "kind"),
        ('{"kind":["sid"],"key":"a"}', "kind"),
        ('{"kind":"sid","key":"a","x":1}', "row"),
        ('{"kind":"sid","key":"a","exp":5}', "exp"),
        ('{"kind":"jti","key":"a","exp":"5"}', "exp"),
        ('{"kind":"jti","key":"a","exp":true}', "exp"),
        ('{"kind":"jti","key":"a","exp":0}', "exp"),
        ('{"kind":"jti","key":"a","exp":1e30}', "exp"),
        ('{"kind":"sid","key":"a","kind":"user"}', "kind"),
        ('{"kind":"sid","key":"a","key":"a"}', "key"),
        ('{"kind":"sid","key":"\\u0000"}', "key"),
        (b'{"kind":"sid","key":"\xff"}', "row"),
    ],
)
def test_a_bad_json_row_is_refused_by_line_field_and_rule(
    row: str | bytes, field: str
) -> None:
    data = row if isinstance(row, bytes) else row.encode()
    good = b'{"kind":"sid","key":"good"}\n'
    assert refusals(good + data + b"\n" + good) == [(2, field)]


@pytest.mark.parametrize("exp", ["x", "-5", "5.0", "\u0665", "9" * 13])
def test_a_bad_exp_in_csv_is_refused(exp: str) -> None:
    assert refusals(f"kind,key,exp\njti,a,{exp}\n") == [(2, "exp")]


@pytest.mark.parametrize(
    "header", ["sid,s1", "kind", "kind,key,key", "kind,key,why", b"\xff,key"]
)
def test_without_a_header_nothing_is_read(header: str | bytes) -> None:
    data = header if isinstance(header, bytes) else header.encode()
    assert len(read(data + b"\nsid,s1\n")) == 1
    assert refusals(data + b"\nsid,s1\n")[0][0] == 1


@pytest.mark.parametrize("row", [None, 7, "sid", ["sid", "a"]])
def test_an_item_that_is_no_object_is_refused(row: object) -> None:
    assert isinstance(read_item(3, row), RefusedItem)


@given(st.binary(max_size=400))
def test_every_line_is_published_of_once(data: bytes) -> None:
    """Whatever the file holds: after a header, each line that is not blank."""
    lines = data.splitlines(keepends=True)
    rows = list(read_lines([b"kind,key\n", *lines]))
    wanted = [n for n, line in enumerate(lines, 2) if line.strip()]
    assert [row.line for row in rows] == wanted
