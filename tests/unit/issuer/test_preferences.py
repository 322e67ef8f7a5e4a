"""`Prefer: wait=S` (RFC 7240)."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from issuer.http.preferences import read_preferred_wait


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([], None),
        (["wait=2"], 2),
        (["wait=0"], 0),
        (["wait=30"], 30),
        (["wait=31"], 30),
        (["wait=999999999999999999"], 30),
        (["WAIT = 2"], 2),
        (['wait="2"'], 2),
        (["wait=2; now"], 2),
        (["respond-async, wait=2"], 2),
        (['handling="a, wait=9", wait=2'], 2),
        (["respond-async", "wait=2"], 2),
        (["wait=2, wait=3"], 2),
        (["wait=2", "wait=3"], 2),
        (["wait=soon, wait=3"], None),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=٢"], None),
        (['wait="2'], None),
        (["waiting=2"], None),
        (["await=2"], None),
        (["=2"], None),
        (["wait=" + "9" * 5_000], None),
    ],
)
def test_the_first_wait_counts_and_a_malformed_one_is_not_there(
    lines: list[str], seconds: int | None
) -> None:
    headers = Headers(raw=[(b"prefer", line.encode()) for line in lines])
    assert read_preferred_wait(headers) == seconds
