"""Checks that the issuer can be followed: keys, feed, feed token, `iss` and clock."""

from __future__ import annotations

import time
from typing import Final

from shared.checking.findings import Findings
from shared.feed import LINES_TYPE, FeedError, FeedPage, parse_page
from shared.jose.verification_keys import JwksError
from shared.outgoing.authorities import Authorities, AuthoritiesError
from shared.outgoing.failures import shown_url
from verifier.check.trust import parse_jwks
from verifier.settings import VerifierSettings
from verifier.sync.feed import MAX_PAGE_BYTES
from verifier.sync.fetch import Fetch, FetchError, HttpSource
from verifier.sync.keys import MAX_JWKS_BYTES

_JWKS: Final = "VERIFIER_JWKS_URL"
_FEED: Final = "VERIFIER_FEED_URL"
_TOKEN: Final = "VERIFIER_FEED_TOKEN"  # noqa: S105  the name of a setting
_LEEWAY: Final = "VERIFIER_LEEWAY"
_REACH: Final = "see that the issuer runs and that this machine reaches it"
_CLOCKS: Final = "let NTP set the clocks of both machines"
#: Answers with which a credential is refused.
_REFUSALS: Final = frozenset({401, 403})


class _FirstLineError(Exception):
    """Ends the reading behind the first line, which has all that is looked at."""


class _TokenRefusedError(Exception):
    """The feed's server refuses our token; with its status."""


class _NotFeedError(Exception):
    """The server's answer is none of a feed; with its status."""


async def check_issuer(settings: VerifierSettings, findings: Findings) -> None:
    """Ask the issuer for its keys and for the beginning of its revocations.

    The question names no follower, so no revocation waits for us.
    """
    try:
        source = HttpSource(Authorities("VERIFIER_CA_FILE", settings.ca_file))
    except AuthoritiesError:
        return  # reported by the check of files
    try:
        await check_keys(settings, source.fetch, findings)
        await check_feed(settings, source.fetch, findings)
    finally:
        await source.close()


async def check_keys(
    settings: VerifierSettings, fetch: Fetch, findings: Findings
) -> None:
    """Check that the JWKS is answered and has a key that can be used."""
    url = settings.jwks_url
    try:
        answer = await fetch(url, {}, 0.0, MAX_JWKS_BYTES)
        if answer.status != 200:
            findings.error(
                "issuer.keys",
                _JWKS,
                f"{shown_url(url)} answers {answer.status}",
                "name the URL of the issuer's JWKS, or leave the setting empty",
            )
            return
        keys = parse_jwks(answer.body)
    except FetchError as error:
        findings.error("issuer.keys", _JWKS, f"{error.url}: {error}", _REACH)
    except JwksError as error:
        findings.error(
            "issuer.keys", _JWKS, f"{shown_url(url)}: {error}", "name the issuer's JWKS"
        )
    else:
        count = len(keys.keys)
        word = "key" if count == 1 else "keys"
        findings.ok("issuer.keys", _JWKS, f"{shown_url(url)} has {count} {word}")


async def check_feed(
    settings: VerifierSettings, fetch: Fetch, findings: Findings
) -> None:
    """Check that the feed takes our token, is our issuer's, and has our time."""
    url = f"{settings.feed_url}/snapshot"
    before = time.time()
    try:
        line = await _fetch_first_line(url, settings, fetch)
        after = time.time()
        page = parse_page(line)
    except FetchError as error:
        findings.error("issuer.feed", _FEED, f"{error.url}: {error}", _REACH)
    except _TokenRefusedError as error:
        findings.error(
            "issuer.feed_token",
            _TOKEN,
            f"{shown_url(url)} refuses it ({error})",
            "write the issuer's ISSUER_FEED_TOKEN",
        )
    except _NotFeedError as error:
        findings.error(
            "issuer.feed",
            _FEED,
            f"{shown_url(url)} answers {error}",
            "name the URL of the issuer's feed, or leave the setting empty",
        )
    except FeedError as error:
        findings.error(
            "issuer.feed", _FEED, f"{shown_url(url)}: {error}", "name the issuer's feed"
        )
    else:
        findings.ok("issuer.feed", _FEED, f"{shown_url(url)} takes the feed token")
        _compare_issuer(settings, page, findings)
        compare_clocks(settings.leeway, page.as_of / 1_000, before, after, findings)


async def _fetch_first_line(
    url: str, settings: VerifierSettings, fetch: Fetch
) -> bytes:
    """Return the first line of the feed's snapshot, or all of it without lines.

    Raises:
        FetchError: there is no answer.
        _TokenRefusedError, _NotFeedError: it is another one; with the status.
    """
    headers = {
        "Authorization": f"Bearer {settings.feed_token.get_secret_value()}",
        "Accept": LINES_TYPE,
    }
    lines: list[bytes] = []

    async def take_first(line: bytes, _sent_at: float) -> None:
        lines.append(line)
        raise _FirstLineError

    try:
        answer = await fetch(url, headers, 0.0, MAX_PAGE_BYTES, take_first)
    except _FirstLineError:
        return lines[0]
    if answer.status in _REFUSALS:
        raise _TokenRefusedError(answer.status)
    if answer.status != 200:
        raise _NotFeedError(answer.status)
    return answer.body


def _compare_issuer(
    settings: VerifierSettings, page: FeedPage, findings: Findings
) -> None:
    if page.iss == settings.issuer_url:
        findings.ok("issuer.name", "VERIFIER_ISSUER_URL", f"{page.iss} is its `iss`")
        return
    findings.error(
        "issuer.name",
        "VERIFIER_ISSUER_URL",
        f"the feed is that of {shown_url(page.iss)}, and every token would be refused",
        "write the issuer's ISSUER_URL, letter by letter",
    )


def compare_clocks(
    leeway: int, as_of: float, before: float, after: float, findings: Findings
) -> None:
    """Compare the issuer's clock with ours.

    Its time lies between question and answer, so half of their distance is the error.

    Args:
        leeway: seconds by which they may differ.
        as_of: the issuer's time, Unix seconds.
        before: ours before the question.
        after: ours after the answer.
        findings: gets what was found.
    """
    difference, error = as_of - (before + after) / 2, (after - before) / 2
    least = max(0.0, abs(difference) - error)
    side = "ahead of" if difference >= 0 else "behind"
    shown = (
        f"the issuer's clock is {abs(difference):.3f} s {side} ours (+-{error:.3f} s), "
        f"and {leeway} s are allowed"
    )
    if least > leeway:
        findings.error("issuer.clock", _LEEWAY, shown, _CLOCKS)
    elif least > max(1.0, leeway / 2):
        findings.warn("issuer.clock", _LEEWAY, shown, _CLOCKS)
    else:
        findings.ok("issuer.clock", _LEEWAY, shown)
