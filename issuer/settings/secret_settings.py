"""Settings that hold the secrets shared with verifiers and the database."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from issuer.settings.key_ring import KeyRing, read_key_ring, show_key_ring
from shared.configuration.settings import ProgramSettings, Secret
from shared.feed import FEED_TOKEN_FORM

_RING: Final = Secret(show_key_ring)


class SecretSettings(ProgramSettings):
    """The feed token and the rings of keys."""

    feed_token: SecretStr = Field(
        description="What verifiers show to read the revocation feed; 32 characters "
        "or more."
    )
    key_encryption_keys: Annotated[KeyRing, NoDecode, _RING] = Field(
        repr=False,
        description="ID:KEY[,ID:KEY...], 32 bytes each in base64url. The first encrypts "
        "signing keys in the database, all decrypt.",
    )
    password_peppers: Annotated[KeyRing, NoDecode, _RING] = Field(
        repr=False,
        description="ID:KEY[,ID:KEY...], 32 bytes each in base64url. The first goes into "
        "new password hashes, all check old ones.",
    )
    refresh_keys: Annotated[KeyRing, NoDecode, _RING] = Field(
        repr=False,
        description="ID:KEY[,ID:KEY...], 32 bytes each in base64url. The first makes new "
        "refresh tokens, all recognise old ones.",
    )

    @field_validator("feed_token")
    @classmethod
    def _check_feed_token(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not FEED_TOKEN_FORM.fullmatch(text):
            raise ValueError(
                "must be 32 to 4096 printable ASCII characters; `python "
                "-m issuer generate-secrets` makes one"
            )
        return value

    @field_validator(
        "key_encryption_keys", "password_peppers", "refresh_keys", mode="before"
    )
    @classmethod
    def _read_key_ring(cls, value: object) -> KeyRing:
        return value if isinstance(value, KeyRing) else read_key_ring(str(value))
