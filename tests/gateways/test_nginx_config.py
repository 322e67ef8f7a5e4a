"""nginx's two files protect alike; no `include` makes sure of that."""

from __future__ import annotations

import re

import pytest

from deploy.gateway_programs.program import CONFIGS

FOLDER = CONFIGS / "nginx"
#: Of HTTP/1.1 alone.
ONLY_HTTP = {"Connection", "Upgrade", "HTTP2-Settings"}


def locations(config: str) -> dict[str, str]:
    """Return the body of each location by its name; none stands in another."""
    text = (FOLDER / config).read_text()
    found = re.findall(r"^    location (.+?) \{\n(.*?)^    \}", text, re.M | re.S)
    return dict(found)


def headers_set(location: str) -> dict[str, str]:
    found = re.findall(r"^ +(?:proxy|grpc)_set_header (\S+) +(.+);$", location, re.M)
    assert len({name.lower() for name, _ in found}) == len(found)
    return dict(found)


def test_both_files_set_the_same_headers() -> None:
    """R11: an application behind grpc_pass trusts the same names."""
    http = headers_set(locations("gatehouse.conf")["/"])
    grpc = headers_set(locations("gatehouse_grpc.conf")["/"])
    assert len(grpc) > 40
    assert grpc == {n: v for n, v in http.items() if n not in ONLY_HTTP}


@pytest.mark.parametrize(
    "location", ["= /_gatehouse", "@gatehouse_forbidden", "@gatehouse_unavailable"]
)
def test_both_files_check_and_refuse_alike(location: str) -> None:
    first = locations("gatehouse.conf")[location]
    assert first
    assert first == locations("gatehouse_grpc.conf")[location]
