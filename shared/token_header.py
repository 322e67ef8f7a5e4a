"""The header of our issuer's access tokens, which gateways compare by its bytes."""

from __future__ import annotations

import orjson

from shared.claims import ACCESS_TOKEN_TYP, ALGORITHM
from shared.jose import base64url


def encode_header(kid: str) -> str:
    """Return the encoded header of the tokens that a key signs (RFC 9068, section 2.1).

    Its exact bytes say that type and algorithm are right and that no other member is
    there. A gateway that checks tokens by itself is sent them (docs/native.md).
    """
    header = {"alg": ALGORITHM, "typ": ACCESS_TOKEN_TYP, "kid": kid}
    return base64url.encode(orjson.dumps(header))
