"""Client credentials: HTTP Basic or the form, never both (RFC 6749, 2.3.1)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from issuer.errors import InvalidClientError, InvalidRequestError

# RFC 9110, section 11.1: the scheme in any case; RFC 7617, section 2: token68.
_BASIC: Final = re.compile(r"[Bb][Aa][Ss][Ii][Cc] +([A-Za-z0-9+/]+={0,2})")
#: The characters of our client ids and secrets.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class ClientCredentials(NamedTuple):
    """An id and a secret, as presented; both plain words."""

    client_id: str
    secret: str


def read_credentials(
    authorization: Sequence[str], form: Mapping[str, str]
) -> ClientCredentials:
    """Return the credentials of a request.

    Args:
        authorization: its `Authorization` headers.
        form: its form parameters.

    Raises:
        InvalidRequestError: when there is more than one set of credentials.
        InvalidClientError: when there is none, or it is malformed.
    """
    if len(authorization) > 1:
        raise InvalidRequestError("More than one Authorization header.")
    client_id, secret = form.get("client_id"), form.get("client_secret")
    if not authorization:
        if client_id is None or secret is None:
            raise InvalidClientError(detail="no client credentials")
        return _require_plain(client_id, secret)
    credentials = _read_basic(authorization[0])
    if secret is not None or client_id not in (None, credentials.client_id):
        raise InvalidRequestError("Client credentials in the header and in the form.")
    return credentials


def _read_basic(header: str) -> ClientCredentials:
    match = _BASIC.fullmatch(header)
    if match is None:
        raise InvalidClientError(detail="not Basic")
    try:
        text = base64.b64decode(match[1], validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidClientError(detail="malformed Basic") from None
    client_id, separator, secret = text.partition(":")
    if not separator:
        raise InvalidClientError(detail="malformed Basic")
    return _require_plain(_decode(client_id), _decode(secret))


def _decode(text: str) -> str:
    """Decode a half of Basic, which is form-urlencoded (RFC 6749, section 2.3.1)."""
    return unquote_to_bytes(text.replace("+", " ")).decode("latin-1")


def _require_plain(client_id: str, secret: str) -> ClientCredentials:
    if not _PLAIN.fullmatch(client_id) or not _PLAIN.fullmatch(secret):
        raise InvalidClientError(detail="malformed client credentials")
    return ClientCredentials(client_id, secret)
