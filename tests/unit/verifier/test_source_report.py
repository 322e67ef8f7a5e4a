"""Each failure names the setting that an operator has to look at."""

from __future__ import annotations

import pytest

from shared.feed import FeedError
from shared.jose.verification_keys import JwksError
from shared.outgoing.failures import FailureKind
from verifier.disk.disk_copy import CopyError
from verifier.settings import VerifierSettings
from verifier.sync.fetch import FetchError
from verifier.sync.source_report import Source, SourceReport, feed_source, keys_source
from verifier.sync.staleness import Failure, SourceStatus

ISSUER = "https://issuer.test"


def settings(**changes: str) -> VerifierSettings:
    return VerifierSettings(
        _env_file=None,
        issuer_url=ISSUER,
        audience="api",
        feed_token="t" * 32,
        **changes,
    )


def noted(error: Exception, source: Source) -> Failure:
    """Return the recorded failure."""
    status = SourceStatus()
    SourceReport(source, lambda: 17.0).failed(status, error)
    assert status.last_failure is not None
    assert status.last_error == status.last_failure.error == str(error)
    return status.last_failure


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (FailureKind.NO_SUCH_HOST, "VERIFIER_ISSUER_URL"),
        (FailureKind.REFUSED, "VERIFIER_ISSUER_URL"),
        (FailureKind.UNREACHABLE, "VERIFIER_ISSUER_URL"),
        (FailureKind.TIMEOUT, "VERIFIER_ISSUER_URL"),
        (FailureKind.UNKNOWN_AUTHORITY, "VERIFIER_CA_FILE"),
        (FailureKind.CERTIFICATE_REFUSED, "VERIFIER_CA_FILE"),
        (FailureKind.WRONG_NAME, "VERIFIER_ISSUER_URL"),
        (FailureKind.TLS_FAILED, "VERIFIER_ISSUER_URL"),
        (FailureKind.NOT_HTTP, "VERIFIER_ISSUER_URL"),
        (FailureKind.REDIRECT, "VERIFIER_ISSUER_URL"),
        (FailureKind.BAD_ANSWER, "VERIFIER_ISSUER_URL"),
        # The issuer's own trouble is in no setting of ours.
        (FailureKind.CERTIFICATE_EXPIRED, ""),
        (FailureKind.CERTIFICATE_NOT_YET_VALID, ""),
        (FailureKind.CLOSED_EARLY, ""),
        (FailureKind.TOO_LARGE, ""),
        (FailureKind.BAD_ENCODING, ""),
        (FailureKind.FAILED, ""),
    ],
)
def test_a_failure_names_the_setting_to_look_at(
    kind: FailureKind, setting: str
) -> None:
    """R59."""
    error = FetchError("why", kind, url=f"{ISSUER}/revocations?epoch=1")
    failure = noted(error, feed_source(settings()))
    assert failure == Failure(
        17.0, kind.value, "why", f"{ISSUER}/revocations", setting, None
    )


@pytest.mark.parametrize(
    ("status", "of_feed", "of_keys"),
    [
        (401, "VERIFIER_FEED_TOKEN", "VERIFIER_JWKS_URL"),
        (403, "VERIFIER_FEED_TOKEN", "VERIFIER_JWKS_URL"),
        (404, "VERIFIER_FEED_URL", "VERIFIER_JWKS_URL"),
        (405, "VERIFIER_FEED_URL", "VERIFIER_JWKS_URL"),
        (410, "VERIFIER_FEED_URL", "VERIFIER_JWKS_URL"),
        (429, "", ""),
        (500, "", ""),
        (503, "", ""),
    ],
)
def test_a_refused_status_names_the_setting(
    status: int, of_feed: str, of_keys: str
) -> None:
    given = settings(jwks_url=f"{ISSUER}/keys", feed_url=f"{ISSUER}/feed")
    error = FetchError("refused", FailureKind.STATUS, status=status)
    for source, setting in (
        (feed_source(given), of_feed),
        (keys_source(given), of_keys),
    ):
        failure = noted(error, source)
        assert (failure.setting, failure.status) == (setting, status)
        assert failure.url == source.url


@pytest.mark.parametrize("error", [FeedError("iss: not our issuer"), JwksError("keys")])
def test_a_foreign_answer_is_reported_with_the_requested_url(
    error: Exception,
) -> None:
    failure = noted(error, keys_source(settings()))
    assert failure.kind == "bad_answer"
    assert failure.url == f"{ISSUER}/.well-known/jwks.json"
    assert failure.setting == "VERIFIER_ISSUER_URL"


def test_a_disk_that_fails_is_no_failure_of_the_network() -> None:
    failure = noted(CopyError("a copy is behind"), feed_source(settings()))
    assert (failure.kind, failure.setting) == ("disk_copy", "VERIFIER_STATE_DIR")
    assert failure.url == ""


def test_a_fault_of_ours_is_noted_too() -> None:
    status = SourceStatus()
    report = SourceReport(feed_source(settings()), lambda: 17.0)
    report.crashed(status, ZeroDivisionError("a fault"))
    assert status.last_failure == Failure(17.0, "crashed", "a fault")
    assert status.failures == 1
