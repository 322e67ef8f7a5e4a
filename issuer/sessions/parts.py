"""Composes sessions: their refresh tokens, their list and their end."""

from issuer.feed.parts import FeedParts
from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.sessions import refresh_routes, session_list_routes, session_routes
from issuer.sessions.families import RefreshFamilies
from issuer.sessions.logout import Logout
from issuer.sessions.quick_rotation import QuickRotation
from issuer.sessions.refresh import RefreshTimes
from issuer.sessions.session_ending import SessionEnding
from issuer.sessions.session_list import SessionList
from issuer.sessions.sessions import Sessions
from issuer.tokens.parts import TokensParts


class SessionsParts(Package):
    """The parts of sessions."""

    hot_routers = (refresh_routes.router,)
    routers = (session_routes.router, session_list_routes.router)

    def __init__(self, base: Foundation, tokens: TokensParts, feed: FeedParts) -> None:
        settings, access, entries = base.settings, tokens.access_tokens, feed.feed
        times = RefreshTimes(settings.refresh_grace, settings.refresh_idle_ttl)
        families = RefreshFamilies(settings.refresh_keys, times)
        quick = QuickRotation(base.database, families, base.limits.refreshes)
        self.ending = ending = SessionEnding(families, entries)
        self.logout = Logout(base, families, ending, entries)
        self.session_list = SessionList(base, ending, self.logout, entries)
        self.sessions = Sessions(
            base, families, quick, access, ending, self.session_list
        )
        self.provides = (self.sessions, self.session_list, self.logout)
        self.tasks = (BackgroundTask(self.session_list.prune, every=600),)
