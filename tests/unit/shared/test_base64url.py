"""One spelling of the same bytes, and no other (RFC 7515, section 2; R17, R24)."""

from __future__ import annotations

import socket
from collections.abc import Iterable

import pytest
from pytest_socket import SocketBlockedError

from shared.jose import base64url


def test_unit_tests_cannot_open_network_sockets() -> None:
    # pytest-socket warns first, and warnings are errors here.
    with pytest.raises((SocketBlockedError, UserWarning), match=r"socket\.socket"):
        socket.socket(socket.AF_INET)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"f", b"Zg", id="one byte"),
        pytest.param(b"fo", b"Zm8", id="two bytes"),
        pytest.param(b"foo", b"Zm9v", id="three bytes"),
        pytest.param(b"foobar", b"Zm9vYmFy", id="six bytes"),
        pytest.param(b"\xfb\xff\xfe", b"-__-", id="both foreign characters"),
        pytest.param(
            bytes([3, 236, 255, 224, 193]), b"A-z_4ME", id="RFC 7515 appendix C"
        ),
    ],
)
def test_bytes_and_their_text_belong_together(data: bytes, text: bytes) -> None:
    assert base64url.encode(data) == text.decode("ascii")
    assert base64url.decode(text) == data


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"Zg==", id="padding"),
        pytest.param(b"Zm8=", id="padding of one"),
        pytest.param(b"Zm9v=", id="padding too much"),
        pytest.param(b"Z", id="impossible length"),
        pytest.param(b"Zm9vY", id="impossible length behind a group"),
        pytest.param(b"Zh", id="loose bits behind one byte"),
        pytest.param(b"Zm9", id="loose bits behind two bytes"),
        pytest.param(b"+//+", id="alphabet of plain base64"),
        pytest.param(b"-_/-", id="both alphabets"),
        pytest.param(b"Zm 9v", id="space"),
        pytest.param(b"Zm9v\n", id="line break"),
        pytest.param(b"\r\nZm9v", id="line break in front"),
        pytest.param(b"Zm9v\x00", id="NUL"),
        pytest.param(b"Zm.9v", id="dot"),
        pytest.param("Zm9\uff56".encode(), id="full-width letter"),
        pytest.param(b"\xff\xff\xff\xff", id="bytes past ASCII"),
        pytest.param(b"====", id="padding alone"),
    ],
)
def test_every_other_spelling_is_refused(text: bytes) -> None:
    with pytest.raises(base64url.Base64urlError):
        base64url.decode(text)


def decoded(texts: Iterable[bytes]) -> list[bytes]:
    """Return the bytes that those texts encode, where they encode any."""
    found = []
    for text in texts:
        try:
            found.append(base64url.decode(text))
        except base64url.Base64urlError:
            continue
    return found


def test_only_short_texts_with_empty_loose_bits_decode() -> None:
    """Each byte, and each last byte behind others, has one text among them all."""
    every = [bytes([byte]) for byte in range(256)]
    assert decoded(every) == []
    two = decoded(a + b for a in every for b in every)
    assert sorted(two) == every
    three = decoded(b"Zm" + b for b in every)
    assert len(three) == len(set(three)) == 16
    four = decoded(b"Zm9" + b for b in every)
    assert len(four) == len(set(four)) == 64
