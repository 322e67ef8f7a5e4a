"""The page at `/docs` loads nothing from elsewhere, and can be switched off."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer

URL = "https://host.example:8443/id"


@pytest.fixture
async def issuer(sqlite_url: str) -> AsyncIterator[IssuerHarness]:
    async with running_issuer(make_settings(sqlite_url)) as harness:
        yield harness


class Page(HTMLParser):
    """The parts of a page that a browser would load and run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self._is_in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_in_script = tag in {"script", "style"}
        for name, value in attrs:
            if name in {"src", "href", "data", "action", "poster", "srcset"}:
                self.addresses.append(str(value))
            if name.startswith("on") or name == "style":
                self.inline.append(f"{name}={value}")

    def handle_endtag(self, tag: str) -> None:
        self._is_in_script = False

    def handle_data(self, data: str) -> None:
        if self._is_in_script and data.strip():
            self.inline.append(data)


async def test_every_address_in_the_page_and_its_files_is_local(
    issuer: IssuerHarness,
) -> None:
    """Relative to the page, so also behind a path prefix."""
    answer = await issuer.client.get("/docs")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    assert page.inline == []
    assert len(page.addresses) == 4
    for address in page.addresses:
        assert re.fullmatch(r"docs/[a-z.-]+", address)
        target = urljoin("https://host.example/id/docs", address)
        path = target.removeprefix("https://host.example/id")
        asset = await issuer.client.get(path)
        assert asset.status_code == 200, address
        assert asset.headers["X-Content-Type-Options"] == "nosniff"
    css = (await issuer.client.get("/docs/swagger-ui.css")).text
    assert {u.strip("\"'")[:5] for u in re.findall(r"url\(([^)]{6})", css)} == {"data:"}
    assert "@import" not in css
    start = (await issuer.client.get("/docs/start.js")).text
    assert 'url: "openapi.json"' in start
    assert "validatorUrl: null" in start
    assert "://" not in start


async def test_the_policy_lets_the_page_load_from_here_alone(sqlite_url: str) -> None:
    """It calls the issuer's own URL, which may have another origin than the page."""
    async with running_issuer(make_settings(sqlite_url, url=URL)) as issuer:
        issuer.client.base_url = "https://host.example"
        for path in ("/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js"):
            answer = await issuer.client.get(path)
            policy = dict(
                part.split(" ", 1)
                for part in answer.headers["Content-Security-Policy"].split("; ")
            )
            assert policy == {
                "default-src": "'none'",
                "script-src": "'self'",
                "style-src": "'self'",
                "img-src": "'self' data:",
                "connect-src": "'self' https://host.example:8443",
                "base-uri": "'none'",
                "form-action": "'none'",
                "frame-ancestors": "'none'",
            }
            assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_a_browser_caches_the_files_and_revalidates_them(
    issuer: IssuerHarness,
) -> None:
    first = await issuer.client.get("/docs/swagger-ui-bundle.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await issuer.client.get(
        "/docs/swagger-ui-bundle.js", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/docs/",
        "/docs/redoc.standalone.js",
        "/docs/../fastapi_offline/core.py",
        "/docs/..%2f__init__.py",
        "/docs/%2e%2e/core.py",
        "/docs//etc/passwd",
        "/docs/%00",
        "/docs/start.js/",
        "/docs/" + "x" * 5_000,
        "/redoc",
    ],
    ids=lambda path: path[:30],
)
async def test_nothing_else_of_the_package_or_the_disk_is_served(
    issuer: IssuerHarness, path: str
) -> None:
    answer = await issuer.client.get(path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_other_methods_are_refused(issuer: IssuerHarness) -> None:
    answer = await issuer.client.post("/docs")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert (await issuer.client.post("/docs/swagger-ui.css")).status_code == 405


async def test_the_setting_switches_it_off(sqlite_url: str) -> None:
    """The document stays: clients are made from it."""
    async with running_issuer(make_settings(sqlite_url, docs=False)) as issuer:
        for path in ("/docs", "/docs/start.js", "/docs/swagger-ui.css"):
            assert (await issuer.client.get(path)).status_code == 404
        assert (await issuer.client.get("/openapi.json")).status_code == 200
