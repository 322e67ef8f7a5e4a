"""A gate as in a tutorial: FastAPI, PyJWT, a dependency.

Kinder than most: the key is read once, and nothing runs in a thread pool.

Environment: TUTORIAL_KEY (path of a PEM), TUTORIAL_ISSUER, TUTORIAL_AUDIENCE.
"""

import os
from pathlib import Path
from typing import Annotated, Any, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer

PEM = Path(os.environ["TUTORIAL_KEY"]).read_bytes()
KEY = cast(RSAPublicKey, load_pem_public_key(PEM))
ISSUER = os.environ["TUTORIAL_ISSUER"]
AUDIENCE = os.environ["TUTORIAL_AUDIENCE"]

app = FastAPI()
bearer = OAuth2PasswordBearer(tokenUrl="token")


async def current_claims(token: Annotated[str, Depends(bearer)]) -> dict[str, Any]:
    """Return the claims of a good token, else answer 401."""
    try:
        return jwt.decode(
            token, KEY, algorithms=["RS256"], issuer=ISSUER, audience=AUDIENCE
        )
    except jwt.PyJWTError:
        raise HTTPException(401, "Could not validate credentials") from None


@app.get("/{path:path}")
async def check(
    claims: Annotated[dict[str, Any], Depends(current_claims)],
) -> dict[str, str]:
    """Answer requests with a good token."""
    return {"subject": claims["sub"]}
