"""A real browser shows `/docs` and handles calls from pages of other origins."""

from __future__ import annotations

import functools
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.gateway_programs.registry import find_binary
from tests.support.api_server import PASSWORD, ApiServer
from tests.support.chromium import find_browser, visit
from tests.support.processes import ProcessFactory, free_port, is_listening

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

#: nginx as a gateway that takes a path prefix away and forwards the rest.
_NGINX = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{gateway};
        location /id/ {{ proxy_pass {issuer}/; }}
        location = /.well-known/oauth-authorization-server/id {{
            proxy_pass {issuer};
        }}
    }}
}}
"""
#: A page that tries calls as an application would, and leaves what it saw in itself.
_APPLICATION = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,"></head>
<body><pre id="seen"></pre><script>
const issuer = "ISSUER", seen = {};
async function attempt(name, path, options) {
  try {
    const answer = await fetch(issuer + path, options);
    const headers = Object.fromEntries(answer.headers);
    seen[name] = {status: answer.status, headers, body: await answer.text()};
  } catch (error) {
    seen[name] = {error: error.name};
  }
  return seen[name];
}
const json = {"Content-Type": "application/json"};
const post = (body) => ({method: "POST", headers: json, body: JSON.stringify(body)});
async function main() {
  const account = {username: "root", password: "PASSWORD"};
  const login = await attempt("login", "/auth/login", post(account));
  await attempt("wrong", "/auth/login", post({...account, password: "x".repeat(20)}));
  await attempt("large", "/auth/login", post({...account, more: "x".repeat(20000)}));
  await attempt("keys", "/.well-known/jwks.json", {});
  const token = login.body ? JSON.parse(login.body).access_token : "none";
  const bearer = {...json, Authorization: "Bearer " + token, "If-Match": '"old"'};
  await attempt("me", "/users/me", {headers: bearer});
  const boss = JSON.stringify({...account, username: "boss"});
  const change = {method: "PATCH", headers: bearer, body: boss};
  await attempt("change", "/users/me", change);
  await attempt("users", "/users", {headers: {Authorization: "Bearer " + token}});
  await attempt("feed", "/revocations", {headers: {Authorization: "Bearer " + token}});
  document.getElementById("seen").textContent = JSON.stringify(seen);
}
main();
</script></body></html>
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def factory(folder: Path) -> Iterator[ProcessFactory]:
    find_browser()
    made = ProcessFactory(folder)
    yield made
    made.stop_all()


@pytest.fixture
def page(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder that two sites on loopback serve, and their origins."""
    site = folder / "site"
    site.mkdir()
    handler = functools.partial(_Quiet, directory=str(site))
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield site, [f"http://127.0.0.1:{server.server_port}" for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()
    shutil.rmtree(site)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Write nothing."""


def start_behind_a_prefix(folder: Path, factory: ProcessFactory) -> tuple[str, str]:
    """Return the issuer's URL below a gateway's path, and the gateway's own."""
    nginx = find_binary("nginx")
    assert nginx is not None, "apt-get install nginx"
    port = free_port()
    gateway = f"http://127.0.0.1:{port}"
    home = folder / "gateway"
    home.mkdir()
    own = folder / "prefixed"
    own.mkdir()
    issuer = ApiServer.start(own, factory, ISSUER_URL=f"{gateway}/id")
    (home / "nginx.conf").write_text(_NGINX.format(gateway=port, issuer=issuer.url))
    factory.start(
        "nginx",
        (nginx, "-p", home, "-c", home / "nginx.conf"),
        cwd=home,
        ready=lambda: is_listening(port),
    )
    return f"{gateway}/id", gateway


def test_the_api_page_works_behind_a_path_prefix_and_loads_nothing_from_elsewhere(
    folder: Path, factory: ProcessFactory
) -> None:
    """R37: every request of a real browser goes to the gateway."""
    url, gateway = start_behind_a_prefix(folder, factory)
    document = httpx.get(f"{url}/openapi.json").json()
    login = document["paths"]["/auth/login"]["post"]
    # Opened at one operation: its form and examples are shown, too.
    fragment = f"#/{login['tags'][0]}/{login['operationId']}"
    seen = visit(f"{url}/docs{fragment}")
    assert seen.requested == {
        f"{url}/docs",
        f"{url}/docs/start.js",
        f"{url}/docs/swagger-ui-bundle.js",
        f"{url}/docs/swagger-ui.css",
        f"{url}/openapi.json",
    }
    refused = [line for line in seen.console if "Content Security Policy" in line]
    assert refused == []
    operations = sum(len(methods) for methods in document["paths"].values())
    assert len(re.findall(r'class="opblock-summary-path"', seen.dom)) == operations
    assert f'<option value="{url}">' in seen.dom
    assert 'class="opblock-body"' in seen.dom
    metadata = httpx.get(f"{gateway}/.well-known/oauth-authorization-server/id").json()
    assert httpx.get(metadata["jwks_uri"]).status_code == 200


def test_a_page_of_a_listed_origin_can_call_and_another_cannot(
    folder: Path, factory: ProcessFactory, page: tuple[Path, list[str]]
) -> None:
    """Preflights, exposed headers and errors as a browser handles them."""
    site, (listed, other) = page
    own = folder / "listed"
    own.mkdir()
    issuer = ApiServer.start(own, factory, ISSUER_CORS_ORIGINS=listed)
    text = _APPLICATION.replace("ISSUER", issuer.url).replace("PASSWORD", PASSWORD)
    (site / "app.html").write_text(text)
    seen = read_seen(f"{listed}/app.html")
    statuses = {name: answer.get("status") for name, answer in seen.items()}
    assert statuses == {
        "login": 200,
        "wrong": 401,
        "large": 413,
        "keys": 200,
        "me": 200,
        "change": 412,
        "users": None,
        "feed": None,
    }
    assert "www-authenticate" in seen["wrong"]["headers"]
    assert "etag" in seen["me"]["headers"]
    assert "x-correlation-id" in seen["change"]["headers"]
    refused = read_seen(f"{other}/app.html")
    assert {answer.get("error") for answer in refused.values()} == {"TypeError"}


def read_seen(url: str) -> dict[str, dict[str, Any]]:
    visited = visit(url)
    found = re.search(r'<pre id="seen">([^<]+)</pre>', visited.dom)
    assert found, (urlsplit(url).netloc, visited.console)
    text = found[1].replace("&quot;", '"').replace("&amp;", "&")
    return dict(json.loads(text))
