"""The gateways that this process writes into, of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from verifier.native.content import ContentSource
from verifier.native.in_force import InForce
from verifier.native.terms import NativePolicies, NativeTerms
from verifier.native.writer import Writer
from verifier.settings import VerifierSettings

ENVOY: Final = "envoy"
HAPROXY: Final = "haproxy"
KINDS: Final = (ENVOY, HAPROXY)
UNIX: Final = "unix:"


class GatewayWriters(Protocol):
    """Finds the processes of one gateway, and keeps each at what is trusted.

    Attributes:
        writers: of the processes that we are connected to, by their names.
    """

    writers: dict[str, Writer]

    @property
    def last_error(self) -> str:
        """Why a gateway that takes new connections is not written into, or why there is
        none; else empty.
        """

    def writing(self) -> AbstractAsyncContextManager[None]:
        """Write while the context is open; gateways keep what they have at its end.

        Raises:
            OSError, RuntimeError: it cannot begin.
        """


class Gateways(NamedTuple):
    """What one worker has for the gateways that check tokens by themselves.

    Attributes:
        kind: of the gateways.
        in_force: up to which position entries are in force in all of them.
        writers: keeps them at what is trusted.
        policies: what they check.
    """

    kind: str
    in_force: InForce
    writers: GatewayWriters
    policies: NativePolicies

    @property
    def has_older_policies(self) -> bool:
        """Whether they check a policy as it was, because they cannot as it is."""
        return any(self.policies.errors.values())

    @property
    def is_alone(self) -> bool:
        """Whether there is no gateway to write into."""
        return not self.writers.writers

    @property
    def failing(self) -> int:
        """The number of processes that cannot be written into, or are kept closed."""
        # Beside one that we write into there is one that takes new connections, and
        # that we do not.
        is_one_left = bool(self.writers.last_error) and not self.is_alone
        failing = self.in_force.failing_processes + is_one_left
        return min(failing, self.in_force.reached_processes)

    def describe(self) -> Mapping[str, object]:
        """Return their state for `/status`.

        `position` is in force everywhere; `awaited` counts processes that cannot be
        reached and may still let requests pass, as one before this one may.
        `last_error` says why we are connected to none, or write into one no more.

        `processes` has each that we are connected to. The number is bounded where they
        are found. `position` is in force in that one for certain; `window_left` are the
        seconds for which it may let requests pass without more news; `last_error` says
        why the last write failed, or keeps it closed, and is empty otherwise.

        `policies` has what a gateway cannot check of each policy, so that its last
        terms are checked there; empty for nothing.
        """
        in_force = self.in_force
        return {
            "kind": self.kind,
            "position": in_force.position(in_force.mark.epoch),
            "awaited": in_force.awaited_processes,
            "last_error": self.writers.last_error,
            "policies": {
                name: {"last_error": error}
                for name, error in sorted(self.policies.errors.items())
            },
            "processes": {
                name: {
                    **in_force.progress(name)._asdict(),
                    "last_error": writer.last_error,
                }
                for name, writer in sorted(self.writers.writers.items())
            },
        }


def gateway_writers(
    kind: str,
    settings: VerifierSettings,
    source: ContentSource,
    in_force: InForce,
) -> GatewayWriters:
    """Return what writes into the gateways of this kind.

    Each kind needs packages or programs of its own, and is imported for itself.
    """
    if kind == HAPROXY:
        from verifier.native.haproxy.gateways import HaproxyGateways

        master = settings.haproxy_master.removeprefix(UNIX)
        directory = Path(settings.haproxy_dir)
        return HaproxyGateways(source, in_force, master, directory)
    # Of an extra, which is not installed everywhere.
    from verifier.native.envoy.admin import EnvoyAdmin
    from verifier.native.envoy.xds import XdsServer

    admin = EnvoyAdmin(settings.envoy_admin.removeprefix(UNIX))
    return XdsServer(settings.envoy_bind, source, in_force, admin)


def check_kind(kind: str, terms: Mapping[str, NativeTerms]) -> None:
    """Check that a gateway of this kind can check these policies.

    Raises:
        InexpressibleError: naming the policy and the field.
    """
    if kind == HAPROXY:
        from verifier.native.haproxy.token_rules import check_terms
    else:
        from verifier.native.envoy.limits import check_terms
    for policy in terms.values():
        check_terms(policy)
