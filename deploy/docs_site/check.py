"""Reads a built site: links that lead nowhere, and files of other hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Attributes whose URL a browser loads by itself, by element; people follow `a`.
_LOADS = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
#: A link that only names an address, and loads nothing.
_NAMES_ONLY = frozenset({"canonical", "alternate", "next", "prev", "license"})
_LOADED_BY_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?\s*(?:https?:)?//", re.I)


class _Page(HTMLParser):
    """What one page loads, links to, and offers as targets."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the attributes of one element."""
        values = {name: value or "" for name, value in attrs}
        if name := values.get("id"):
            self.anchors.add(name)
        if tag == "a" and (href := values.get("href")):
            self.links.append(href)
        if tag == "link" and values.get("rel", "") in _NAMES_ONLY:
            return
        for name in _LOADS.get(tag, ()):
            self.loads += [
                part.split()[0]
                for part in values.get(name, "").split(",")
                if part.split()
            ]


def find_faults(site: Path) -> list[str]:
    """Return what is wrong with a built site, one line each; empty if nothing is."""
    pages = {path: _read(path) for path in sorted(site.rglob("*.html"))}
    faults: list[str] = []
    for path, page in pages.items():
        where = path.relative_to(site)
        faults += [
            f"{where}: loads {url} of another host"
            for url in page.loads
            if _is_foreign(url)
        ]
        if path.name == "404.html":
            # It is shown at any address, so its links begin at the site's root.
            continue
        faults += [f"{where}: {fault}" for fault in _broken(path, page, pages, site)]
    faults += [
        f"{style.relative_to(site)}: loads a file of another host"
        for style in sorted(site.rglob("*.css"))
        if _LOADED_BY_STYLE.search(style.read_text())
    ]
    return faults


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text())
    return page


def _is_foreign(url: str) -> bool:
    return bool(urlsplit(url).netloc)


def _broken(
    path: Path, page: _Page, pages: dict[Path, _Page], site: Path
) -> Iterator[str]:
    for url in [*page.links, *page.loads]:
        parts = urlsplit(url)
        if parts.scheme or parts.netloc:
            continue
        name = unquote(parts.path)
        target = (path.parent / name).resolve() if name else path
        if target.is_dir():
            target /= "index.html"
        if not target.is_relative_to(site) or not target.exists():
            yield f"{url} leads nowhere"
        elif (
            parts.fragment
            and target in pages
            and unquote(parts.fragment) not in pages[target].anchors
            and not parts.fragment.startswith("__")
        ):
            yield f"{url} names no anchor"
