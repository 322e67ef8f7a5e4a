"""Envoy's admin interface, read for the proof that all workers have a filter.

Envoy counts `config_reload` of a filter when its last worker has the new content
(`FilterConfigSubscription::updateComplete` in Envoy's source), and `update_success`
when its main thread has taken it. `counting.py` says what they must show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Self, TypeVar

import httpx

from verifier.native.writer import WriteError

T = TypeVar("T")

_PREFIX: Final = "extension_config_discovery.http_filter."
_QUERY: Final = f"format=json&filter=^{_PREFIX.replace('.', '%5C.')}gatehouse%5C."
#: Seconds for one answer.
TIMEOUT: Final = 2.0
_NONE_KEPT: Final = httpx.Limits(max_keepalive_connections=0)
#: Bytes of an answer: a filter has some twenty lines.
_MAX_BYTES: Final = 4 * 1_048_576


class FilterState(NamedTuple):
    """What Envoy says of one filter.

    Attributes:
        version: of the content that the main thread has taken last.
        taken: contents that the main thread has taken, as far as it counts them.
        completed: contents that all workers have got, as far as it counts them.
        refused: contents that the main thread has refused, as far as it counts them.
    """

    version: str
    taken: int
    completed: int
    refused: int = 0


class EnvoyAdmin:
    """Reads the statistics of one Envoy.

    Args:
        path: of the unix socket of its admin interface.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._client = httpx.AsyncClient(
            # A connection that is kept would go on to the old process in a hot restart.
            transport=httpx.AsyncHTTPTransport(uds=path, limits=_NONE_KEPT),
            timeout=TIMEOUT,
            trust_env=False,
        )

    async def read(self) -> Mapping[str, FilterState]:
        """Return the state of each filter of ours, by the name of its resource.

        Raises:
            WriteError: it cannot be read, so nothing is proven.
        """
        return await self._ask(f"stats?{_QUERY}", _read_states)

    async def counts_alone(self) -> bool:
        """Return whether the counters are of this process alone.

        In a hot restart Envoy adds those of the old process, what they grew by since
        its last flush, unless it is started with `--skip-hot-restart-parent-stats`.

        Raises:
            WriteError: it cannot be read.
        """
        return await self._ask("server_info", _counts_alone)

    async def _ask(self, path: str, read: Callable[[Any], T]) -> T:
        """Return what is read from the JSON at a path.

        Raises:
            WriteError: there is no such answer.
        """
        try:
            answer = await self._client.get(f"http://envoy/{path}")
            if answer.status_code != 200 or len(answer.content) > _MAX_BYTES:
                raise WriteError(f"{self._path}: status {answer.status_code}")
            return read(answer.json())
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise WriteError(
                f"Envoy's admin interface at {self._path} cannot be read "
                f"({_reason(error)}); is "
                "VERIFIER_ENVOY_ADMIN the pipe of `admin.address`?"
            ) from None

    async def close(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _reason(error: BaseException) -> str:
    """Return the system's words for an error that it caused, or the error's kind."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _counts_alone(info: Mapping[str, Any]) -> bool:
    """Return it from an answer of `/server_info`."""
    options = info["command_line_options"]
    skips = options["skip_hot_restart_parent_stats"] is True
    return skips or int(options["restart_epoch"]) == 0


def _read_states(answer: Mapping[str, Any]) -> dict[str, FilterState]:
    """Return the states in an answer of `/stats?format=json`."""
    found: dict[str, dict[str, Any]] = {}
    for stat in answer["stats"]:
        # Histograms have no name of their own.
        name, value = stat.get("name", ""), stat.get("value")
        if name.startswith(_PREFIX):
            resource, _, field = name.removeprefix(_PREFIX).rpartition(".")
            found.setdefault(resource, {})[field] = value
    return {
        resource: FilterState(
            str(fields.get("version_text", "")),
            int(fields.get("update_success", 0)),
            int(fields.get("config_reload", -1)),
            int(fields.get("update_rejected", 0)) + int(fields.get("config_fail", 0)),
        )
        for resource, fields in found.items()
    }
