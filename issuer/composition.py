"""Composes the packages of the issuer, each from the foundation and those below it.

The applications, the commands and the tests all start from `compose`.

`Issuer.__init__` is over 40 lines: it makes every package once, in order.
"""

from collections.abc import Callable

from issuer.accounts.names import normalise_username
from issuer.accounts.parts import AccountsParts
from issuer.audit.log import AuditLog
from issuer.audit.parts import AuditParts
from issuer.audit.seals import Sealer
from issuer.clients.authentication import ClientAuthentication
from issuer.clients.parts import ClientsParts
from issuer.clock import Clock, ElapsedClock, elapsed_clock, system_clock
from issuer.credentials.sources import find_source
from issuer.exports.parts import ExportsParts
from issuer.feed.parts import FeedParts
from issuer.foundation import Foundation, Packages
from issuer.hashing.parts import HashingParts
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
from issuer.settings.issuer_settings import IssuerSettings, load_settings
from issuer.startup.reload import Reloader
from issuer.storage.db import Database
from issuer.tokens.parts import TokensParts
from shared.metrics.worker_metrics import TakenSlot


class Issuer:
    """The composed packages.

    Args:
        base: what they are composed from.
        audit: the audit log's parts.
        reread: reads the settings again.

    Attributes:
        packages: all, in the order in which their routes are tried.
        reloader: reads files and settings again.
    """

    def __init__(
        self, base: Foundation, audit: AuditParts, reread: Callable[[], IssuerSettings]
    ) -> None:
        self.base = base
        self.audit = audit
        self.operators = Operators(base)
        self.keys = keys = KeysParts(base)
        self.exports = exports = ExportsParts(base, keys)
        authentication = ClientAuthentication(
            base.database, clock=base.clock, note_failure=audit.note_failure
        )
        self.feed = feed = FeedParts(
            base, exports.write_also, authentication.forget_revoked
        )
        self.tokens = tokens = TokensParts(base, keys, exports)
        self.sessions = sessions = SessionsParts(base, tokens, feed)
        self.revoking = RevokingParts(
            base, audit, keys, feed, sessions, normalise_username
        )
        self.hashing = hashing = HashingParts.of(base, keys)
        self.login = login = LoginParts(base, hashing, sessions)
        self.passwords = PasswordsParts(base, hashing, login, sessions)
        self.second_factor = SecondFactorParts(base, login)
        self.accounts = AccountsParts(base, hashing, sessions)
        self.roles = RolesParts(base, feed)
        self.personal_keys = PersonalKeysParts(base, audit, feed, tokens, login)
        self.clients = ClientsParts(
            base,
            authentication,
            audit,
            exports,
            feed,
            tokens,
            sessions,
            self.revoking,
            login,
            self.personal_keys,
        )
        self.reloader = Reloader(
            base.settings,
            reread,
            feed.credential,
            exports.event_outbox,
            exports.event_delivery,
            count=base.metrics.reload,
        )
        self.packages = Packages(
            (
                exports,
                feed,
                keys,
                self.clients,
                sessions,
                login,
                self.passwords,
                self.second_factor,
                self.revoking,
                self.accounts,
                self.roles,
                self.personal_keys,
                audit,
                tokens,
                hashing,
                self.operators,
            )
        )

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
    reread: Callable[[], IssuerSettings] = load_settings,
    metrics_slot: TakenSlot | None = None,
) -> Issuer:
    """Compose every package; nothing is connected or read yet.

    Args:
        settings: as read at the start.
        clock: gives the time in milliseconds.
        elapsed: gives the seconds that verifiers' leases are measured by.
        database: made from the settings when left out; `Issuer.close` closes it either
            way.
        reread: reads the settings again, when the reloader is asked to.
        metrics_slot: the worker's on the board of all workers; None when it is alone.
    """
    if database is None:
        database = Database(
            settings.database_url,
            pool_size=settings.database_pool_size,
            pool_timeout=settings.database_pool_timeout,
            statement_timeout=settings.database_statement_timeout,
        )
    sealer = Sealer(settings.key_encryption_keys)
    log = AuditLog(clock, sealer)
    metrics = IssuerMetrics(metrics_slot)
    base = Foundation.of(settings, clock, elapsed, database, metrics, log.write_event)
    return Issuer(base, AuditParts(base, log, sealer, find_source), reread)
