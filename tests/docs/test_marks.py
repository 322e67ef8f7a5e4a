"""No command of README.md and docs/*.md is left out: each is typed, or says why not."""

from __future__ import annotations

import re
import shlex

import pytest

from issuer.commands.main import main as issuer_main
from tests.support.page_commands import (
    NOT_RUN,
    ROOT,
    Block,
    inline_commands,
    pages,
    read_blocks,
    untagged_commands,
)
from verifier.commands.main import main as verifier_main

#: Why no test types a block. Another reason needs a line here, and a reader who agrees.
REASONS = frozenset(
    {
        f"{NOT_RUN}needs a container engine",
        f"{NOT_RUN}needs systemd on a real host",
        f"{NOT_RUN}installs packages, as .ci/run does",
        f"{NOT_RUN}takes minutes; it is this suite, or a run that is measured",
    }
)
#: Programs in sentences that are not ours. None is run: they are typed in a block
#: elsewhere, or need what the reasons above name.
NOT_OURS = frozenset(
    [
        "amtool",
        "apt-get",
        "cat",
        "docker",
        "install",
        "journalctl",
        "pg_restore",
        "pip",
        "pytest",
        "sh",
        "sudo",
        "systemctl",
        "systemd-run",
        "cp",
        "echo",
        "mkdir",
        "mv",
        "psql",
        "umask",
    ]
)
BLOCKS = [block for page in pages() for block in read_blocks(page)]
PROGRAMS = {
    "gatehouse-issuer": issuer_main,
    "python -m issuer": issuer_main,
    "gatehouse-verifier": verifier_main,
    "python -m verifier": verifier_main,
}
OURS = sorted(
    {
        (program, command.removeprefix(program).strip())
        for page in pages()
        for command in inline_commands(page)
        for program in PROGRAMS
        if command.startswith(f"{program} ")
    }
)


def where(block: Block) -> str:
    return f"{block.page}:{block.line}"


def test_the_pages_have_commands() -> None:
    assert len(BLOCKS) > 60
    assert len(OURS) > 15


@pytest.mark.parametrize("block", BLOCKS, ids=where)
def test_a_marked_block_names_a_test_or_a_reason(block: Block) -> None:
    if not block.mark or block.mark in REASONS:
        return
    assert block.tests, f"{block.mark!r} names no test, and is no reason of REASONS"
    for test in block.tests:
        source = (ROOT / test).read_text()
        named = block.page in source or "quickstart" in block.page
        assert named or block.page == "README.md", f"{test} does not read {block.page}"


def test_few_blocks_are_typed_by_no_test() -> None:
    """A page that needs many exceptions says what no reader can be sure of."""
    exempt = [block for block in BLOCKS if block.is_exempt]
    assert len(exempt) * 5 < len(BLOCKS), [*map(where, exempt)]


@pytest.mark.parametrize("page", pages())
def test_commands_are_in_blocks_of_shell(page: str) -> None:
    """In a block without a language no test would see them."""
    assert untagged_commands(page) == []


@pytest.mark.parametrize(("program", "words"), OURS, ids=map(" ".join, OURS))
def test_a_command_in_a_sentence_is_one_of_ours(
    program: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = shlex.split(words)
    acts = []
    for word in typed:
        if not re.fullmatch("[a-z][a-z-]*", word):
            break
        acts.append(word)
    with pytest.raises(SystemExit) as ended:
        PROGRAMS[program]([*acts, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for word in typed:
        if word.startswith("--"):
            assert word in shown, f"{program} {words}: there is no {word}"


def test_a_target_of_make_in_a_sentence_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in pages():
        for command in inline_commands(page):
            if command.startswith("make "):
                target = command.split()[1]
                assert re.search(rf"^{target}:", makefile, re.M), f"{page}: {command}"


def test_other_programs_in_sentences_are_known() -> None:
    ours = ("make ", "curl ", "git ", *PROGRAMS)
    unknown = {
        (page, command)
        for page in pages()
        for command in inline_commands(page)
        if not command.startswith(ours) and command.split()[0] not in NOT_OURS
    }
    known = {command for _, command in unknown if is_a_module(command)}
    assert {pair for pair in unknown if pair[1] not in known} == set()


def is_a_module(command: str) -> bool:
    """Whether it runs one of our files or modules, which is there."""
    module = re.match(r"python3? -m (deploy|loadtests)([\w.]*)", command)
    if module is None:
        return command.startswith("python -m uvicorn verifier.doctor.echo:app")
    path = ROOT / (module[1] + module[2]).replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()
