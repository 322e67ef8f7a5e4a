"""One Envoy process, which is sent filters over its xDS stream."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from envoy.config.core.v3.extension_pb2 import (
    TypedExtensionConfig as ExtensionConfig,
)
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from shared.jose.jwk import RsaPublicJwk
from shared.jose.verification_keys import VerificationKey
from verifier.native.content import Content
from verifier.native.envoy.admin import EnvoyAdmin
from verifier.native.envoy.counting import CountersResetError, Counting, version_of
from verifier.native.envoy.levels import Levels
from verifier.native.envoy.names import (
    JWT,
    RECENT,
    SETTLED,
    missing_names,
    policies_in,
)
from verifier.native.envoy.revocation_filters import (
    Group,
    recent_filter,
    settled_filter,
)
from verifier.native.envoy.token_filters import jwt_filter
from verifier.native.terms import NativeTerms
from verifier.native.writer import NotSentError, WriteError

#: The type of the resources that Envoy asks for.
TYPE_URL: Final = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
#: Seconds in which Envoy takes a content, or refuses it: it builds a million entries in
#: two.
TAKE_TIME: Final = 30.0
#: Seconds in which all workers have it after that.
PROOF_TIME: Final = 10.0
#: Seconds between two looks at Envoy's counters, the first and the longest.
_LOOKS: Final = (0.001, 0.05)
#: Names that one Envoy may ask for: one filter, and two for each policy.
MAX_NAMES: Final = 200

#: Writes bytes to the stream.
Send = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True)
class _Pending:
    """A content that Envoy has neither taken nor refused.

    Attributes:
        name: of the filter.
        nonce: of the response.
        answer: done when Envoy has answered, with the reason of a refusal or "".
    """

    name: str
    nonce: str
    answer: asyncio.Future[str]


class EnvoyProcess:
    """One Envoy process (`GatewayProcess`).

    Args:
        node: the id that it gives itself.
        send: writes to its stream.
        admin: proves what its workers have.
    """

    def __init__(
        self,
        node: str,
        send: Send,
        admin: EnvoyAdmin,
    ) -> None:
        # A version that no other stream uses shows whose statistics are read.
        self._stream = uuid.uuid4().hex[:12]
        self.name = f"{node} {self._stream}"
        self.has_window, self.trouble = True, ""
        self._send = send
        self._admin = admin
        self._levels = Levels()
        self._counting = Counting()
        self._count = 0
        self._names: frozenset[str] = frozenset()
        self._renamed = asyncio.Event()
        #: how often it asked for other names than before
        self._renamings = 0
        self._pending: _Pending | None = None
        #: the version of each resource that Envoy has taken last
        self._versions: dict[str, str] = {}
        self._keys: tuple[RsaPublicJwk, ...] | None = None
        self._terms: dict[str, NativeTerms] = {}

    # --- what Envoy says -------------------------------------------------------------

    def heard(self, request: DiscoveryRequest) -> None:
        """Take a request: names that it wants, and its answer to a response.

        Raises:
            ValueError: it asks for too much.
        """
        names = frozenset(request.resource_names)
        if len(names) > MAX_NAMES:
            raise ValueError(f"more than {MAX_NAMES} resources")
        if names != self._names:
            # What it asks for anew it does not have; a filter that it dropped neither.
            self._versions = {n: v for n, v in self._versions.items() if n in names}
            self._counting.keep(names)
            self._names = names
            self._renamings += 1
            self._renamed.set()
        pending = self._pending
        if pending is not None and request.response_nonce == pending.nonce:
            self._pending = None
            refused = request.HasField("error_detail")
            (self._counting.refused if refused else self._counting.took)(pending.name)
            detail = request.error_detail.message[:300] or "without a reason"
            pending.answer.set_result(detail if refused else "")

    # --- what is written -------------------------------------------------------------

    async def write(self, content: Content) -> None:
        """Write the content; return when every worker has it.

        Raises:
            WriteError: it was not taken, or that is not proven.
        """
        await self.ready()
        policies = self._policies(content.terms)
        try:
            if SETTLED not in self._versions:
                # It has dropped it and asked again, or was not sent it.
                self._levels.forget()
            await self._write_all(content, policies)
        except BaseException:
            # What Envoy has is not known.
            self._send_all_again()
            raise
        names = {RECENT, JWT} if content.keys else {RECENT}
        asked = {f"{name}{policy}" for name in names for policy in policies}
        try:
            await self._prove({SETTLED, *asked})
        except CountersResetError:
            # The numbers in the versions are those of before.
            self._send_all_again()
            raise

    async def _write_all(self, content: Content, policies: Iterable[str]) -> None:
        """Write all filters that change, in an order that lets nothing more pass.

        With an open window, the entries are all that was ever confirmed: they are of a
        complete answer, or of a copy that counts. So they may replace what Envoy has,
        and the window comes last. Otherwise they may be fewer, and the keys may be
        older, than those with which a process before this one opened a window that may
        still be open. So the closed window comes first.
        """
        settled, recent = await self._levels.fill(content.entries)
        if not content.window.is_open:
            await self._write_recent(content, policies, recent)
        await self._write_tokens(content, policies)
        if settled is not None:
            await self._put(SETTLED, partial(settled_filter, settled))
        if content.window.is_open:
            await self._write_recent(content, policies, recent)

    async def _write_recent(
        self, content: Content, policies: Iterable[str], recent: Sequence[Group]
    ) -> None:
        keys = tuple(map(_jwk, content.keys))
        for policy in policies:
            terms = content.terms[policy]
            make = partial(recent_filter, terms, keys, recent, content.window)
            await self._put(f"{RECENT}{policy}", make)

    def _send_all_again(self) -> None:
        self._levels.forget()
        self._keys = None
        self._terms.clear()

    async def ready(self) -> None:
        """Return when Envoy can be sent something: it asks for all that it needs, and
        its counters were read.

        Raises:
            WriteError: it lacks a filter, without which the others are worth nothing;
                or its counters cannot be read.
        """
        try:
            async with asyncio.timeout(TAKE_TIME):
                while missing := missing_names(self._names):
                    self._renamed.clear()
                    await self._renamed.wait()
        except TimeoutError:
            lacking = ", ".join(sorted(missing))
            raise WriteError(f"Envoy does not ask for {lacking}") from None
        while not self._counting.knows(self._names):
            # Before anything is sent: later it is not known what they count. What
            # Envoy has not answered yet may be in them or not.
            await self._wait_for_answer()
            renamings, counts_alone = self._renamings, await self._admin.counts_alone()
            states = await self._admin.read()
            if renamings == self._renamings:
                self._counting.begin(self._names, states if counts_alone else {})

    async def _wait_for_answer(self) -> None:
        """Return when Envoy has answered what it was sent last.

        Raises:
            WriteError: it has not, for too long.
        """
        pending = self._pending
        if pending is None:
            return
        # The future outlives a time-out: the answer may come late.
        done, _ = await asyncio.wait({pending.answer}, timeout=TAKE_TIME)
        if not done:
            raise WriteError(f"{pending.name}: Envoy has not answered")

    def _policies(self, terms: Mapping[str, NativeTerms]) -> list[str]:
        """Return the policies that Envoy asks for.

        Raises:
            NotSentError: one of them is not known.
        """
        policies = policies_in(self._names)
        unknown = ", ".join(sorted(policies - terms.keys()))
        if unknown:
            raise NotSentError(
                f"VERIFIER_NATIVE_POLICIES lacks what Envoy asks: {unknown}"
            )
        return sorted(policies)

    async def _write_tokens(self, content: Content, policies: Iterable[str]) -> None:
        """Write the filters that check signatures, where they change."""
        keys = tuple(map(_jwk, content.keys))
        if not keys:
            return
        for policy in policies:
            terms = content.terms[policy]
            is_new = keys != self._keys or terms != self._terms.get(policy)
            name = f"{JWT}{policy}"
            if is_new or name not in self._versions:
                await self._put(name, partial(jwt_filter, terms, keys))
            self._terms[policy] = terms
        self._keys = keys

    async def _put(self, name: str, make: Callable[[str], Message]) -> None:
        """Send a resource; return when Envoy's main thread has taken it.

        Raises:
            WriteError: it was refused, or not answered in time.
        """
        self._versions.pop(name, None)
        try:
            async with asyncio.timeout(TAKE_TIME):
                if self._pending is not None:
                    # Of a write before: whether it counts is not known until then.
                    await asyncio.wait({self._pending.answer})
                version, refusal = await self._send_one(name, make)
        except TimeoutError:
            raise WriteError(f"{name}: Envoy has not answered") from None
        if refusal:
            raise WriteError(f"{name}: Envoy refused it: {refusal}")
        self._versions[name] = version

    async def _send_one(
        self, name: str, make: Callable[[str], Message]
    ) -> tuple[str, str]:
        """Return the version that was sent, and why Envoy refused it or ""."""
        if not self._counting.knows((name,)):
            raise WriteError("Envoy asks for other filters than before")
        self._count += 1
        version = version_of(self._stream, self._count, self._counting.next(name))
        if name == SETTLED:
            # A million entries take a second.
            response = await asyncio.to_thread(_response, name, make, version)
        else:
            # A thread's start and end cost as much as 100 entries.
            response = _response(name, make, version)
        pending = _Pending(name, version, asyncio.get_running_loop().create_future())
        self._pending = pending
        await self._send(response)
        # The future outlives a time-out: the answer may come late.
        await asyncio.wait({pending.answer})
        return version, pending.answer.result()

    async def _prove(self, names: Set[str]) -> None:
        """Return when all workers have all that the main thread has taken.

        Args:
            names: of the resources that must be among it.

        Raises:
            WriteError: they may not have it.
        """
        wanted = dict(self._versions)
        if not wanted.keys() >= names:
            raise WriteError("Envoy asks for other filters than before")
        pause, longest = _LOOKS
        try:
            async with asyncio.timeout(PROOF_TIME):
                while True:
                    states = await self._admin.read()
                    if self._counting.is_proven(wanted, states):
                        return
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, longest)
        except TimeoutError:
            raise WriteError(
                "Envoy does not show that all workers have the filters; is the admin "
                "interface that of this Envoy?"
            ) from None


def _jwk(key: VerificationKey) -> RsaPublicJwk:
    """Return one of our own keys, which are all RSA."""
    numbers = cast(RSAPublicKey, key.public_key).public_numbers()
    return RsaPublicJwk(key.kid, numbers.n, numbers.e)


def _response(name: str, make: Callable[[str], Message], version: str) -> bytes:
    """Return the response with one resource; its version is its nonce, too."""
    packed, resource = AnyMessage(), AnyMessage()
    packed.Pack(make(version))
    resource.Pack(ExtensionConfig(name=name, typed_config=packed))
    response = DiscoveryResponse(
        version_info=version, type_url=TYPE_URL, nonce=version, resources=[resource]
    )
    return bytes(response.SerializeToString())
