"""The pages for developers name files, tests, layers and sections that exist."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("design.md", "where-to-change-what.md")
DESIGN = ROOT / "docs" / "design.md"
#: Quoted text that begins with one of these is a path from the root.
_TOP = re.compile(
    r"(?:shared|issuer|verifier|deploy|loadtests|tests|docs|requirements|\.ci)/"
    r"|[\w.-]+\.(?:md|toml|example)$"
)
#: A citation may be wrapped, also within a comment.
_CITATION = re.compile(r'docs/design\.md,\s+(?:#:? )?"([^"]+)"')
#: They mean the papers beside the repository.
_PAPERS = (
    "tests/conformance/",
    "tests/integration/test_vectors_required.py",
    "tests/unit/test_developer_pages.py",
)


def paths_in(text: str) -> set[str]:
    """Return the paths that are quoted with backticks outside of code blocks."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {word for word in re.findall(r"`([^`\n]+)`", prose) if _TOP.match(word)}


def headings_of(page: Path) -> set[str]:
    return set(re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE))


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading of plain words."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [ROOT / name for name in listed if name.endswith((".py", ".md"))]


def read_sources() -> dict[str, str]:
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for path in sources()
        if path.is_file()
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_named_path_exists(page: str) -> None:
    named = paths_in((ROOT / "docs" / page).read_text())
    assert len(named) > 20
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_heading(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text)
    assert links
    for file, anchor in links:
        target = ROOT / "docs" / (file or page)
        assert target.exists(), file
        assert not anchor or anchor in map(anchor_of, headings_of(target)), anchor


@pytest.mark.parametrize("program", ["verifier", "issuer", "shared.jose"])
def test_the_layers_are_those_that_are_checked(program: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (
        contract["layers"]
        for contract in contracts
        if contract.get("containers") == [program]
    )
    blocks = re.findall(r"^```text\n(.*?)^```", DESIGN.read_text(), re.M | re.S)
    assert layers in [block.splitlines() for block in blocks]


def test_every_package_has_a_row() -> None:
    text = DESIGN.read_text()
    packages = [
        f"{folder.relative_to(ROOT)}/"
        for program in ("issuer", "verifier")
        for folder in (ROOT / program).iterdir()
        if (folder / "__init__.py").is_file()
    ]
    assert len(packages) > 20
    assert [package for package in packages if f"`{package}`" not in text] == []


def test_every_section_that_is_cited_exists() -> None:
    cited = {
        (name, section)
        for name, text in read_sources().items()
        for section in _CITATION.findall(text)
    }
    assert len(cited) > 5
    headings = headings_of(DESIGN)
    assert [pair for pair in sorted(cited) if pair[1] not in headings] == []


def test_the_design_is_cited_where_it_is() -> None:
    """A file that is not in the repository cannot be looked up."""
    elsewhere = [
        name
        for name, text in read_sources().items()
        if "DESIGN.md" in text and not name.startswith(_PAPERS)
    ]
    assert elsewhere == []


def test_a_missing_path_is_found() -> None:
    text = "`issuer/nothing.py`, `GET /keys`\n```text\n`docs/x.md`\n```\n"
    assert paths_in(text) == {"issuer/nothing.py"}
