"""Where the demo's programs listen."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo.addresses import choose_socket


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
