"""What `native` needs of the settings and of the installation.

`native` refuses to start without it, and `check` says all of it before.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from shared.distribution import install_line
from verifier.native.gateways import ENVOY, HAPROXY
from verifier.native.haproxy.directory import HaproxyDirectory
from verifier.native.terms import MIN_LEEWAY
from verifier.native.window import RESERVE
from verifier.settings import VerifierSettings
from verifier.sync.feed import FEED_HOLD

#: Twice the time for which the issuer holds a request for the feed, the reserve of a
#: window, the second by which it is cut to whole ones, and one to write it.
LEAST_STALENESS: Final = 2 * FEED_HOLD + RESERVE + 2
#: The settings that each kind needs.
_NEEDED: Final = {
    ENVOY: ("envoy_bind", "envoy_admin"),
    HAPROXY: ("haproxy_master", "haproxy_dir"),
}
_DIRECTORY: Final = "haproxy_dir"
#: What to do about a name in VERIFIER_NATIVE_POLICIES of which there is no policy.
NO_POLICY_REMEDY: Final = (
    "write it into the file of VERIFIER_POLICY_FILE, or take it out of the list"
)
#: The modules of the extra `native`.
_MODULES: Final = ("grpc", "google.protobuf", "xds", "envoy.service")


class Lack(NamedTuple):
    """Something that `native` does not start without.

    Attributes:
        concerns: the setting, or the command.
        found: what is wrong.
        remedy: what to do.
    """

    concerns: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.concerns}: {self.found}; {self.remedy}"


def wanted_kinds(settings: VerifierSettings) -> tuple[str, ...]:
    """Return the kinds of gateways of which a setting is there."""
    return tuple(
        kind
        for kind, names in _NEEDED.items()
        if any(getattr(settings, name) for name in names)
    )


def find_lacks(settings: VerifierSettings, kind: str) -> Iterator[Lack]:
    """Yield what `native` of a kind lacks; nothing when it has all but its policies."""
    for name in _NEEDED[kind]:
        if not getattr(settings, name):
            yield Lack(
                f"VERIFIER_{name.upper()}",
                f"`native {kind}` needs it",
                "name a directory" if name == _DIRECTORY else "write unix:/PATH",
            )
    yield from _find_unfit(settings, kind)
    if settings.max_staleness < LEAST_STALENESS:
        yield Lack(
            "VERIFIER_MAX_STALENESS",
            f"`native` needs at least {LEAST_STALENESS} s, and it is "
            f"{settings.max_staleness}: answers get 10 s old when nothing happens, and "
            "a window ends up to 2 s early",
            f"write VERIFIER_MAX_STALENESS={LEAST_STALENESS} or more",
        )
    if settings.leeway < MIN_LEEWAY:
        yield Lack(
            "VERIFIER_LEEWAY",
            f"`native` needs at least {MIN_LEEWAY} s, and it is {settings.leeway}: "
            "gateways count whole seconds",
            f"write VERIFIER_LEEWAY={MIN_LEEWAY} or more",
        )
    if settings.workers != 1:
        yield Lack(
            "VERIFIER_WORKERS",
            f"`native` needs 1, and it is {settings.workers}: one process writes into "
            "the gateway",
            "write VERIFIER_WORKERS=1, or leave it out",
        )
    missing = [name for name in _MODULES if not _is_installed(name)]
    if kind == ENVOY and missing:
        yield Lack(
            "native envoy",
            f"needs what is not installed here ({', '.join(missing)})",
            f"install the extra: {install_line('verifier', 'native')}, or in a clone: "
            "sh requirements/install PYTHON requirements/native.lock, or as an image: "
            "docker build --target verifier-native",
        )


def _find_unfit(settings: VerifierSettings, kind: str) -> Iterator[Lack]:
    """Yield settings of a kind that are there and cannot be used."""
    if kind == ENVOY and settings.envoy_bind:
        if settings.envoy_admin == settings.envoy_bind:
            yield Lack(
                "VERIFIER_ENVOY_ADMIN",
                "it is the socket of VERIFIER_ENVOY_BIND, where this program listens",
                "write the pipe of `admin.address` in Envoy's config",
            )
        for name in ("bind", "admin_bind", "grpc_bind"):
            if getattr(settings, name) == settings.envoy_bind:
                yield Lack(
                    "VERIFIER_ENVOY_BIND",
                    f"it is the socket of VERIFIER_{name.upper()}",
                    "choose another path",
                )
    if kind == HAPROXY and settings.haproxy_dir:
        try:
            HaproxyDirectory(Path(settings.haproxy_dir))
        except ValueError as error:
            yield Lack("VERIFIER_HAPROXY_DIR", str(error), "choose another directory")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
