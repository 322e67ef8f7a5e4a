"""A sealed box opens only as what it was made for; otherwise it is a 503 with a
reason.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from issuer.errors import UnavailableError
from issuer.settings.key_ring import KeyRing
from issuer.storage.sealed_boxes import NONCE_BYTES, BoxLabel, seal, unseal

RING = KeyRing(k1=b"\x01" * 32, k2=b"\x02" * 32)
LABEL = BoxLabel(b"purpose", "owner", "a secret", "or make another")
BOX = seal(b"secret", LABEL, nonce=b"n" * NONCE_BYTES, key_ring=RING)


def open_box(stored: bytes = BOX, label: BoxLabel = LABEL, kek_id: str = "k1") -> bytes:
    return unseal(stored, label, kek_id=kek_id, key_ring=RING)


def test_a_box_opens_with_its_label_and_key() -> None:
    assert open_box() == b"secret"


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(b"\x02" + BOX[1:], id="another version"),
        pytest.param(b"", id="empty"),
        pytest.param(BOX[:1], id="no nonce"),
        pytest.param(BOX[:NONCE_BYTES], id="a short nonce"),
    ],
)
def test_an_unknown_form_is_named_and_not_decrypted(stored: bytes) -> None:
    with pytest.raises(UnavailableError) as caught:
        open_box(stored)
    assert caught.value.detail == "a secret: stored in an unknown form"


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(BOX[: 1 + NONCE_BYTES], id="no ciphertext"),
        pytest.param(BOX[:-1], id="cut off"),
        pytest.param(BOX + b"\0", id="too long"),
        pytest.param(BOX[:-1] + bytes([BOX[-1] ^ 1]), id="another tag"),
        pytest.param(BOX[:1] + b"m" + BOX[2:], id="another nonce"),
    ],
)
def test_a_changed_box_does_not_open(stored: bytes) -> None:
    with pytest.raises(UnavailableError) as caught:
        open_box(stored)
    assert caught.value.detail == "a secret: does not open under key k1"


@pytest.mark.parametrize(
    "label",
    [replace(LABEL, purpose=b"other"), replace(LABEL, owner="another")],
    ids=["another purpose", "another row"],
)
def test_a_box_that_was_moved_does_not_open(label: BoxLabel) -> None:
    with pytest.raises(UnavailableError) as caught:
        open_box(label=label)
    assert caught.value.detail == "a secret: does not open under key k1"


def test_a_missing_key_is_named_with_the_advice() -> None:
    with pytest.raises(UnavailableError) as caught:
        open_box(kek_id="k9")
    assert "lacks id k9" in str(caught.value.detail)
    assert "or make another" in str(caught.value.detail)
