"""A value of bad form is named with the form it should have, and not repeated."""

from __future__ import annotations

import os

import pytest

from tests.support.programs import HUSH, Desk


@pytest.mark.parametrize("quote", ['"', "'"])
def test_quotes_that_an_env_file_of_docker_left_are_named(
    desk: Desk, quote: str
) -> None:
    for name, text in (*desk.program.least.items(), ("WORKERS", "2")):
        line = desk.refusal(desk.program.env(**{name: f"{quote}{text}{quote}"}))
        assert line == (
            f"{desk.program.prefix}{name}: has quotes around it, which are taken as a "
            "part of the value (docker's --env-file leaves them); remove them"
        )


@pytest.mark.parametrize("text", ["{} ", " {}", "{}\t", "{}\n", "{}\r", "\u00a0{}"])
def test_blanks_around_a_value_are_named(desk: Desk, text: str) -> None:
    values = {"AUDIENCE": "api", "FEED_TOKEN": HUSH, "BIND": "127.0.0.1:9"}
    for name, value in (values | {"WORKERS": "1", "LOG_LEVEL": "info"}).items():
        line = desk.refusal(desk.program.env(**{name: text.format(value)}))
        assert line == (
            f"{desk.program.prefix}{name}: begins or ends with a blank or a line break; "
            "remove it"
        )


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x00b", "a\x7fb", "a\u2028b"])
def test_control_characters_are_named(desk: Desk, text: str) -> None:
    if "\x00" in text:
        desk.write(f"{desk.program.prefix}AUDIENCE={text}\n")
        env = desk.program.env()
        del env[f"{desk.program.prefix}AUDIENCE"]
    else:
        env = desk.program.env(AUDIENCE=text)
    assert desk.refusal(env) == (
        f"{desk.program.prefix}AUDIENCE: has a line break or another control character "
        "in it; remove it"
    )


def test_bytes_that_are_no_utf_8_are_named(desk: Desk) -> None:
    text = os.fsdecode(b"api\xff")
    line = desk.refusal(desk.program.env(AUDIENCE=text))
    assert line == f"{desk.program.prefix}AUDIENCE: is not UTF-8; write it as UTF-8"


@pytest.mark.parametrize(
    "text",
    ["", "two", "1_0", "+-1", "1.0", "0x1", "1e3", "٣", "\uff11", "10s", "1 0", "nan"],
)
def test_a_number_is_written_in_digits(desk: Desk, text: str) -> None:
    assert desk.refusal(desk.program.env(WORKERS=text)) == (
        f"{desk.program.prefix}WORKERS: must be a whole number in digits, such as 600; "
        "no unit, blank or underscore"
    )


def test_a_number_out_of_bounds_is_named_with_the_bound(desk: Desk) -> None:
    name = f"{desk.program.prefix}WORKERS"
    assert desk.refusal(desk.program.env(WORKERS="0")) == f"{name}: must be 1 or more"
    for text in ("65", "9" * 18, "9" * 400):
        line = desk.refusal(desk.program.env(WORKERS=text))
        assert line.startswith(f"{name}: must be ")


def test_a_word_out_of_a_list_is_named_with_the_list(desk: Desk) -> None:
    assert desk.refusal(desk.program.env(LOG_LEVEL="INFO")) == (
        f"{desk.program.prefix}LOG_LEVEL: must be debug, info, warning or error"
    )
