"""Composes the packages of the issuer, each from the foundation and those below it.

The applications, the commands and the tests all start from `compose`.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from functools import partial

from issuer.accounts import parts as accounts_parts
from issuer.accounts.names import normalise_username
from issuer.audit import parts as audit_parts
from issuer.audit.log import AuditLog
from issuer.audit.seals import Sealer
from issuer.clients import parts as clients_parts
from issuer.clients.authentication import ClientAuthentication
from issuer.clock import Clock, ElapsedClock, elapsed_clock, seconds, system_clock
from issuer.credentials.sources import find_source
from issuer.exports import parts as exports_parts
from issuer.feed import parts as feed_parts
from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.hashing import parts as hashing_parts
from issuer.keys import parts as keys_parts
from issuer.login import parts as login_parts
from issuer.metrics import IssuerMetrics
from issuer.passwords import parts as passwords_parts
from issuer.personal_keys import parts as personal_keys_parts
from issuer.revoking import parts as revoking_parts
from issuer.roles import parts as roles_parts
from issuer.second_factor import parts as second_factor_parts
from issuer.sessions import parts as sessions_parts
from issuer.settings.issuer_settings import IssuerSettings, load_settings
from issuer.startup.reload import Reloader
from issuer.storage.db import Database
from issuer.storage.rate_limits import compose_limits
from issuer.tokens import parts as tokens_parts
from shared.log import dropped_lines
from shared.scrapes import PERIOD, Scrapes
from shared.shortages import Shortages
from shared.steady_time import SteadyTime
from shared.worker_metrics import TakenSlot


@dataclass(frozen=True, slots=True)
class Issuer:
    """The composed packages, and what belongs to none of them.

    Attributes:
        base: what the packages are composed from.
        scrapes: the numbers of this worker, or of all.
        shortages: what this worker runs out of.
        reloader: reads files and settings again.

    The packages stand in the order in which their routes are tried.
    """

    base: Foundation
    scrapes: Scrapes
    shortages: Shortages
    reloader: Reloader
    exports: exports_parts.ExportsParts
    feed: feed_parts.FeedParts
    keys: keys_parts.KeysParts
    clients: clients_parts.ClientsParts
    sessions: sessions_parts.SessionsParts
    login: login_parts.LoginParts
    passwords: passwords_parts.PasswordsParts
    second_factor: second_factor_parts.SecondFactorParts
    revoking: revoking_parts.RevokingParts
    accounts: accounts_parts.AccountsParts
    roles: roles_parts.RolesParts
    personal_keys: personal_keys_parts.PersonalKeysParts
    audit: audit_parts.AuditParts
    tokens: tokens_parts.TokensParts
    hashing: hashing_parts.HashingParts

    def packages(self) -> tuple[Package, ...]:
        """Return the packages, in the order in which their routes are tried."""
        found = (getattr(self, each.name) for each in fields(self))
        return tuple(each for each in found if isinstance(each, Package))

    def tasks(self) -> list[BackgroundTask]:
        """Return what runs beside the requests."""
        return [
            *(task for package in self.packages() for task in package.tasks),
            BackgroundTask(self.base.limits.prune, every=60),
            BackgroundTask(self.scrapes.publish, every=PERIOD),
        ]

    async def close(self) -> None:
        """Write what must not be lost; give back threads and connections.

        Everything is closed, whatever one of them raises; the error is raised then.
        """
        async with AsyncExitStack() as stack:
            # They run in reverse: the packages, and the database last.
            stack.push_async_callback(self.base.database.close)
            stack.push_async_callback(self.scrapes.close)
            for package in reversed(self.packages()):
                stack.push_async_callback(package.close)


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
    metrics = IssuerMetrics(metrics_slot)
    sealer = Sealer(settings.key_encryption_keys)
    audit_log = AuditLog(clock, sealer)
    base = Foundation(
        settings,
        clock,
        elapsed,
        database,
        metrics,
        audit_log.write_event,
        SteadyTime(partial(seconds, clock), elapsed).now,
        compose_limits(settings, database, clock=clock, on_limited=metrics.limited),
    )
    audit = audit_parts.compose(base, audit_log, sealer, find_source)
    return _compose_packages(base, audit, reread)


def _compose_packages(
    base: Foundation,
    audit: audit_parts.AuditParts,
    reread: Callable[[], IssuerSettings],
) -> Issuer:
    keys = keys_parts.compose(base)
    exports = exports_parts.compose(base, keys)
    authentication = ClientAuthentication(
        base.database, clock=base.clock, note_failure=audit.note_failure
    )
    feed = feed_parts.compose(
        base,
        exports.write_also,
        authentication.forget_revoked,
    )
    tokens = tokens_parts.compose(base, keys, exports)
    sessions = sessions_parts.compose(base, tokens, feed)
    revoking = revoking_parts.compose(
        base, audit, keys, feed, tokens, sessions, normalise_username
    )
    hashing = hashing_parts.compose(base, keys)
    login = login_parts.compose(base, hashing, sessions)
    personal_keys = personal_keys_parts.compose(base, audit, feed, tokens, login)
    shortages = Shortages()
    return Issuer(
        base=base,
        scrapes=Scrapes(
            base.metrics.together,
            partial(_update_metrics, base.metrics, base.database),
            beside=shortages.look,
        ),
        shortages=shortages,
        reloader=Reloader(
            base.settings,
            reread,
            feed.credential,
            exports.event_outbox,
            exports.event_delivery,
            count=base.metrics.reload,
        ),
        exports=exports,
        feed=feed,
        keys=keys,
        clients=clients_parts.compose(
            base,
            authentication,
            audit,
            feed,
            tokens,
            sessions,
            revoking,
            login,
            personal_keys,
            exports.metadata,
        ),
        sessions=sessions,
        login=login,
        passwords=passwords_parts.compose(base, hashing, login, sessions),
        second_factor=second_factor_parts.compose(base, login),
        revoking=revoking,
        accounts=accounts_parts.compose(base, hashing, sessions),
        roles=roles_parts.compose(base, tokens, feed),
        personal_keys=personal_keys,
        audit=audit,
        tokens=tokens,
        hashing=hashing,
    )


def _update_metrics(metrics: IssuerMetrics, database: Database) -> None:
    metrics.database_pool(database.measure())
    metrics.dropped_lines(dropped_lines())
