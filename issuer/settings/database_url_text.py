"""Database URLs for logs and `check` output: without their password."""

from __future__ import annotations

from urllib.parse import quote

from issuer.settings.database_url import is_sqlite, parse_postgres_url


def describe_database_url(url: str) -> str:
    """Return a URL that was checked, without its password."""
    if is_sqlite(url):
        # Imported late: settings are read for commands that need no database too.
        from sqlalchemy import make_url

        return make_url(url).render_as_string(hide_password=True)
    parsed = parse_postgres_url(url)
    user = quote(parsed.user or "") + (":***" if parsed.password else "")
    query = "&".join(f"{name}={quote(text, '/')}" for name, text in parsed.tls.items())
    return (
        f"postgresql://{user}{'@' if user else ''}"
        f"{','.join(quote(h.host, ':') + f':{h.port}' for h in parsed.hosts)}"
        f"/{quote(parsed.database or '')}{'?' if query else ''}{query}"
    )
