"""Composes sessions: their refresh tokens, their list and their end."""

from dataclasses import dataclass

from issuer.feed.parts import FeedParts
from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.sessions import refresh_routes, session_list_routes, session_routes
from issuer.sessions.families import RefreshFamilies
from issuer.sessions.logout import Logout
from issuer.sessions.quick_rotation import QuickRotation
from issuer.sessions.refresh import RefreshTimes
from issuer.sessions.session_ending import SessionEnding
from issuer.sessions.session_list import SessionLimits, SessionList
from issuer.sessions.sessions import Sessions
from issuer.tokens.parts import TokensParts


@dataclass(frozen=True, slots=True)
class SessionsParts(Package):
    """The parts of sessions."""

    sessions: Sessions
    session_list: SessionList
    logout: Logout
    ending: SessionEnding


def compose(base: Foundation, tokens: TokensParts, feed: FeedParts) -> SessionsParts:
    """Return the parts."""
    settings, database, clock = base.settings, base.database, base.clock
    access, entries, audit = tokens.access_tokens, feed.feed, base.audit
    rotation = RefreshTimes(settings.refresh_grace, settings.refresh_idle_ttl)
    families = RefreshFamilies(settings.refresh_keys, rotation)
    ending = SessionEnding(families, access, entries)
    logout = Logout(database, families, ending, entries, clock=clock, audit=audit)
    limits = SessionLimits(
        ttl=settings.refresh_ttl,
        idle_ttl=settings.refresh_idle_ttl,
        max_per_user=settings.max_sessions_per_user,
        retention=settings.session_retention,
    )
    session_list = SessionList(
        database,
        ending,
        logout,
        entries,
        limits,
        clock=clock,
        prune_time=base.prune_time,
        audit=audit,
    )
    sessions = Sessions(
        database,
        families,
        QuickRotation(database, families, base.limits.refreshes),
        access,
        ending,
        session_list,
        base.limits,
        clock=clock,
        audit=audit,
        refresh_ttl=settings.refresh_ttl,
        count_refresh=base.metrics.refresh,
    )
    return SessionsParts(
        sessions,
        session_list,
        logout,
        ending,
        hot_routers=(refresh_routes.router,),
        routers=(session_routes.router, session_list_routes.router),
        provides=(sessions, session_list, logout),
        tasks=(BackgroundTask(session_list.prune, every=600),),
    )
