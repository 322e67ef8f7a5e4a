"""`completion SHELL`: the scripts are the parsers' own, and the shells take them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.completions import PARSERS, write_script
from issuer.commands.main import main as issuer_main
from shared.commands.completion import SHELLS, script_path
from shared.distribution import console_command
from verifier.commands.main import main as verifier_main

MAINS = {"issuer": issuer_main, "verifier": verifier_main}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("program", PARSERS)
def test_the_script_is_that_of_the_parser(
    program: str, shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise run `python -m deploy.completions`."""
    assert MAINS[program](["completion", shell]) == 0
    assert capsys.readouterr().out == write_script(program, shell)


def complete(program: str, words: list[str], folder: Path) -> list[str]:
    """Return what a real bash offers for the last word; the function is the one that
    `complete` knows.
    """
    command = console_command(program)
    line = shlex.join([command, *words])
    script = (
        f"source {shlex.quote(str(script_path(program, 'bash')))}\n"
        f"cd {shlex.quote(str(folder))}\n"
        f"[[ $(complete -p {command}) =~ -F\\ ([a-z_]+) ]] || exit 3\n"
        f"COMP_WORDS=({line}) COMP_CWORD={len(words)}\n"
        "COMP_LINE=${COMP_WORDS[*]} COMP_POINT=${#COMP_LINE}\n"
        '"${BASH_REMATCH[1]}" "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" '
        '"${COMP_WORDS[COMP_CWORD-1]}"\n'
        "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(filter(None, done.stdout.split("\n")))


@pytest.mark.parametrize(
    ("program", "words", "offered"),
    [
        ("verifier", ["po"], ["policy"]),
        ("verifier", ["policy", "ex"], ["explain"]),
        ("verifier", ["check", "--of"], ["--offline"]),
        ("verifier", ["doctor", "--kind", "ca"], ["caddy"]),
        ("verifier", ["policy", "check", "po"], ["policies.toml"]),
        ("verifier", ["issuers", "check", "po"], ["policies.toml"]),
        ("verifier", ["--env-file", "ga"], ["gatehouse.env"]),
        ("verifier", ["configs", ""], ["folder"]),
        ("issuer", ["rev"], ["revoke", "revoke-many"]),
        ("issuer", ["audit", ""], ["head", "prune", "verify"]),
        ("issuer", ["completion", "z"], ["zsh"]),
        ("issuer", ["settings", "--env-file", "ga"], ["gatehouse.env"]),
        ("issuer", ["import-users", "--ref"], ["--refused"]),
        ("issuer", ["import-users", "po"], ["policies.toml"]),
        ("issuer", ["revoke", "--us"], ["--user"]),
    ],
)
def test_bash_completes(
    program: str, words: list[str], offered: list[str], tmp_path: Path
) -> None:
    """Commands, options, choices, and files where a file is named."""
    for name in ("policies.toml", "gatehouse.env"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert complete(program, words, tmp_path) == offered


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("program", PARSERS)
def test_the_shell_can_read_its_script(program: str, shell: str) -> None:
    """zsh and fish where they are installed; in CI they are."""
    if not shutil.which(shell) and os.environ.get("CI") != "true":
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [shell, "-n", script_path(program, shell)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
