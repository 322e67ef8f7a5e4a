"""The beginnings of our issuer's access tokens, which gateways compare by their bytes.

The exact bytes say more than a gateway's own check: that type and algorithm are right,
that no other member is in the header, and that `iss` and `aud` are one text each. A
gateway that checks tokens by itself is sent them (docs/native.md).
"""

from __future__ import annotations

from typing import Final

import orjson

from shared.claims import ACCESS_TOKEN_TYP, ALGORITHM
from shared.jose import base64url

#: What stands behind the leading claims of each token: the claim and its first bytes.
_BEHIND: Final = b',"exp":'
#: Bytes that base64 encodes together, so each encodes alike whatever is behind it.
_TOGETHER: Final = 3


def encode_header(kid: str) -> str:
    """Return the encoded header of a key's tokens (RFC 9068, section 2.1)."""
    header = {"alg": ALGORITHM, "typ": ACCESS_TOKEN_TYP, "kid": kid}
    return base64url.encode(orjson.dumps(header))


def leading_claims(issuer_url: str, audience: str) -> dict[str, str]:
    """Return the claims with which a payload begins, in their order; then `exp`."""
    return {"iss": issuer_url, "aud": audience}


def encode_beginning(issuer_url: str, audience: str) -> str:
    """Return how the encoded payload of a token begins, with all of `iss` and `aud`.

    Its end depends on what follows, so up to two bytes are left out; the quotation mark
    behind `aud` is not among them.
    """
    members = orjson.dumps(leading_claims(issuer_url, audience)).removesuffix(b"}")
    text = members + _BEHIND
    return base64url.encode(text[: len(text) - len(text) % _TOGETHER])
