"""Ids that a client may choose: only a bounded plain word is taken (R35)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.serving import heads
from shared.tracing.ids import (
    RAW_REQUEST_ID,
    RAW_TRACEPARENT,
    find_request_id,
    find_trace_id,
    make_id,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01".encode()


@pytest.mark.parametrize("value", [b"a", b"a1-B.2_c", b"x" * 128])
def test_a_plain_word_is_taken(value: bytes) -> None:
    assert find_request_id([(RAW_REQUEST_ID, value)]) == value.decode()


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b"x" * 129],
        [b"two words"],
        [b"line\nbreak"],
        [b"end\n"],
        [b'"quoted"'],
        ["id-\u00e9".encode()],
        [b"\x1b[31m"],
        [b"one", b"two"],
        [b"one", b"one"],
    ],
)
def test_anything_else_is_not(values: list[bytes]) -> None:
    assert find_request_id([(RAW_REQUEST_ID, value) for value in values]) == ""


@given(st.binary(max_size=200))
def test_a_wire_answer_keeps_its_form_whatever_id_came(value: bytes) -> None:
    answer = heads.echo_request_id(heads.BODY_TOO_LARGE, [(RAW_REQUEST_ID, value)])
    head, end, rest = answer.partition(b"\r\n\r\n")
    assert (end, rest) == (b"\r\n\r\n", b"")
    lines = head.split(b"\r\n")
    assert lines[:3] == heads.BODY_TOO_LARGE.split(b"\r\n")[:3]
    assert lines[3:] in ([], [b"X-Request-ID: " + value])


@pytest.mark.parametrize(
    ("values", "trace_id"),
    [
        ([TRACEPARENT], TRACE),
        ([], ""),
        ([TRACEPARENT, TRACEPARENT], ""),
        ([TRACEPARENT.upper()], ""),
        ([b"01" + TRACEPARENT[2:]], ""),
        ([TRACEPARENT + b"\n"], ""),
        ([TRACEPARENT.replace(TRACE.encode(), b"0" * 32)], ""),
    ],
)
def test_a_trace_id_is_that_of_one_valid_traceparent(
    values: list[bytes], trace_id: str
) -> None:
    assert find_trace_id([(RAW_TRACEPARENT, value) for value in values]) == trace_id


def test_ids_differ() -> None:
    made = {make_id() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)
