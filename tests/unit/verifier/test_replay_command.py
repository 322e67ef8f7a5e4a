"""`python -m verifier policy replay`: what a proposed file would change (R66)."""

from __future__ import annotations

import gzip
import io
import json
import os
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.policy_page import blocks
from verifier.commands.main import main

Run = pytest.CaptureFixture[str]

OLD = """
[policies.shop]
[[policies.shop.rules]]
path = "/assets/**"
public = true
[[policies.shop.rules]]
path = "/orders/**"
methods = ["GET"]
"""
NEW = """
[policies.shop]
[[policies.shop.rules]]
path = "/assets/**"
required_scopes = ["shop:read"]
[[policies.shop.rules]]
path = "/orders/**"
methods = ["GET"]
required_roles = ["clerk", "admin"]
"""


def test_audience_of_a_file_is_never_taken_for_the_verifiers_own(
    tmp_path: Path, capsys: Run
) -> None:
    """A file that named the word which stands for it was said to change nothing."""
    old, new, log = (tmp_path / name for name in ("old.toml", "new.toml", "log"))
    old.write_text("[policies.shop]\n")
    new.write_text('[policies.shop]\naudience = "audience"\n')
    log.write_text(line("/a", "clerk"))
    words = ["policy", "replay", str(new), "--against", str(old), "--log", str(log)]
    assert main(words) == 1
    assert "audience_mismatch 1" in capsys.readouterr().out


def line(path: str, roles: str | None, credential: str = "1", **changes: Any) -> str:
    """Return a line as nginx writes it; without roles the allow is anonymous."""
    members = {
        "policy": "shop",
        "method": "GET",
        "host": "shop.example.com",
        "uri": path,
        "credential": credential,
        "gate": "200",
        "decision": "allow-anonymous" if roles is None else "allow",
        "client": "" if roles is None else "secret-client",
        "scope": "" if roles is None else "secret:scope",
        "roles": roles or "",
    }
    return json.dumps(members | changes, separators=(",", ":"))


LOG = [
    line("/assets/a.css", None, "0"),
    line("/assets/b.css", None),
    line("/orders/7?secret=1", "guest"),
    line("/orders/8", "clerk"),
    line("/orders/9", "admin x"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies.toml").write_text(OLD)
    (tmp_path / "new.toml").write_text(NEW)
    (tmp_path / "gatehouse.log").write_text("\n".join(LOG) + "\n")
    return tmp_path


def replay(*options: str, new: str = "new.toml", log: str = "gatehouse.log") -> int:
    command = ["policy", "replay", new, "--against", "policies.toml"]
    return main([*command, "--log", log, *options])


def test_report_of_the_document_is_what_its_command_prints(
    folder: Path, capsys: Run
) -> None:
    heading = "See what a new policy file would change"
    (command,), (report,) = (blocks(heading, language) for language in ("sh", "text"))
    python, module, program, *arguments = shlex.split(command)
    assert [python, module, program] == ["python", "-m", "verifier"]
    assert main(arguments) == 1
    assert capsys.readouterr().out == report


def test_json_has_the_same_by_rule(folder: Path, capsys: Run) -> None:
    assert replay("--json") == 1
    found = json.loads(capsys.readouterr().out)
    rules = found.pop("rules")
    assert found == {
        "requests": 5,
        "newly_refused": 2,
        "newly_allowed": 0,
        "allowed_differently": 0,
        "cannot_tell": 1,
        "not_asked": 0,
        "unread_lines": {},
        "first_unread_line": None,
    }
    assert rules[1] == {
        "policy": "shop",
        "rule": 2,
        "rule_before": 2,
        "path": "/orders/**",
        "methods": ["GET"],
        "hosts": [],
        "note": None,
        "requests_before": 3,
        "requests_after": 3,
        "newly_refused": {"role_missing": 1},
        "newly_allowed": {},
        "allowed_differently": {},
        "cannot_tell": {},
        "examples": {"newly_refused": ["GET shop.example.com/orders/7"]},
    }


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_nothing_of_the_identity_or_the_query_is_printed(
    folder: Path, capsys: Run, options: list[str]
) -> None:
    replay(*options)
    assert "secret" not in "".join(capsys.readouterr())


def test_file_against_itself_changes_nothing(folder: Path, capsys: Run) -> None:
    assert replay(new="policies.toml") == 0
    assert "0 newly refused" in capsys.readouterr().out


def test_lines_that_cannot_be_read_are_counted_and_end_with_1(
    folder: Path, capsys: Run
) -> None:
    lines = [
        *LOG[:2],
        "",
        "rubbish",
        line("/x", "r", gate=""),
        "x" * 200_000,
        '{"a":1,"a":2}',
    ]
    (folder / "gatehouse.log").write_text("\n".join(lines))
    assert replay(new="policies.toml") == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2:] == [
        "1 request had no answer of the gate",
        "3 lines could not be read; the first is line 4 of gatehouse.log: it is no JSON "
        "object, or names a member twice",
    ]
    assert replay("--json", new="policies.toml") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["not_asked"] == 1
    assert found["unread_lines"] == {
        "is no JSON object, or names a member twice": 2,
        "is longer than 131072 bytes": 1,
    }
    assert found["first_unread_line"] == {
        "log": "gatehouse.log",
        "line": 4,
        "reason": "is no JSON object, or names a member twice",
    }


def test_log_of_another_policy_file_is_pointed_out(folder: Path, capsys: Run) -> None:
    (folder / "gatehouse.log").write_text(line("/elsewhere", "r"))
    assert replay() == 1
    shown = capsys.readouterr().out
    assert "cannot tell: 1 (old_file_disagrees 1)" in shown
    assert "1 of them the gate did not answer as --against decides" in shown


def test_several_logs_also_compressed_and_from_standard_input(
    folder: Path, capsys: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress("\n".join(LOG).encode())
    (folder / "gatehouse.log.1.gz").write_bytes(packed)
    text = io.TextIOWrapper(io.BytesIO(LOG[0].encode()))
    monkeypatch.setattr(sys, "stdin", text)
    assert replay("--log", "gatehouse.log.1.gz", "--log", "-") == 1
    assert "11 requests replayed: 5 newly refused" in capsys.readouterr().out


def test_policy_is_named_where_the_log_names_none(folder: Path, capsys: Run) -> None:
    (folder / "gatehouse.log").write_text(line("/orders/7", "guest", policy=""))
    assert replay("--policy", "shop") == 1
    assert "newly refused: 1 (role_missing 1)" in capsys.readouterr().out
    assert replay() == 2
    assert "line 1 policy: is missing; name it with --policy" in capsys.readouterr().err


def test_policies_may_come_from_a_pipe(folder: Path, capsys: Run) -> None:
    """As with `--against <(git show HEAD:policies.toml)`."""
    os.mkfifo(folder / "pipe")
    writing = threading.Thread(target=(folder / "pipe").write_text, args=[NEW])
    writing.start()
    assert replay(new="pipe") == 1
    writing.join()


def damaged(content: bytes) -> bytes:
    return content[:20] + b"\xff" * 30


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "no request could be replayed: it is empty"),
        (b"\n\n", "no request could be replayed: it is empty"),
        (b"GET / 200\n", "no request could be replayed: f.log: line 1 is no JSON"),
        (gzip.compress(b"x" * 9_000)[:-9], "f.log: is damaged gzip, or is cut off"),
        (damaged(gzip.compress(b"x y z" * 99)), "f.log: is damaged gzip"),
    ],
    ids=["gone", "empty", "blank", "another form", "cut off", "damaged"],
)
def test_log_that_cannot_be_used_is_named_and_ends_with_2(
    folder: Path, capsys: Run, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (folder / "f.log").write_bytes(content)
    assert replay(log="f.log") == 2
    assert reason in capsys.readouterr().err
    assert replay("--json", log="f.log") == 2
    assert reason in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("file", ["new.toml", "policies.toml"])
def test_policy_file_that_cannot_be_used_is_named(
    folder: Path, capsys: Run, file: str
) -> None:
    (folder / file).write_text("[policies.shop]\nrequired_scope = []")
    assert replay() == 2
    assert (
        f"{file}: policies.shop.required_scope: there is no" in capsys.readouterr().err
    )


def test_help_says_what_is_needed_and_what_the_words_mean(capsys: Run) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["policy", "replay", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for word in (
        "--against",
        "--log",
        "docs/policies.md",
        "cannot tell",
        "exit status",
    ):
        assert word in shown


def test_rows_say_where_a_rule_was_and_which_hosts_it_has(
    folder: Path, capsys: Run
) -> None:
    new = NEW.replace(
        "[policies.shop]\n",
        "[policies.shop]\n[[policies.shop.rules]]\n"
        'hosts = ["admin.example.com", "*.ops.example.com"]\nmethods = ["PUT", "GET"]\n',
        1,
    )
    (folder / "new.toml").write_text(new)
    log = [line("/x", None, gate="403", host="admin.example.com"), *LOG]
    log.append(line("/orders/7", "r", policy="other\x1b"))
    (folder / "gatehouse.log").write_text("\n".join(log))
    assert replay() == 1
    shown = capsys.readouterr().out
    for text in (
        "policies that are in neither file\n  unknown policy: 1 request before, 1 after",
        "rules[1] of NEW GET PUT admin.example.com *.ops.example.com /**: 0 requests",
        "rules[2], before rules[1], /assets/**: 2 requests before, 2 after",
        "  no rule: 1 request before, 0 after",
    ):
        assert text in shown


def test_memory_does_not_grow_with_the_log(folder: Path, capsys: Run) -> None:
    """Each request is another path, host, method and policy."""
    import tracemalloc

    def peak(lines: int) -> int:
        with (folder / "gatehouse.log").open("w") as log:
            for number in range(lines):
                changes = {"host": f"h{number}", "method": f"M{number}"}
                log.write(
                    line(f"/{number}", "r", policy=f"p{number}", **changes) + "\n"
                )
                log.write(line(f"/orders/{number}", f"r{number}") + "\n")
        tracemalloc.start()
        try:
            replay()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            capsys.readouterr()

    few = peak(700)
    assert peak(1_400) < 1.3 * few
