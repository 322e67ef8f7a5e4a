"""`make docs`: builds the site of the documentation, and refuses broken links.

The pages keep their places of the repository, so that a relative link means the same on
the site and on a code host. Files that a page links to are copied beside them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from deploy.docs_site.check import find_faults
from deploy.docs_site.indentation import widen_lists
from deploy.docs_site.pages import ROOT, Group, linked_files, read_groups

CONFIG = Path(__file__).with_name("zensical.toml")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class SiteError(Exception):
    """The site cannot be built; the message names page and link."""


def main(arguments: list[str] | None = None) -> int:
    """Build the site; return 0, or 1 after printing what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the site; it is replaced")
    folder = parser.parse_args(arguments).folder.resolve()
    try:
        pages = build(folder)
    except SiteError as error:
        print(f"make docs: {error}", file=sys.stderr)
        return 1
    print(f"{pages} pages in {folder}; open {folder / 'index.html'}")
    return 0


def build(folder: Path, root: Path = ROOT) -> int:
    """Build the site into a folder and check it; return the number of pages.

    Args:
        folder: absolute; what is there is removed.
        root: of the repository.

    Raises:
        SiteError: a link leads nowhere, a page is missing, or a page loads something
            of another host.
    """
    try:
        groups = read_groups(root)
    except FileNotFoundError as error:
        raise SiteError(str(error)) from None
    source = folder.with_name(f"{folder.name}-source")
    for place in (folder, source):
        shutil.rmtree(place, ignore_errors=True)
    stage([page for group in groups for page in group.pages], source / "pages", root)
    config = source / "zensical.toml"
    config.write_text(configuration(groups))
    command = (sys.executable, "-m", "zensical", "build", "--strict", "--clean")
    done = subprocess.run(
        [*command, "--config-file", str(config)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        shown = _COLOUR.sub("", done.stdout + done.stderr).partition("Traceback")[0]
        raise SiteError(f"the pages are refused:\n{shown}")
    # Zensical writes below its configuration only.
    (source / "site").replace(folder)
    for file in (source / "pages").rglob(".*"):
        # Zensical leaves files out whose name begins with a dot.
        _copy(file, folder / file.relative_to(source / "pages"))
    faults = find_faults(folder)
    if faults:
        raise SiteError("\n".join(["the site has faults:", *faults]))
    return sum(len(group.pages) for group in groups)


def stage(pages: Iterable[str], source: Path, root: Path) -> None:
    """Copy the pages, and the files that they link to, to the same places in `source`.

    Raises:
        SiteError: a link leads to no file, out of the repository, to a page that is not
            on the site, or to a folder without a README.md.
    """
    pages = set(pages)
    for name in pages:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(widen_lists((root / name).read_text()))
        for file in linked_files(root / name):
            if not file.is_relative_to(root) or not file.exists():
                raise SiteError(f"{name}: a link to {file}, which is not there")
            linked = file / "README.md" if file.is_dir() else file
            path = str(linked.relative_to(root))
            if linked.suffix == ".md" and path not in pages:
                raise SiteError(f"{name}: a link to {path}, which is not on the site")
            if linked.suffix != ".md":
                _copy(linked, source / path)


def configuration(groups: Iterable[Group]) -> str:
    """Return the configuration of Zensical with the navigation."""
    # The strings of JSON are strings of TOML, too.
    entries = ", ".join(
        f"{{ {json.dumps(group.title)} = {json.dumps(list(group.pages))} }}"
        for group in groups
    )
    settings = 'docs_dir = "pages"\nsite_dir = "site"\n'
    return CONFIG.read_text().replace(
        "[project]\n", f"[project]\n{settings}nav = [{entries}]\n", 1
    )


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


if __name__ == "__main__":
    sys.exit(main())
