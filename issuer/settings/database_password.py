"""The password of the database's user, given separately from the URL."""

from __future__ import annotations

from urllib.parse import quote


def add_password(database_url: str, password: str) -> str:
    """Return the URL of a database with the password after its user.

    The password may have any character: it is percent-encoded.

    Raises:
        ValueError: naming the setting, when the URL has no user or already a password.
    """
    scheme, _, rest = database_url.partition("://")
    user, at, place = rest.rpartition("@")
    if not at or not user:
        raise ValueError(
            "ISSUER_DATABASE_PASSWORD: ISSUER_DATABASE_URL names no user; write "
            "postgresql+asyncpg://USER@HOST/NAME there"
        )
    if ":" in user:
        raise ValueError(
            "ISSUER_DATABASE_PASSWORD: ISSUER_DATABASE_URL holds a password as well; "
            "remove one of the two"
        )
    return f"{scheme}://{user}:{quote(password, safe='')}@{place}"
