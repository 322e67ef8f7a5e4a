"""The site of the documentation: it is complete, its links lead somewhere, and it loads
nothing of another host.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.docs_site import decisions, quickstarts
from deploy.docs_site.build import SiteError, build
from deploy.docs_site.check import find_faults
from deploy.docs_site.indentation import widen_lists
from deploy.docs_site.pages import REST, ROOT, linked_files, read_groups

NAVIGATION = """
[[group]]
title = "Start"
pages = ["README.md"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    build(folder)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository with two pages."""
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (root / "docs" / "navigation.toml").write_text(NAVIGATION)
    (root / "README.md").write_text("# Start\n\n[more](docs/more.md#there)\n")
    (root / "docs" / "more.md").write_text("# More\n\n## There\n")
    return root


def test_every_page_is_in_the_navigation_of_the_site(site: Path) -> None:
    pages = [page for group in read_groups() for page in group.pages]
    docs = {str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")}
    assert docs <= set(pages)
    assert len(pages) == len(set(pages))
    start = (site / "index.html").read_text()
    for page in pages:
        path = page.removesuffix("README.md").removesuffix(".md")
        assert f'href="./{path}' in start, page


def test_a_page_that_loads_from_another_host_ends_the_build(
    small: Path, tmp_path: Path
) -> None:
    with (small / "README.md").open("a") as page:
        page.write('\n<img src="https://cdn.example/x.png" alt="">\n')
    with pytest.raises(SiteError, match=r"loads https://cdn\.example/x\.png"):
        build(tmp_path / "site", small)


def test_a_link_to_a_missing_page_ends_the_build(small: Path, tmp_path: Path) -> None:
    with (small / "README.md").open("a") as page:
        page.write("\n[gone](docs/gone.md)\n")
    with pytest.raises(SiteError, match=r"gone\.md, which is not there"):
        build(tmp_path / "site", small)


def test_a_link_to_a_missing_heading_ends_the_build(
    small: Path, tmp_path: Path
) -> None:
    (small / "docs" / "more.md").write_text("# More\n\n## Elsewhere\n")
    with pytest.raises(SiteError, match="anchor does not exist"):
        build(tmp_path / "site", small)


def test_a_page_in_no_group_comes_last(small: Path, tmp_path: Path) -> None:
    assert read_groups(small)[-1] == (REST, ("docs/more.md",))
    assert build(tmp_path / "site", small) == 2
    assert (tmp_path / "site" / "docs" / "more" / "index.html").is_file()


def test_a_page_that_the_navigation_names_must_be_there(
    small: Path, tmp_path: Path
) -> None:
    (small / "README.md").unlink()
    with pytest.raises(SiteError, match=r"README\.md is not there"):
        build(tmp_path / "site", small)


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<img src="https://cdn.example/x.png">', "another host"),
        ('<script src="//cdn.example/x.js"></script>', "another host"),
        ('<link rel="stylesheet" href="https://cdn.example/x.css">', "another host"),
        ('<img srcset="https://cdn.example/x.png 2x">', "another host"),
        ('<a href="gone/">x</a>', "leads nowhere"),
        ('<a href="../../etc">x</a>', "leads nowhere"),
        ('<a href="#gone">x</a>', "names no anchor"),
        ('<a href="https://example.com/">x</a>', ""),
        ('<link rel="canonical" href="https://example.com/">', ""),
        ('<h1 id="here"></h1><a href="#here">x</a>', ""),
    ],
)
def test_faults_of_a_page_are_found(page: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(page)
    found = find_faults(tmp_path)
    assert [text for text in found if fault in text] == found
    assert bool(found) == bool(fault)


def test_a_style_that_loads_from_another_host_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.css").write_text('@import "https://fonts.example/x.css";')
    assert find_faults(tmp_path) == ["x.css: loads a file of another host"]


def test_lists_are_as_the_sites_markdown_needs_them() -> None:
    page = "1. a\n\n   b\n2. c\n- d\n  e\n\nf\n```sh\n- g\n```\n"
    assert widen_lists(page) == (
        "1. a\n\n    b\n\n2. c\n\n<!-- -->\n\n- d\n    e\n\nf\n```sh\n- g\n```\n"
    )


def test_quickstarts_are_up_to_date() -> None:
    how = "run: python -m deploy.docs_site.quickstarts"
    for gateway in quickstarts.GATEWAYS:
        page = quickstarts.path_of(gateway).read_text()
        assert page == quickstarts.page_of(gateway), how


def test_the_list_of_decisions_is_up_to_date() -> None:
    how = "run: python -m deploy.docs_site.decisions"
    assert decisions.PAGE.read_text() == decisions.decisions_page(), how


def test_pictures_that_a_page_shows_are_on_the_site(site: Path) -> None:
    shown = {file for file in linked_files(ROOT / "README.md") if file.suffix == ".svg"}
    assert all((site / file.relative_to(ROOT)).is_file() for file in shown)
