"""Follows the keys of other issuers, each in a task of its own.

The trouble of one issuer is its own (R67): each has its own back-off, breaker and age
limit, and none delays the feed or the keys of our own issuer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from shared.jose.verification_keys import JwksError, KeysFound, read_key_by_key
from shared.log import event
from verifier.check.policy import KnownIssuer, TokenPolicy
from verifier.check.trust import KeySet, Trust, keys_by_id
from verifier.disk.copy_file import Identity
from verifier.disk.keys_file import KeysFile, remove_old_files
from verifier.sync.discovery import locate_keys
from verifier.sync.fetch import Fetch, FetchError
from verifier.sync.keys import KeysRefresher, KeysSource
from verifier.sync.source_report import Source, SourceReport
from verifier.sync.sync_tasks import TaskTiming, follow, new_breaker

_LOG: Final = logging.getLogger(__name__)
#: Seconds after which a working issuer is asked again where its keys are.
REDISCOVER_AFTER: Final = 3_600.0
#: Seconds between two requests for keys, where the issuer does not say how long they
#: are good. Most publish a key before they sign with it, but not long before.
USUAL_PERIOD: Final = 60.0
#: Reasons in the log line about keys that cannot be used.
_SHOWN: Final = 10


class OtherIssuersMeans(NamedTuple):
    """What the tasks need.

    Attributes:
        trust: gets the keys.
        fetch: sends requests.
        keys_max_age: seconds that keys are good after they were asked for.
        boottime: gives boot-time seconds.
        now: gives Unix seconds.
        timing: how a task waits.
        directory: our own directory of disk copies; None: nothing is kept on disk.
        identity: returns who seals the copies.
    """

    trust: Trust
    fetch: Fetch
    keys_max_age: float
    boottime: Callable[[], float]
    now: Callable[[], float]
    timing: TaskTiming
    directory: Path | None
    identity: Callable[[], Identity]


class _Where(NamedTuple):
    """What decides where an issuer's keys are, and which of them are usable."""

    issuer: str
    name: str
    jwks_url: str
    algorithms: frozenset[str]


class _Followed(NamedTuple):
    """What follows one issuer; `file` is None when nothing is kept on disk."""

    keys: KeysRefresher
    file: KeysFile | None


class OtherIssuers:
    """The other issuers whose keys are followed.

    Args:
        means: what the tasks need.

    Attributes:
        refreshers: of each issuer, by its configured name.
    """

    def __init__(self, means: OtherIssuersMeans) -> None:
        self._means = means
        self._wanted: dict[_Where, _Followed] = {}
        self._tasks: dict[_Where, asyncio.Task[None]] = {}
        self._has_changed = asyncio.Event()
        self.refreshers: dict[str, KeysRefresher] = {}

    def follow(self, issuers: Iterable[KnownIssuer]) -> None:
        """Follow the keys of these issuers, and trust those of no others.

        Keys stay in force where nothing changed that decides which they are. Where the
        address or the algorithms did, they end at once: the operator may have turned
        away from an address that others have taken over.
        """
        wanted: dict[_Where, _Followed] = {}
        for terms, jwks_url in issuers:
            where = _Where(terms.issuer, terms.name, jwks_url, terms.algorithms)
            wanted[where] = self._wanted.get(where) or self._prepare(where)
        trust = self._means.trust
        trust.follow(where.issuer for where in wanted if where in self._wanted)
        trust.follow(where.issuer for where in wanted)
        self._wanted = wanted
        self.refreshers = {where.name: one.keys for where, one in wanted.items()}
        for where in self._tasks.keys() - wanted.keys():
            self._tasks.pop(where).cancel()
        self._has_changed.set()

    def request(self, policy: TokenPolicy) -> None:
        """Request a refresh of the keys of each other issuer that a policy accepts.

        A token names a key that none of them has. Which of them it names does not
        matter: each has its own cool-down, and anybody can name any of them.
        """
        if not self._wanted:
            return
        accepted = {terms.issuer for terms in policy.issuers}
        for where, followed in self._wanted.items():
            if where.issuer in accepted:
                followed.keys.request(self._means.boottime())

    def have_keys(self, boottime: float) -> bool:
        """Return whether each issuer has keys that are not too old by then."""
        issuers = self._means.trust.snapshot.issuers
        return all(
            where.issuer in issuers and boottime < issuers[where.issuer].keys_until
            for where in self._wanted
        )

    async def run(self) -> None:
        """Follow the issuers until this is cancelled."""
        if self._means.directory is not None:
            remove_old_files(self._means.directory, self._means.now())
        try:
            while True:
                self._has_changed.clear()
                for where, followed in self._wanted.items():
                    if where not in self._tasks:
                        self._tasks[where] = asyncio.create_task(
                            self._follow_one(where, followed)
                        )
                await self._has_changed.wait()
        finally:
            tasks = list(self._tasks.values())
            self._tasks.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_one(self, where: _Where, followed: _Followed) -> None:
        means, keys = self._means, followed.keys

        async def rest() -> None:
            await keys.wait(keys.period)

        source = Source(
            where.name, where.jwks_url or where.issuer, "VERIFIER_ISSUERS_FILE"
        )
        report = SourceReport(source, means.boottime)
        if followed.file is not None:
            try:
                await self._read_copy(where, keys, followed.file)
            except Exception:
                # A copy written by a faulty program must not keep this one from asking.
                _LOG.exception("copy.unreadable")
        await follow(keys, new_breaker(where.name), means.timing, rest, report)

    def _prepare(self, where: _Where) -> _Followed:
        means, directory = self._means, self._means.directory
        file = None
        if directory is not None:
            identity, boottime, now = means.identity, means.boottime, means.now
            # Keys of another address do not come back with a restart.
            name = f"{where.issuer} {where.jwks_url}"
            file = KeysFile(directory, name, identity, boottime, now)
        place = _Place(where, means)
        source = KeysSource(
            issuer=where.issuer,
            name=where.name,
            locate=place.locate,
            parse=_Parser(where).parse,
            usual_period=USUAL_PERIOD,
        )
        refresher = KeysRefresher(
            source,
            means.fetch,
            means.trust,
            keys_max_age=means.keys_max_age,
            copy=file,
        )
        place.is_failing = lambda: bool(refresher.status.failures)
        return _Followed(refresher, file)

    async def _read_copy(
        self, where: _Where, keys: KeysRefresher, file: KeysFile
    ) -> None:
        """Bring the keys of the disk copy in force, as old as they are."""
        means, found = self._means, file.read()
        if found is None:
            return
        body, asked_at = found
        try:
            key_set = await keys.source.parse(body)
        except JwksError as error:
            event(
                _LOG,
                logging.WARNING,
                "copy.keys_refused",
                issuer=where.name,
                error=str(error),
            )
            return
        until = asked_at + means.keys_max_age
        means.trust.trust_keys(where.issuer, key_set, until)


class _Place:
    """Where an issuer's keys are: configured, or by its OpenID configuration.

    Attributes:
        is_failing: whether the last attempt to refresh the keys failed.
    """

    def __init__(self, where: _Where, means: OtherIssuersMeans) -> None:
        self._where = where
        self._means = means
        self._url = where.jwks_url
        self._next_at = float("-inf")
        self.is_failing: Callable[[], bool] = lambda: False

    async def locate(self) -> str:
        """Return the URL of the JWKS.

        Raises:
            FetchError: it is not known, and cannot be found out.
        """
        now = self._means.boottime()
        if self._where.jwks_url or (now < self._next_at and not self.is_failing()):
            return self._url
        try:
            self._url = await locate_keys(self._means.fetch, self._where.issuer)
        except FetchError:
            # The keys may well be where they were.
            if not self._url:
                raise
        self._next_at = now + REDISCOVER_AFTER
        return self._url


class _Parser:
    """Reads the JWKSs of an issuer, and logs which of its keys cannot be used."""

    def __init__(self, where: _Where) -> None:
        self._where = where
        self._unusable: tuple[tuple[str, str], ...] = ()

    async def parse(self, body: bytes) -> KeySet:
        """Return the usable keys; checks are answered between two of them.

        Raises:
            JwksError: as `read_keys`.
        """
        found = KeysFound((), ())
        for step in read_key_by_key(body, self._where.algorithms):
            found = step or found
            await asyncio.sleep(0)
        if found.unusable and found.unusable != self._unusable:
            event(
                _LOG,
                logging.WARNING,
                "keys.unusable",
                issuer=self._where.name,
                keys=[f"{kid}: {why}" for kid, why in found.unusable[:_SHOWN]],
            )
        self._unusable = found.unusable
        return keys_by_id(found.keys)
