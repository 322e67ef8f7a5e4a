"""The `.env` file: accepted forms, and forms that are refused instead of skipped."""

from __future__ import annotations

import pytest

from tests.support.programs import HUSH, Desk


def lines_of(desk: Desk, **changes: str) -> list[str]:
    return [f"{name}={text}" for name, text in desk.program.env(**changes).items()]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("export", ["", "export "])
@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_the_file_may_be_written_in_several_ways(
    desk: Desk, encoding: str, newline: str, export: str, quote: str
) -> None:
    pairs = desk.program.env(AUDIENCE="größe").items()
    lines = [f"{export}{name}={quote}{text}{quote}" for name, text in pairs]
    desk.write(newline.join(["# ours", "", *lines, ""]).encode(encoding))
    shown = desk.show()
    assert (shown.status, shown.err) == (0, "")
    assert shown.values[f"{desk.program.prefix}AUDIENCE"] == "größe"


def test_a_name_in_lower_case_counts(desk: Desk) -> None:
    pairs = desk.program.env().items()
    desk.write("\n".join(f"{name.lower()}={text}" for name, text in pairs))
    shown = desk.show()
    assert (shown.status, shown.err) == (0, "")
    assert "did you mean" in desk.refusal({f"{desk.program.prefix.lower()}workrs": "2"})


def test_one_name_in_two_cases_is_refused(desk: Desk) -> None:
    name = f"{desk.program.prefix}AUDIENCE"
    line = desk.refusal(desk.program.env() | {name.lower(): "other"})
    assert line == f"{name}: is set as {name} and as {name.lower()}; remove one"


def test_a_duplicate_name_is_refused(desk: Desk) -> None:
    """An appended secret would replace the one before it, and no login would pass."""
    name = f"{desk.program.prefix}FEED_TOKEN"
    desk.write("\n".join([*lines_of(desk), "", f"{name}={HUSH}", ""]))
    first = 1 + [line.partition("=")[0] for line in lines_of(desk)].index(name)
    second = len(lines_of(desk)) + 2
    assert desk.refusal() == (
        f"{name}: stands in .env twice, in lines {first} and {second}; remove one"
    )
    desk.write("\n".join([*lines_of(desk), f"{name.lower()}={HUSH}"]))
    assert "twice" in desk.refusal()


def test_the_empty_line_of_the_example_may_stay(desk: Desk) -> None:
    name = f"{desk.program.prefix}FEED_TOKEN"
    desk.write("\n".join([f"{name}=", *lines_of(desk)]))
    assert desk.show().status == 0
    desk.write("\n".join([*lines_of(desk), f"{name}="]))
    assert "twice" in desk.refusal()


@pytest.mark.parametrize(
    "line",
    [
        "{} https://x",
        "{}: https://x",
        "- {}=https://x",
        '{}="https://x',
        "{}",
        "set {}=x",
        "declare -x {}=x",
        "export -x {}=x",
        "$env:{}=x",
    ],
)
def test_a_line_of_ours_that_cannot_be_read_is_named(desk: Desk, line: str) -> None:
    name = f"{desk.program.prefix}AUDIENCE"
    desk.write("\n".join(["OTHER=1", "", line.format(name), "MORE=2", ""]))
    refused = desk.refusal(desk.program.env())
    assert refused == f".env: line 3 is not NAME=VALUE; write {name}=..."


def test_a_name_with_dashes_is_named(desk: Desk) -> None:
    name = f"{desk.program.prefix}AUDIENCE"
    desk.write(name.replace("_", "-") + "=x\n")
    refused = desk.refusal(desk.program.env())
    assert refused == f".env: line 1 is not NAME=VALUE; write {name}=..."


def test_a_name_that_holds_our_prefix_is_anothers(desk: Desk) -> None:
    name = f"{desk.program.prefix}AUDIENCE"
    desk.write("\n".join([f"MY_{name}=x", f"TEXT=say {name}=x", *lines_of(desk)]))
    assert desk.show().status == 0


def test_a_line_of_another_program_may_be_anything(desk: Desk) -> None:
    desk.write("\n".join(["if true; then", "  OTHER=1", "fi", *lines_of(desk)]))
    assert desk.show().status == 0


def test_a_quote_that_takes_in_our_line_is_named(desk: Desk) -> None:
    workers = f"{desk.program.prefix}WORKERS"
    desk.write("\n".join(['OTHER="a', f"{workers}=2", 'MORE="', *lines_of(desk)]))
    assert desk.refusal() == (
        f".env: the quote that opens in line 1 takes in the line of {workers}; close it"
    )


def test_a_reference_to_nothing_is_refused(desk: Desk) -> None:
    name = f"{desk.program.prefix}AUDIENCE"
    env = desk.program.env()
    del env[name]
    for text in ("a-${HUSH_NAME}", '"a-${HUSH_NAME}"'):
        desk.write(f"{name}={text}\n")
        line = desk.refusal(env)
        assert line == (
            f"{name}: refers in .env to a variable with ${{...}} that is not set; set "
            "it, or put a value that has ${ in it into the environment"
        )
        assert desk.show(env | {"HUSH_NAME": "b"}).status == 0
    desk.write(f"OTHER=b\n{name}=a-${{OTHER}}-${{HUSH_NAME:-c}}\n")
    shown = desk.show(env)
    assert shown.values[name] == "a-b-c"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_in_another_encoding_is_named(desk: Desk, encoding: str) -> None:
    """PowerShell writes UTF-16 with `>>`."""
    desk.write("\n".join(lines_of(desk, AUDIENCE="größe")).encode(encoding))
    assert desk.refusal() == (
        ".env: is not UTF-8; put a readable UTF-8 file there or remove it"
    )


def test_an_invalid_file_is_named(desk: Desk) -> None:
    """Docker makes a directory where a file to be mounted is missing."""
    path = desk.directory / ".env"
    path.mkdir()
    assert desk.refusal(desk.program.env()) == (
        ".env: is a directory; put a readable UTF-8 file there or remove it"
    )
    path.rmdir()
    path.symlink_to("nothing")
    assert desk.refusal(desk.program.env()) == (
        ".env: is a link to a file that is not there; put the file there or remove the link"
    )
    path.unlink()
    path.write_bytes(b"#" * 2_000_000)
    assert "larger than" in desk.refusal(desk.program.env())


def test_a_file_of_another_user_is_named(desk: Desk) -> None:
    desk.write("A=1\n").chmod(0)
    assert desk.refusal(desk.program.env()) == (
        ".env: may not be read by this user; put a readable UTF-8 file there or remove it"
    )
