"""Every secret can come from a file that NAME_FILE names (R57)."""

from __future__ import annotations

import os

import pytest

from tests.support.programs import FEED_TOKEN, HUSH, Desk


def from_file(desk: Desk, content: bytes, name: str = "FEED_TOKEN") -> dict[str, str]:
    """Return good settings, one of which is in a file of this content."""
    (desk.directory / "secret").write_bytes(content)
    env = desk.program.env(**{f"{name}_FILE": "secret"})
    del env[f"{desk.program.prefix}{name}"]
    return env


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
def test_r57_a_secret_comes_from_a_file(desk: Desk, start: bytes, end: bytes) -> None:
    """oauth2-proxy 972, authelia 602: without its last newline."""
    env = from_file(desk, start + HUSH.encode() + end)
    shown = desk.show(env)
    assert (shown.status, shown.err) == (0, "")
    prefix = desk.program.prefix
    assert shown.values[f"{prefix}FEED_TOKEN"] == "(set)"
    path = desk.directory / "secret"
    assert shown.values[f"{prefix}FEED_TOKEN_FILE"] == str(path)
    assert HUSH not in shown.out


def test_r57_the_path_may_be_in_the_settings_file(desk: Desk) -> None:
    """And a placeholder copied from `.env.example` does not count as a value."""
    env = from_file(desk, HUSH.encode())
    prefix = desk.program.prefix
    path = env.pop(f"{prefix}FEED_TOKEN_FILE")
    desk.write(f"{prefix}FEED_TOKEN=\n{prefix}FEED_TOKEN_FILE={path}\n")
    assert desk.show(env).status == 0


def test_r57_both_set_is_refused(desk: Desk) -> None:
    env = from_file(desk, HUSH.encode())
    name = f"{desk.program.prefix}FEED_TOKEN"
    line = desk.refusal(env | {name: FEED_TOKEN})
    assert line == f"{name}: {name}_FILE is set as well; remove one of the two"
    desk.write(f"{name}={FEED_TOKEN}\n")
    assert desk.refusal(env) == line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\r\n", "is empty"),
        (HUSH.encode() + b"\n\n", "line break"),
        (HUSH.encode() + b" \n", "blank"),
        (HUSH.encode()[:20] + b"\r\n" + HUSH.encode(), "line break"),
        (HUSH.encode("utf-16"), "UTF-8"),
        (HUSH.encode() + b"\xff", "UTF-8"),
        (HUSH.encode() + b"\0", "control character"),
        (b"hush", "32"),
        (b"x" * 2_000_000, "larger than"),
    ],
    ids=range(11),
)
def test_r57_invalid_secrets_in_a_file_are_refused(
    desk: Desk, content: bytes, says: str
) -> None:
    line = desk.refusal(from_file(desk, content))
    assert line.startswith(f"{desk.program.prefix}FEED_TOKEN_FILE: ")
    assert says in line
    assert "hush" not in line


def test_r57_a_file_that_cannot_be_read_is_refused(desk: Desk) -> None:
    env = from_file(desk, HUSH.encode())
    name = f"{desk.program.prefix}FEED_TOKEN_FILE"
    assert desk.refusal(env | {name: HUSH}) == (
        f"{name}: there is no file at this path; it takes the path of a file that "
        "holds the secret, not the secret"
    )
    assert "is a directory" in desk.refusal(env | {name: "."})
    assert "must be the path of a file" in desk.refusal(env | {name: ""})
    assert "must be the path of a file" in desk.refusal(env | {name: "a\nb"})
    assert "no file" in desk.refusal(env | {name: "x" * 5_000})
    pipe = desk.directory / "pipe"
    os.mkfifo(pipe)
    assert "not a regular file" in desk.refusal(env | {name: pipe.name})
    loop = desk.directory / "loop"
    loop.symlink_to(loop.name)
    assert "cannot be read" in desk.refusal(env | {name: loop.name})


def test_r57_a_file_of_another_user_is_refused(desk: Desk) -> None:
    path = desk.directory / "secret"
    env = from_file(desk, HUSH.encode())
    path.chmod(0)
    line = desk.refusal(env | {f"{desk.program.prefix}FEED_TOKEN_FILE": path.name})
    assert line == (
        f"{desk.program.prefix}FEED_TOKEN_FILE: the file may not be read by this user; "
        "write the secret into a UTF-8 text file that the program's user may read"
    )


def test_r57_every_secret_has_a_file(desk: Desk) -> None:
    """And the file's content is checked as the setting's value is."""
    prefix = desk.program.prefix
    secrets = ["FEED_TOKEN"]
    if prefix == "ISSUER_":
        secrets += ["KEY_ENCRYPTION_KEYS", "PASSWORD_PEPPERS", "REFRESH_KEYS"]
        secrets += ["DATABASE_URL", "DATABASE_PASSWORD", "CAEP_ENDPOINTS"]
    for name in secrets:
        path = desk.directory / name
        path.write_text("hush")
        env = desk.program.env(**{f"{name}_FILE": name})
        env.pop(f"{prefix}{name}", None)
        line = desk.refusal(env)
        assert line.startswith(f"{prefix}{name}")
        assert "hush" not in line
