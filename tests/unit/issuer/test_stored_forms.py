"""Stored and sent forms with fixed values: rows and tokens of earlier versions still
count.
"""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from issuer.accounts import user_list
from issuer.accounts.user_list import UserFilter, UserOrder
from issuer.audit.reading import NEWEST_FIRST
from issuer.clients.client_rows import OLDEST_FIRST
from issuer.clients.client_secrets import make_secret, verify_secret
from issuer.credentials import one_time_tokens
from issuer.credentials.one_time_tokens import LOGIN_CHALLENGE, PASSWORD_RESET
from issuer.credentials.secret_encryption import decrypt_secret, encrypt_secret
from issuer.errors import UnavailableError
from issuer.keys.encryption import decrypt_private_key, encrypt_private_key
from issuer.login.device_tokens import DeviceTokens
from issuer.personal_keys import personal_key_form
from issuer.sessions import refresh
from issuer.settings.key_ring import KeyRing
from issuer.storage.advisory_locks import AdvisoryLock
from issuer.storage.tables.audit import AuditEvent
from issuer.storage.tables.clients import Client
from issuer.storage.tables.users import User
from issuer.tokens.opaque_tokens import digest_token
from shared.jose import base64url

RANDOM = bytes(range(32))
KEY = b"\x09" * 32
RING = KeyRing(k1=KEY)
USER = "3f0f0c5e-6f0e-4f3b-9a57-0f5d8e0f7c11"
AT = 1_795_353_633

ONE_TIME = [
    (
        PASSWORD_RESET,
        "ghp_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8wL1M7",
        "08fae8fcfa8da4bf2e97eaf15eb37832563219b3914c1ae93c6fdf695dfa1b4e",
    ),
    (
        LOGIN_CHALLENGE,
        "ghm_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh88-1vu",
        "8bdf256bd5563bf82e7b47e2a2ca525449600060ae86d9fffc191b660b7dc090",
    ),
]


@pytest.mark.parametrize(("prefix", "token", "digest"), ONE_TIME)
def test_one_time_tokens_keep_form_and_digest(
    prefix: str, token: str, digest: str
) -> None:
    assert one_time_tokens.make_token(prefix, RANDOM) == token
    assert one_time_tokens.digest_token(prefix, token).hex() == digest


def test_client_secrets_keep_form_and_digest() -> None:
    secret = "ghs_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9tQ8fz"
    digest = "edd9a14620874fdc9f7ef7e0589651f946536c3164d0c152d79482877996552e"
    assert make_secret(RANDOM) == secret
    verify_secret(secret, [bytes.fromhex(digest)])


def test_personal_keys_keep_form_and_digest() -> None:
    key = "ghk_000aoTeCmZZmK3mmfHwCoSC16fIvB74U4QnX"
    digest = "ff0a71adbc1573986c54d1eb07560aaedd9f6a0461e0a8be9efabd4c963d9f05"
    assert personal_key_form.make_key(RANDOM[:22]) == key
    assert personal_key_form.digest_key(key).hex() == digest


def test_refresh_tokens_keep_form_and_digest() -> None:
    token = (
        "ghr_AT8PDF5vDk87mlcPXY4PfBEAAAAHI_HJxGmsb4PKAXHzEQwz" "EqEVIN0RYMLFdt52IM6fbpw"
    )
    digest = "1c6891682716a2ffb89627be37f5e4f1d352438d6993eef106cdb52f76a32adc"
    assert refresh.make_token(USER, 7, KEY) == token
    assert refresh.parse_token(token, RING).digest.hex() == digest
    assert refresh.parse_unverified_token(token).generation == 7
    assert digest_token(token).hex() == digest


def test_device_tokens_keep_their_form() -> None:
    token = (
        "ghd_AT8PDF5vDk87mlcPXY4PfBEAAAAAAAAABwAAAABrAuwhAAECAwQFBgcICQoLDA0O"
        "DyZZdf8Mc2L0GtnLhJmrjMTY_c3s5CUCi9MV_ymX8q0C"
    )
    device = DeviceTokens(RING, 1_000).recognise(token, USER, 7, AT)
    assert device == bytes(range(16)).hex()


def test_second_factor_secrets_keep_their_stored_form() -> None:
    stored = bytes.fromhex(
        "0100000000000000000000000095a60656424b1be2db33987515e75cd17128fc5f"
        "9297be10fa8f8835764d408a49be2c5b"
    )
    secret = b"secret of twenty byt"
    made = encrypt_secret(secret, user_id=USER, nonce=bytes(12), key_ring=RING)
    assert made == stored
    opened = decrypt_secret(stored, user_id=USER, kek_id="k1", key_ring=RING)
    assert opened == secret


def test_signing_keys_keep_their_stored_form() -> None:
    """The box is opened and made with the library alone, as an earlier version did."""
    key = rsa.generate_private_key(65_537, 2_048)
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    label = b"gatehouse signing key\0k1\0a-kid"
    stored = encrypt_private_key(key, kid="a-kid", key_ring=RING)
    assert stored[:1] == b"\x01"
    assert AESGCM(KEY).decrypt(stored[1:13], stored[13:], label) == plain
    old = b"\x01" + bytes(12) + AESGCM(KEY).encrypt(bytes(12), plain, label)
    opened = decrypt_private_key(old, kid="a-kid", kek_id="k1", key_ring=RING)
    assert opened.private_numbers() == key.private_numbers()
    with pytest.raises(UnavailableError):
        decrypt_private_key(old, kid="another", kek_id="k1", key_ring=RING)


def test_advisory_locks_keep_their_numbers() -> None:
    """Replicas of earlier versions share the database and its locks."""
    assert {lock.name: int(lock) for lock in AdvisoryLock} == {
        "ADMINISTRATORS": 1_734_440_033,
        "MIGRATIONS": 1_734_440_037,
        "KEY_ROTATION": 1_734_440_038,
        "AUDIT_LINKING": 1_734_440_039,
        "AUDIT_RETENTION": 1_734_440_040,
        "LOOK_ALIKES": 1_734_440_041,
    }


CURSORS = [
    (
        UserFilter(),
        UserOrder.USERNAME,
        "WyIwZ1lFaWdPNU5RX2giLCJhbGljZSIsIjNmMGYwYzVlLTZmMGUtNGYzYi05YTU3LTBmNWQ4ZTBm"
        "N2MxMSJd",
        "alice",
    ),
    (
        UserFilter(role="admin", is_disabled=False),
        UserOrder.CREATED_DOWN,
        "WyJEVDlKMmRjOWlnc0MiLDE3OTUzNTM2MzMsIjNmMGYwYzVlLTZmMGUtNGYzYi05YTU3LTBmNWQ4"
        "ZTBmN2MxMSJd",
        AT,
    ),
]


@pytest.mark.parametrize(("which", "order", "cursor", "value"), CURSORS)
def test_cursors_of_user_lists_keep_their_form(
    which: UserFilter, order: UserOrder, cursor: str, value: str | int
) -> None:
    """A list that begins at one replica goes on at one of another version."""
    last = User(id=USER, username="alice", created_at=AT)
    assert user_list._write_cursor(last, which, order) == cursor
    assert user_list._read_cursor(cursor, which, order) == (value, USER)


def test_cursors_of_clients_and_of_the_audit_keep_their_form() -> None:
    """As above."""
    client = Client(id="gc_" + "0a" * 16, created_at=AT)
    cursor = base64url.encode(f"{AT}.{client.id}".encode())
    assert OLDEST_FIRST.write_cursor(client) == cursor
    assert OLDEST_FIRST.read_cursor(cursor) == (AT, client.id)
    assert NEWEST_FIRST.write_cursor(AuditEvent(id=4711)) == "4711"
    assert NEWEST_FIRST.read_cursor("4711") == (4711,)
