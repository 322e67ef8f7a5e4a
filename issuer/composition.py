"""Composes the packages of the issuer, each from the foundation and those below it.

The applications, the commands and the tests all start from `compose`.
"""

from typing import TYPE_CHECKING

from issuer.accounts.names import normalise_username
from issuer.accounts.parts import AccountsParts
from issuer.audit.log import AuditLog
from issuer.audit.parts import AuditParts
from issuer.audit.seals import Sealer
from issuer.clients.parts import ClientsParts
from issuer.clock import Clock, ElapsedClock, elapsed_clock, system_clock
from issuer.credentials.sources import find_source
from issuer.exports.parts import ExportsParts
from issuer.feed.parts import FeedParts
from issuer.foundation import Foundation, Package, Packages
from issuer.hashing.parts import HashingParts
from issuer.http.observation.statement_spans import trace_statements
from issuer.http.operators_port.operators import Operators
from issuer.keys.parts import KeysParts
from issuer.login.parts import LoginParts
from issuer.metrics import IssuerMetrics
from issuer.passwords.parts import PasswordsParts
from issuer.personal_keys.parts import PersonalKeysParts
from issuer.revoking.parts import RevokingParts
from issuer.roles.parts import RolesParts
from issuer.second_factor.parts import SecondFactorParts
from issuer.sessions.parts import SessionsParts
from issuer.settings.issuer_settings import IssuerSettings
from issuer.startup.reload import Reloader
from issuer.storage.db import Database
from issuer.tokens.parts import TokensParts
from shared.metrics.worker_metrics import TakenSlot

if TYPE_CHECKING:
    from shared.tracing.exporting import Spans


class Issuer:
    """The composed packages.

    Args:
        base: what they are composed from.
        audit: the audit log's parts.

    Attributes:
        packages: all of them as one, in the order in which they are made.
        reloader: reads files and settings again.
    """

    def __init__(self, base: Foundation, audit: AuditParts) -> None:
        self.base = base
        self.audit = audit
        self.keys = keys = KeysParts(base)
        self.feed = feed = FeedParts(base)
        self.exports = exports = ExportsParts(base, keys, feed)
        self.tokens = tokens = TokensParts(base, keys, exports)
        self.sessions = sessions = SessionsParts(base, tokens, feed)
        self.revoking = revoking = RevokingParts(
            base, audit, keys, feed, sessions, normalise_username
        )
        self.hashing = hashing = HashingParts.of(base, keys)
        self.login = login = LoginParts(base, hashing, sessions)
        self.passwords = PasswordsParts(base, hashing, login, sessions)
        self.second_factor = SecondFactorParts(base, login)
        self.accounts = AccountsParts(base, hashing, sessions)
        self.roles = RolesParts(base, feed)
        self.personal_keys = personal_keys = PersonalKeysParts(
            base, audit, feed, tokens, login
        )
        self.clients = ClientsParts(
            base,
            audit,
            exports,
            feed,
            tokens,
            sessions,
            revoking,
            login,
            personal_keys,
        )
        self.operators = Operators(base, (feed.feed.head, keys.store.signing_key))
        self.reloader = Reloader(base, feed.credential, exports)
        made = [part for part in vars(self).values() if isinstance(part, Package)]
        self.packages = Packages(made)

    async def close(self) -> None:
        """Write what must not be lost; give back threads and connections.

        Everything is closed, whatever one of them raises; the error is raised then.
        """
        try:
            await self.packages.close()
        finally:
            await self.base.database.close()


def compose(
    settings: IssuerSettings,
    *,
    clock: Clock = system_clock,
    elapsed: ElapsedClock = elapsed_clock,
    database: Database | None = None,
    metrics_slot: TakenSlot | None = None,
    spans: "Spans | None" = None,
) -> Issuer:
    """Compose every package; nothing is connected or read yet.

    Args:
        settings: as read at the start.
        clock: gives the time in milliseconds.
        elapsed: gives the seconds that verifiers' leases are measured by.
        database: made from the settings when left out; `Issuer.close` closes it either
            way.
        metrics_slot: the worker's on the board of all workers; None when it is alone.
        spans: of this process; None unless traces are asked for.
    """
    if database is None:
        database = Database.of(settings)
    if spans is not None:
        trace_statements(database, spans)
    log = AuditLog(clock, Sealer(settings.key_encryption_keys))
    metrics = IssuerMetrics(metrics_slot)
    base = Foundation.of(
        settings, clock, elapsed, database, metrics, log.write_event, spans
    )
    return Issuer(base, AuditParts(base, log, find_source))
