"""If-Match, read as RFC 9110 writes it."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from starlette.requests import Request

from issuer.errors import (
    InvalidRequestError,
    PreconditionFailedError,
    PreconditionRequiredError,
)
from issuer.http.preconditions import build_etag, read_if_match, read_optional_if_match


class Answer(BaseModel):
    """Something with a state."""

    name: str


def make_request(*values: str) -> Request:
    headers = [(b"if-match", value.encode("latin-1")) for value in values]
    return Request({"type": "http", "headers": headers})


def test_equal_states_have_equal_tags_and_others_have_others() -> None:
    tags = [build_etag(Answer(name=name)) for name in ("a", "a", "b")]
    assert tags[0] == tags[1] != tags[2]
    assert tags[0].startswith('"')


@pytest.mark.parametrize(
    "values", [['"a"'], ["*"], ['"b", "a"'], ['"b"', '"a"'], [' "a" ,, "b"']]
)
def test_a_tag_that_is_named_matches(values: list[str]) -> None:
    read_if_match(make_request(*values)).require('"a"')


@pytest.mark.parametrize("values", [['"b"'], ['W/"a"'], ['""'], [""], ["  "]])
def test_another_state_is_refused(values: list[str]) -> None:
    with pytest.raises(PreconditionFailedError):
        read_if_match(make_request(*values)).require('"a"')


@pytest.mark.parametrize("values", [["a"], ['"a'], ['*, "a"'], ['w/"a"'], ['"a b"']])
def test_a_malformed_header_is_refused(values: list[str]) -> None:
    """R5."""
    for read in (read_if_match, read_optional_if_match):
        with pytest.raises(InvalidRequestError):
            read(make_request(*values))


def test_an_absent_header_accepts_any_state_where_it_is_not_required() -> None:
    with pytest.raises(PreconditionRequiredError):
        read_if_match(make_request())
    read_optional_if_match(make_request()).require('"a"')
