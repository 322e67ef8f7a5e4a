"""Apache's two files protect alike; no `Include` makes sure of that."""

from __future__ import annotations

from deploy.gateway_programs.program import CONFIGS

FOLDER = CONFIGS / "apache"


def directives(config: str) -> list[str]:
    """Return the lines of the virtual host up to the routes, without comments."""
    text = (FOLDER / config).read_text()
    _, _, host = text.partition("<VirtualHost")
    lines = [line.strip() for line in host.splitlines()[1:]]
    kept = [line for line in lines if line and not line.startswith("#")]
    return kept[: kept.index("ProxyTimeout 3600") + 1]


def test_both_files_check_alike() -> None:
    """R2: the check, the limits and what the application learns of the way."""
    http, grpc = directives("gatehouse.conf"), directives("gatehouse_grpc.conf")
    assert "LuaHookAccessChecker gatehouse.lua gatehouse" in http
    assert "Require env gatehouse" in http
    assert grpc == [http[0], "Protocols h2c", *http[1:]]
