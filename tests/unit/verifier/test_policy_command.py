"""`python -m verifier policy`: what a file says before it is in force (R65, R66)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import policy_page
from tests.support.gatehouse_verifier import TOKEN_POLICY
from verifier.check.denials import DenyReason
from verifier.commands.main import main
from verifier.policies.document import parse_policies
from verifier.policies.meanings import MEANINGS
from verifier.policies.warnings import find_warnings

Run = pytest.CaptureFixture[str]


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


GOOD = '[policies.a]\n[[policies.a.rules]]\npath = "/x"\n'
HIDDEN = GOOD + '[[policies.a.rules]]\npath = "/x"\nmethods = ["GET"]\n'
CASES = """
policies = "policies.toml"
[[cases]]
name = "a reader reads"
policy = "a"
path = "/x"
token = { scope = "r" }
expect = "allow"
[[cases]]
policy = "a"
path = "/y"
token = {}
expect = "rule_missing"
[[cases]]
policy = "a"
path = "/x"
expect = "credential_missing"
"""


def test_check_prints_the_policies_of_a_good_file(tmp_path: Path, capsys: Run) -> None:
    assert main(["policy", "check", write(tmp_path, "p.toml", GOOD)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "policy default: 0 rules",
        "policy a: 1 rule",
    ]


def test_check_warns_of_a_rule_that_never_matches(tmp_path: Path, capsys: Run) -> None:
    file = write(tmp_path, "p.toml", HIDDEN)
    warning = (
        "policies.a.rules[2]: never matches, because rules[1] before it matches every "
        "such request"
    )
    assert main(["policy", "check", file]) == 1
    assert f"warning: {warning}" in capsys.readouterr().out
    assert main(["policy", "check", file, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "policies": ["a", "default"],
        "warnings": [warning],
    }


def test_clients_that_exclude_each_other_are_warned_of() -> None:
    text = 'client_ids = ["x"]\n[[policies.a.rules]]\npath = "/"\nclient_ids = ["y"]'
    (warning,) = find_warnings(parse_policies(f"[policies.a]\n{text}", TOKEN_POLICY))
    assert warning.startswith("policies.a.rules[1].client_ids: no token passes")


@pytest.mark.parametrize("act", ["check", "test"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not there"),
        ("[", "not TOML"),
        ("nope = 1", "nope: there is no such field"),
    ],
)
def test_file_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: Run, act: str, content: str | None, message: str
) -> None:
    file = tmp_path / "f.toml"
    if content is not None:
        file.write_text(content)
    assert main(["policy", act, str(file)]) == 2
    assert f"{file}: " in (shown := capsys.readouterr().err)
    assert message in shown
    assert main(["policy", act, str(file), "--json"]) == 2
    assert message in json.loads(capsys.readouterr().out)["error"]


def test_empty_policy_file_is_refused_as_at_the_start(
    tmp_path: Path, capsys: Run
) -> None:
    assert main(["policy", "check", write(tmp_path, "p.toml", "\n")]) == 2
    assert "p.toml: the file is empty" in capsys.readouterr().err
    assert main(["policy", "check", write(tmp_path, "p.toml", "# none")]) == 0


def test_cases_are_decided_as_the_gate_does(tmp_path: Path, capsys: Run) -> None:
    write(tmp_path, "policies.toml", GOOD)
    file = write(tmp_path, "cases.toml", CASES)
    assert main(["policy", "test", file]) == 0
    assert capsys.readouterr().out == "3 of 3 cases passed\n"


def test_case_that_fails_is_named_with_both_decisions(
    tmp_path: Path, capsys: Run
) -> None:
    write(tmp_path, "policies.toml", "[policies.a]\nrequired_scopes = ['w']")
    file = write(tmp_path, "cases.toml", CASES)
    assert main(["policy", "test", file]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "failed: a reader reads: expected allow, decided scope_insufficient",
        f"  {MEANINGS[DenyReason.SCOPE_INSUFFICIENT]}",
        "failed: cases[2]: expected rule_missing, decided scope_insufficient",
        f"  {MEANINGS[DenyReason.SCOPE_INSUFFICIENT]}",
        "1 of 3 cases passed",
    ]
    assert main(["policy", "test", file, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == 2
    assert found["cases"][0] == {
        "name": "a reader reads",
        "expected": "allow",
        "decided": "scope_insufficient",
        "rule": None,
    }


def test_case_that_fails_shows_the_rule_and_the_remedy(
    tmp_path: Path, capsys: Run
) -> None:
    hosts = '[[policies.a.rules]]\nhosts = ["b.test"]\nrequired_roles = ["r"]\n'
    write(tmp_path, "policies.toml", hosts)
    text = """
    policies = "policies.toml"
    [[cases]]
    name = "no host"
    policy = "a"
    token = {}
    expect = "allow"
    [[cases]]
    name = "no role"
    policy = "a"
    host = "b.test"
    token = {}
    expect = "allow"
    """
    file = write(tmp_path, "cases.toml", text)
    assert main(["policy", "test", file]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "failed: no host: expected allow, decided forwarded_missing"
    assert "a case `host`" in lines[1]
    assert lines[3] == "  matches rule 1: any method /** on b.test"
    assert main(["policy", "test", file, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["cases"][1]["rule"] == 1


def test_policy_file_and_cases_file_are_told_apart(tmp_path: Path, capsys: Run) -> None:
    write(tmp_path, "policies.toml", GOOD)
    file = write(tmp_path, "cases.toml", CASES)
    assert main(["policy", "check", file]) == 2
    assert "use it with `policy test`" in capsys.readouterr().err
    assert main(["policy", "test", str(tmp_path / "policies.toml")]) == 2
    assert "use it with `policy check`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('policies = "p.toml"', "cases: is missing"),
        ("[[cases]]\nexpect = 'allow'", "policies: is missing"),
        ("policies = 'p'\n[[cases]]", "cases[1].expect: must be"),
        ("policies = 'p'\n[[cases]]\nexpect = 'denied'", "cases[1].expect: must be"),
        (
            "policies = 'p'\n[[cases]]\nexpect = 'scope_insufficent'",
            "docs/metrics.md has all); the nearest is scope_insufficient",
        ),
        (
            "policies = 'p'\n[[cases]]\nexpect = 'allow'\nage = -1",
            "cases[1].age: must be",
        ),
        (
            "policies = 'p'\n[[cases]]\nexpect = 'allow'\nscope = 'x'",
            "cases[1].scope: there is no such field",
        ),
        ("policies = 'p'\n[[cases]]\nexpect = 'allow'", "p: is not there"),
        (
            "policies = 'p'\n[[cases]]\nexpect = 'allow'\n"
            "token = {big = 99999999999999999999}",
            "cases[1].token: cannot be written as JSON",
        ),
    ],
)
def test_cases_file_that_is_wrong_is_refused(
    tmp_path: Path, capsys: Run, text: str, message: str
) -> None:
    assert main(["policy", "test", write(tmp_path, "c.toml", text)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["none", "default?x"])
def test_case_of_a_policy_that_is_not_there_is_refused(
    tmp_path: Path, capsys: Run, name: str
) -> None:
    write(tmp_path, "p.toml", GOOD)
    text = f"policies = 'p.toml'\n[[cases]]\npolicy = '{name}'\nexpect = 'allow'"
    assert main(["policy", "test", write(tmp_path, "c.toml", text)]) == 2
    assert f"cases[1]: there is no policy '{name}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("age", "expected"),
    [(900, "allow"), (2_000, "token_too_old"), (3_700, "expired")],
)
def test_token_of_a_case_is_as_old_as_the_case_says(
    tmp_path: Path, age: int, expected: str
) -> None:
    write(tmp_path, "p.toml", "[policies.a]\nmax_age = 1800")
    text = "policies = 'p.toml'\n[[cases]]\npolicy = 'a'\ntoken = {}\n"
    text += f"age = {age}\nexpect = '{expected}'"
    assert main(["policy", "test", write(tmp_path, "c.toml", text)]) == 0


def test_open_rule_behind_closed_ones_is_warned_of() -> None:
    """Paths are compared with case: `/ADMIN` is another path than `/admin`."""
    text = """
    [[policies.a.rules]]
    path = "/admin/**"
    required_roles = ["admin"]
    [[policies.a.rules]]
    path = "/**"
    public = true
    """
    (warning,) = find_warnings(parse_policies(text, TOKEN_POLICY))
    assert warning.startswith("policies.a.rules[2]: opens every path")


def test_the_example_cases_of_the_document_pass(tmp_path: Path, capsys: Run) -> None:
    write(tmp_path, "policies.toml", policy_page.first_policies())
    write(tmp_path, "every-field.toml", policy_page.every_field())
    for name in ("policies.toml", "every-field.toml"):
        assert main(["policy", "check", str(tmp_path / name)]) == 0
    for number, cases in zip((4, 3), policy_page.cases(), strict=True):
        assert main(["policy", "test", write(tmp_path, "cases.toml", cases)]) == 0
        assert f"{number} of {number} cases passed" in capsys.readouterr().out


def test_the_examples_of_other_issuers_pass(tmp_path: Path, capsys: Run) -> None:
    issuers, policies, cases = policy_page.of_other_issuers()
    named = write(tmp_path, "issuers.toml", issuers)
    file = write(tmp_path, "policies.toml", policies)
    assert main(["policy", "check", file, "--issuers", named]) == 0
    assert main(["policy", "test", write(tmp_path, "cases.toml", cases)]) == 0
    assert "2 of 2 cases passed" in capsys.readouterr().out
