"""An Envoy without a network: it takes filters, answers, and shows its counters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from envoy.config.core.v3.extension_pb2 import (
    TypedExtensionConfig as ExtensionConfig,
)
from envoy.extensions.common.matching.v3.extension_matcher_pb2 import (
    ExtensionWithMatcher,
)
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from google.protobuf.message import Message

from verifier.native.envoy.admin import EnvoyAdmin, FilterState
from verifier.native.envoy.names import JWT, NOW_HEADER, RECENT, SETTLED
from verifier.native.envoy.process import TYPE_URL, EnvoyProcess
from verifier.native.writer import WriteError

#: The names of the filters of one policy.
OWN_JWT, OWN_RECENT = f"{JWT}default", f"{RECENT}default"
NAMES = (OWN_RECENT, SETTLED, OWN_JWT)


@dataclass
class Filter:
    """What Envoy has of one filter.

    Attributes:
        version: that the main thread has taken last.
        taken: contents that it has taken.
        completed: contents that all workers have, and those that were refused.
        refused: contents that were refused.
        content: of the version.
        waiting: contents that some worker does not have yet.
    """

    version: str = ""
    taken: int = 0
    completed: int = 0
    refused: int = 0
    content: bytes = b""
    waiting: int = 0

    def let_workers_go_on(self) -> None:
        """Let all workers have what the main thread has."""
        self.completed += self.waiting
        self.waiting = 0


@dataclass
class FakeEnvoy(EnvoyAdmin):
    """One Envoy process and its admin interface.

    Attributes:
        answers: it acknowledges what it is sent, or refuses it.
        has_workers: its workers take at once what the main thread takes.
        refuses: names of filters that it refuses.
        is_readable: its admin interface answers.
        filters: what it has, by name.
        sent: names of what it was sent, in order; a window is marked.
        is_hot_restarted: its counters have a part of those of the process before it.
        unanswered: what it was sent while it did not answer.
    """

    answers: bool = True
    has_workers: bool = True
    refuses: set[str] = field(default_factory=set)
    is_readable: bool = True
    filters: dict[str, Filter] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    unanswered: list[bytes] = field(default_factory=list)
    names: Sequence[str] = NAMES
    reads: int = 0
    is_hot_restarted: bool = False

    def connect(self, names: Sequence[str] = NAMES) -> EnvoyProcess:
        """Open a stream, and ask for filters."""
        self.process = EnvoyProcess("node", self.send, self)
        self.ask(names)
        return self.process

    def ask(self, names: Sequence[str]) -> None:
        """Ask for other filters; what it does not have yet is closed."""
        self.names = names
        for name in names:
            self.filters.setdefault(name, Filter())
        self.process.heard(DiscoveryRequest(type_url=TYPE_URL, resource_names=names))

    async def send(self, message: bytes) -> None:
        """Take what is written to the stream."""
        await asyncio.sleep(0)
        response = DiscoveryResponse.FromString(message)
        config = ExtensionConfig()
        response.resources[0].Unpack(config)
        has_window = NOW_HEADER.encode() in config.typed_config.value
        self.sent.append("window" if has_window else config.name)
        if self.answers:
            self.answer(message)
        else:
            self.unanswered.append(message)

    def answer(self, message: bytes) -> None:
        """Take or refuse a content, and say so."""
        self.process.heard(self.take(message))

    def take(self, message: bytes) -> DiscoveryRequest:
        """Take or refuse a content; return what says so."""
        response = DiscoveryResponse.FromString(message)
        config = ExtensionConfig()
        response.resources[0].Unpack(config)
        request = DiscoveryRequest(
            type_url=TYPE_URL,
            resource_names=self.names,
            response_nonce=response.nonce,
        )
        if config.name in self.refuses:
            request.error_detail.message = "it is not what I take"
            known = self.filters[config.name]
            known.refused, known.completed = known.refused + 1, known.completed + 1
        else:
            known = self.filters[config.name]
            known.version, known.taken = response.version_info, known.taken + 1
            known.content = config.typed_config.value
            known.waiting += 1
            if self.has_workers:
                known.let_workers_go_on()
        return request

    def let_workers_go_on(self) -> None:
        """Let all workers have what the main thread has."""
        self.has_workers = True
        for known in self.filters.values():
            known.let_workers_go_on()

    def reset_counters(self) -> None:
        """Do what `POST /reset_counters` does: what is on its way stays so."""
        for known in self.filters.values():
            known.taken = known.completed = known.refused = 0

    async def read(self) -> Mapping[str, FilterState]:
        """Return the counters, as the admin interface shows them."""
        self.reads += 1
        states = {
            name: FilterState(
                known.version, known.taken, known.completed, known.refused
            )
            for name, known in self.filters.items()
        }
        # The answer is on its way.
        await asyncio.sleep(0)
        if not self.is_readable:
            raise WriteError("the admin interface cannot be read")
        return states

    async def counts_alone(self) -> bool:
        """Return whether the counters are of this process alone."""
        return not self.is_hot_restarted

    def content(self, name: str, kind: type[Message] = ExtensionWithMatcher) -> Message:
        """Return what it has of a filter."""
        return kind.FromString(self.filters[name].content)

    def has_key(self, key: str, name: str = OWN_RECENT) -> bool:
        """Return whether a key is in a filter."""
        return key.encode() in self.filters[name].content
