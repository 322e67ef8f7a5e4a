"""All tables, one file per noun.

Each is imported here: a foreign key is found by the name of its table.
"""

from issuer.storage.tables import (
    audit,
    clients,
    feed,
    keys,
    login,
    personal_keys,
    roles,
    security_events,
    sessions,
    status_lists,
    users,
    write_probes,
)
from issuer.storage.tables.base import Base

__all__ = [
    "Base",
    "audit",
    "clients",
    "feed",
    "keys",
    "login",
    "personal_keys",
    "roles",
    "security_events",
    "sessions",
    "status_lists",
    "users",
    "write_probes",
]
