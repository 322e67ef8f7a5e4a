"""Which audience a token gets (RFC 8707, RFC 9700 section 2.3)."""

from __future__ import annotations

import pytest

from issuer.clients.audiences import choose_audience, format_audiences
from issuer.errors import InvalidRequestError, InvalidTargetError

OWN = "api"
A, B = "https://a.example", "https://b.example"


@pytest.mark.parametrize(
    ("form", "allowed", "chosen"),
    [
        pytest.param({}, set(), OWN, id="the issuer's own by default"),
        pytest.param({"audience": OWN}, set(), OWN, id="the issuer's own by name"),
        pytest.param({}, {A}, A, id="the only one"),
        pytest.param({}, {A, OWN}, OWN, id="the issuer's own before others"),
        pytest.param({"resource": A}, {A, B}, A, id="RFC 8707's parameter"),
        pytest.param({"audience": B}, {A, B}, B, id="RFC 8693's parameter"),
        pytest.param({"resource": A, "audience": A}, {A, B}, A, id="both alike"),
    ],
)
def test_the_audience_is_the_one_that_is_named_or_obvious(
    form: dict[str, str], allowed: set[str], chosen: str
) -> None:
    assert choose_audience(form, frozenset(allowed), OWN) == chosen


@pytest.mark.parametrize(
    ("form", "allowed"),
    [
        pytest.param({"resource": B}, {A}, id="another's"),
        pytest.param({"resource": A}, set(), id="none allowed but the issuer's own"),
        pytest.param({"audience": OWN}, {A}, id="the issuer's own, not allowed"),
        pytest.param({}, {A, B}, id="missing, and none is obvious"),
        pytest.param({"resource": A, "audience": B}, {A, B}, id="two at once"),
        pytest.param({"resource": A + "/"}, {A}, id="almost"),
        pytest.param({"resource": f"{A} {B}"}, {A, B}, id="two in one"),
    ],
)
def test_any_other_audience_is_refused(form: dict[str, str], allowed: set[str]) -> None:
    with pytest.raises(InvalidTargetError):
        choose_audience(form, frozenset(allowed), OWN)


def test_audiences_are_kept_as_a_sorted_text() -> None:
    assert format_audiences([B, A, B]) == f"{A} {B}"
    assert format_audiences([]) == ""


@pytest.mark.parametrize(
    "audiences",
    [[""], ["a b"], ["\u00e9"], ['"'], ["a" * 257], [f"a{n}" for n in range(21)]],
)
def test_malformed_audiences_are_refused(audiences: list[str]) -> None:
    with pytest.raises(InvalidRequestError):
        format_audiences(audiences)
