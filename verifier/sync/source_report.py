"""Reports of a failing source: in the log, limited in number, and in its status.

Each failure names what went wrong, where, and the setting to check. The URLs of a
source come from one of three settings; the failure names the one that was set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from shared.outgoing.failure_log import FailureLog
from shared.outgoing.failures import FAULTS_OF_URL, FailureKind, shown_url
from verifier.disk.disk_copy import CopyError
from verifier.settings import VerifierSettings
from verifier.sync.fetch import FetchError
from verifier.sync.staleness import Failure, SourceStatus

_LOG: Final = logging.getLogger(__name__)
#: Failures for which the URL's setting is the one to check.
_OF_URL: Final = FAULTS_OF_URL | {FailureKind.BAD_ANSWER}
_OF_CA_FILE: Final = frozenset(
    {FailureKind.UNKNOWN_AUTHORITY, FailureKind.CERTIFICATE_REFUSED}
)
#: Statuses that mean: no such resource.
_NOT_THERE: Final = frozenset({404, 405, 410})
_NOT_ALLOWED: Final = frozenset({401, 403})


class Source(NamedTuple):
    """A source, and the settings it comes from.

    Attributes:
        name: `feed` or `jwks`.
        url: its URL.
        url_setting: the setting that the URL comes from.
        token_setting: the setting of the credential; empty for none.
    """

    name: str
    url: str
    url_setting: str
    token_setting: str = ""


def feed_source(settings: VerifierSettings) -> Source:
    """Return the revocation feed."""
    default = f"{settings.issuer_url}/revocations"
    setting = _url_setting("VERIFIER_FEED_URL", settings.feed_url, default)
    return Source("feed", settings.feed_url, setting, "VERIFIER_FEED_TOKEN")


def keys_source(settings: VerifierSettings) -> Source:
    """Return the JWKS."""
    default = f"{settings.issuer_url}/.well-known/jwks.json"
    setting = _url_setting("VERIFIER_JWKS_URL", settings.jwks_url, default)
    return Source("jwks", settings.jwks_url, setting)


def _url_setting(setting: str, url: str, default: str) -> str:
    return "VERIFIER_ISSUER_URL" if url == default else setting


class SourceReport:
    """Keeps and logs the outcome of the attempts at one source.

    Args:
        source: the source.
        boottime: gives boot-time seconds, for the time of a failure.
    """

    def __init__(self, source: Source, boottime: Callable[[], float]) -> None:
        self._source = source
        self._boottime = boottime
        self._log = FailureLog(_LOG, "sync.failed", boottime, source=source.name)

    def failed(self, status: SourceStatus, error: Exception) -> None:
        """Record a failed attempt; log it unless the same failure was logged just
        now.
        """
        failure = self._describe(error)
        status.failed(failure)
        self._log.failed(
            (failure.kind, failure.status),
            kind=failure.kind,
            url=failure.url,
            setting=failure.setting,
            error=failure.error,
            failures=status.failures,
        )

    def crashed(self, status: SourceStatus, error: Exception) -> None:
        """Record a fault of this program, and log its traceback."""
        status.failed(Failure(self._boottime(), "crashed", str(error)))
        _LOG.error(
            "sync.crashed",
            exc_info=error,
            extra={"fields": {"source": self._source.name}},
        )

    def worked(self) -> None:
        """Log that the source answers again after failures."""
        self._log.worked()

    def _describe(self, error: Exception) -> Failure:
        now = self._boottime()
        if isinstance(error, CopyError):
            return Failure(now, "disk_copy", str(error), setting="VERIFIER_STATE_DIR")
        kind, status = FailureKind.BAD_ANSWER, None
        url = shown_url(self._source.url)
        if isinstance(error, FetchError):
            kind, status, url = error.kind, error.status, error.url or url
        setting = self._setting(kind, status)
        return Failure(now, kind.value, str(error), url, setting, status)

    def _setting(self, kind: FailureKind, status: int | None) -> str:
        if kind in _OF_CA_FILE:
            return "VERIFIER_CA_FILE"
        if kind in _OF_URL or status in _NOT_THERE:
            return self._source.url_setting
        if status in _NOT_ALLOWED:
            return self._source.token_setting or self._source.url_setting
        return ""
