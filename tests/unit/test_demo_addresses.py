"""Where the demo's programs listen."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo.addresses import choose_socket, is_native_folder


def test_the_socket_lies_in_the_demos_folder() -> None:
    assert choose_socket(Path("/srv/shop/var")) == "/srv/shop/var/verifier.sock"


@pytest.mark.parametrize(
    "folder",
    ["/" + "d" * 93, "/with space", "/semi;colon", "/a$variable", "/quo'te", "/é"],
    ids=["long", "space", "semicolon", "dollar", "quote", "not ASCII"],
)
def test_a_path_that_a_config_or_the_system_may_misread_is_not_used(
    folder: str,
) -> None:
    """The demo then takes the port."""
    assert choose_socket(Path(folder)) == ""


def test_a_path_of_107_bytes_is_used() -> None:
    assert len(choose_socket(Path("/" + "d" * 92))) == 107


@pytest.mark.parametrize(
    "folder",
    ["/" + "d" * 81, "/with space", "/a$variable", "relative", "/é"],
    ids=["long", "space", "dollar", "relative", "not ASCII"],
)
def test_folder_is_refused_where_a_native_gateway_cannot_have_its_sockets(
    folder: str,
) -> None:
    assert not is_native_folder(folder)


def test_longest_socket_of_a_native_gateway_fits_into_the_longest_folder() -> None:
    """HAProxy makes it under another name first (sock_unix_bind_receiver)."""
    folder = "/" + "d" * 80
    assert is_native_folder(folder)
    assert len(f"{folder}/master.sock.4194304.tmp") <= 107
