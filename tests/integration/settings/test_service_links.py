"""Environment that platforms inject is no setting; a misspelt setting is refused
(R56).
"""

from __future__ import annotations

import pytest

from tests.support.programs import HUSH, Desk


def service_links(service: str) -> dict[str, str]:
    """Return the variables that Kubernetes sets for a Service of two ports."""
    return {
        f"{service}SERVICE_HOST": "10.96.0.12",
        f"{service}SERVICE_PORT": "8000",
        f"{service}SERVICE_PORT_HTTP": "8000",
        f"{service}SERVICE_PORT_ADMIN_HTTP": "8100",
        f"{service}PORT": "tcp://10.96.0.12:8000",
        f"{service}PORT_8000_TCP": "tcp://10.96.0.12:8000",
        f"{service}PORT_8000_TCP_PROTO": "tcp",
        f"{service}PORT_8000_TCP_PORT": "8000",
        f"{service}PORT_8000_TCP_ADDR": "10.96.0.12",
        f"{service}PORT_8100_UDP": "udp://[fd00::12]:8100",
        f"{service}PORT_8100_UDP_PROTO": "udp",
        f"{service}PORT_8100_UDP_PORT": "8100",
        f"{service}PORT_8100_UDP_ADDR": "fd00::12",
    }


@pytest.mark.parametrize("suffix", ["", "FOO_", "V2_ADMIN_"])
def test_r56_service_links_are_no_settings(desk: Desk, suffix: str) -> None:
    """authelia 2253: a Service named like the program kept it from starting."""
    links = service_links(desk.program.prefix + suffix)
    shown = desk.show(desk.program.env() | links)
    assert (shown.status, shown.err) == (0, "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "8000"),
        ("PORT", "tcp://10.96.0.12"),
        ("PORT", "http://10.96.0.12:8000"),
        ("SERVICE_HOST", "issuer.test"),
        ("SERVICE_PORT", "tcp"),
        ("PORT_8000_TCP_PROTO", "udp"),
        ("PORT_8000_TCP_PORT", "9000"),
        ("PORT_8000_TCP", "udp://10.96.0.12:8000"),
        ("PORT_8000_XYZ", "tcp://10.96.0.12:8000"),
        ("PORT_8000_TCP_HOST", "10.96.0.12"),
        ("SERVICE_PORTS", "8000"),
    ],
)
def test_r56_nearly_a_service_link_is_refused(desk: Desk, name: str, text: str) -> None:
    line = desk.refusal(desk.program.env(**{name: text}))
    assert line.startswith(f"{desk.program.prefix}{name}: there is no such setting")


def test_r56_a_service_link_in_the_file_is_refused(desk: Desk) -> None:
    """Kubernetes writes into no file: somebody meant that line."""
    desk.write(f"{desk.program.prefix}PORT=tcp://10.96.0.12:8000\n")
    assert "PORT: there is no such setting" in desk.refusal(desk.program.env())


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [
        ("FEED_TOKN", "FEED_TOKEN"),
        ("AUDIANCE", "AUDIENCE"),
        ("WORKER", "WORKERS"),
        ("ADMINBIND", "ADMIN_BIND"),
        ("FEED_TOKEN_FIL", "FEED_TOKEN_FILE"),
        ("LOGLEVEL", "LOG_LEVEL"),
    ],
)
def test_r56_a_misspelt_setting_is_refused_with_the_nearest(
    desk: Desk, misspelt: str, nearest: str
) -> None:
    prefix = desk.program.prefix
    line = desk.refusal(desk.program.env(**{misspelt: HUSH}))
    assert line == (
        f"{prefix}{misspelt}: there is no such setting; did you mean "
        f"{prefix}{nearest}? (.env.example has them all)"
    )


def test_r56_a_setting_like_no_other_is_refused_too(desk: Desk) -> None:
    line = desk.refusal(desk.program.env(ZZZZ=HUSH))
    assert line == (
        f"{desk.program.prefix}ZZZZ: there is no such setting "
        "(.env.example has them all); remove it"
    )
