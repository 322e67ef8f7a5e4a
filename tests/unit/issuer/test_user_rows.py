"""Rows of accounts to import: what cannot be read is told, and kept as it stood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issuer.accounts.user_rows import RefusedRow, UserRow, UserRows


def read(text: bytes) -> list[UserRow | RefusedRow]:
    return list(UserRows(text.splitlines(keepends=True)))


def test_csv_is_read_by_its_header_in_any_order() -> None:
    rows = UserRows(
        [
            b"\xef\xbb\xbfroles, username ,password\r\n",
            b"clerk;auditor  boss,alice,\r\n",
            b"\r\n",
            b',"b, ob","pass ""word"""',
        ]
    )
    alice, bob = rows
    assert rows.header == b"\xef\xbb\xbfroles, username ,password\r\n"
    assert isinstance(alice, UserRow)
    assert isinstance(bob, UserRow)
    assert (alice.line, alice.username) == (2, "alice")
    assert alice.roles == ("clerk", "auditor", "boss")
    assert alice.password is None
    assert (bob.line, bob.username, bob.password) == (4, "b, ob", 'pass "word"')
    assert bob.roles == ()


def test_json_lines_are_read() -> None:
    rows = read(b'{"username":"a","roles":["r"]}\n{"username":"b","password_hash":"h"}')
    assert [row[2:] for row in rows] == [
        ("a", ("r",), None, None),
        ("b", (), None, "h"),
    ]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"[]", "row"),
        (b"{", "row"),
        (b'{"username":"\xff"}', "row"),
        (b'{"username":"a","admin":true}', "row"),
        (b'{"username":"a\\u0000"}', "row"),
        (b'{"username":"' + b"a" * 17_000 + b'"}', "row"),
        (b'{"username":"a","username":"b"}', "username"),
        (b'{"username":"a","roles":[],"roles":["admin"]}', "roles"),
        (b"{}", "username"),
        (b'{"username":7}', "username"),
        (b'{"username":"a","roles":"r"}', "roles"),
        (b'{"username":"a","roles":[1]}', "roles"),
        (b'{"username":"a","roles":[' + b'"r",' * 32 + b'"r"]}', "roles"),
        (b'{"username":"a","password":1}', "password"),
        (b'{"username":"a","password":"x","password_hash":"y"}', "password"),
    ],
)
def test_a_json_row_that_cannot_be_used_is_published_and_kept(
    line: bytes, field: str
) -> None:
    text = b'{"username":"first"}\n' + line + b'\n{"username":"last"}\n'
    first, bad, last = read(text)
    assert isinstance(bad, RefusedRow)
    assert (bad.line, bad.raw, bad.field) == (2, line + b"\n", field)
    assert isinstance(first, UserRow)
    assert isinstance(last, UserRow)


@pytest.mark.parametrize("line", [b"a", b"a,b,c", b'"a', b"\xff,b", b'a,"b"c'])
def test_a_csv_row_that_cannot_be_used_is_published_and_kept(line: bytes) -> None:
    text = b"username,password\n" + line + b"\nlast,\n"
    bad, last = read(text)
    assert isinstance(bad, RefusedRow)
    assert (bad.line, bad.raw, bad.field) == (2, line + b"\n", "row")
    assert isinstance(last, UserRow)


@pytest.mark.parametrize(
    "header", [b"name", b"username,admin", b"username,username", b"roles", b'"x']
)
def test_without_a_header_that_means_something_no_row_does(header: bytes) -> None:
    (bad,) = read(header + b"\nalice\nbob\n")
    assert isinstance(bad, RefusedRow)
    assert (bad.line, bad.field) == (1, "row" if header == b'"x' else "header")


@given(
    st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"") + b"\n"))
)
def test_no_line_is_lost_whatever_it_holds(lines: list[bytes]) -> None:
    rows = UserRows(lines)
    read_lines = [row.raw for row in rows]
    # A byte order mark is one at a file's begin only.
    begin = [line.removeprefix(b"\xef\xbb\xbf") for line in lines[:1]]
    filled = [
        line
        for line, text in zip(lines, [*begin, *lines[1:]], strict=True)
        if text.strip()
    ]
    if rows.header:
        assert [rows.header, *read_lines] == filled
    else:
        # JSON lines, or a file that ends with its header.
        assert read_lines in (filled, filled[:1])
