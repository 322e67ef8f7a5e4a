"""`ISSUER_CAEP_ENDPOINTS`: accepted forms, and that a refusal repeats no
secret.
"""

from __future__ import annotations

import json

import pytest

from issuer.exports.event_delivery import next_delay
from issuer.settings.event_endpoints import read_endpoints

GOOD = {
    "name": "partner",
    "url": "https://partner.test/ssf/events/?tenant=7",
    "audience": "https://partner.test",
    "token": "hush-hush-hush-hush",
}


def test_endpoints_are_read_from_the_setting() -> None:
    text = json.dumps([GOOD, GOOD | {"name": "other", "url": "http://127.0.0.1:9/x"}])
    first, second = read_endpoints(text)
    assert first.token.get_secret_value() == GOOD["token"]
    assert second.name == "other"
    assert read_endpoints("") == ()


def test_an_endpoint_is_shown_without_its_token() -> None:
    """R35."""
    (endpoint,) = read_endpoints(json.dumps([GOOD]))
    assert "hush" not in f"{endpoint} {endpoint!r}"


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://partner.test/events"},
        {"url": "ftp://partner.test/events"},
        {"url": "https://user:hush@partner.test/events"},
        {"url": "https://partner.test/events#part"},
        {"url": "https:///events"},
        {"url": "https://partner.test/events\r\nhush: x"},
        {"url": "https://partner.test/events?a=hu\tsh"},
        {"url": "https://partner.test:99999/events"},
        {"name": "Partner"},
        {"name": ""},
        {"name": "x" * 65},
        {"audience": ""},
        {"token": "hush"},
        {"token": "hush hush hush hush"},
        {"token": "hush-hush-hush-hush\r\nX: y"},
        {"hush": "x"},
    ],
    ids=str,
)
def test_an_endpoint_that_is_not_safe_is_refused(change: dict[str, str]) -> None:
    """R21, R35: https, or http to loopback; the refusal does not repeat what stood
    there.
    """
    with pytest.raises(ValueError, match="endpoint 1") as refused:
        read_endpoints(json.dumps([GOOD | change]))
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "7", '{"name": "hush"}', "[7]", "[[]]"])
def test_an_invalid_list_of_endpoints_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a JSON list") as refused:
        read_endpoints(text)
    assert "hush" not in str(refused.value)


def test_an_endpoint_with_a_duplicate_member_is_refused() -> None:
    entry = json.dumps(GOOD)
    twice = entry[:-1] + ', "url": "https://elsewhere.test/hush"}'
    with pytest.raises(ValueError, match="url: must not stand twice") as refused:
        read_endpoints(f"[{twice}]")
    assert "hush" not in str(refused.value)


def test_two_endpoints_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="once"):
        read_endpoints(json.dumps([GOOD, GOOD]))


def test_attempts_come_more_and_more_seldom_up_to_a_quarter_of_an_hour() -> None:
    assert [next_delay(n, 1.0) for n in (1, 2, 3, 9, 10, 99)] == [
        2,
        4,
        8,
        512,
        900,
        900,
    ]
    assert [next_delay(n, 0.0) for n in (1, 2, 3, 99)] == [1, 2, 4, 450]


def test_deep_nesting_is_refused_like_any_other_text() -> None:
    with pytest.raises(ValueError, match="must be a JSON list"):
        read_endpoints("[" * 100_000)
