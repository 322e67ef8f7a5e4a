"""The password of the database's user, where it is given apart from the URL."""

from __future__ import annotations

from urllib.parse import quote


def add_password(database_url: str, password: str) -> str:
    """Return the URL of a database with a password behind its user's name.

    Any character may be in the password: it is percent-encoded.

    Raises:
        ValueError: naming the setting, when the URL names no user or holds a password.
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
