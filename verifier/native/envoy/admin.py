"""Envoy's admin interface, read for the proof that all workers have a filter.

Envoy counts `config_reload` of a filter when its last worker has the new content
(`FilterConfigSubscription::updateComplete` in Envoy's source), and `update_success`
when its main thread has taken it. Every content that we send is another one, so the two
are equal only while nothing is on its way to a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

import httpx

from verifier.native.writer import WriteError

_PREFIX: Final = "extension_config_discovery.http_filter."
_QUERY: Final = f"format=json&filter=^{_PREFIX.replace('.', '%5C.')}gatehouse%5C."
#: Seconds for one answer.
TIMEOUT: Final = 2.0
#: Bytes of an answer: a filter has some twenty lines.
_MAX_BYTES: Final = 4 * 1_048_576


class FilterState(NamedTuple):
    """What Envoy says of one filter.

    Attributes:
        version: of the content that the main thread has taken last.
        taken: contents that the main thread has taken so far.
        completed: contents that all workers have got so far.
    """

    version: str
    taken: int
    completed: int

    def has(self, version: str) -> bool:
        """Return whether every worker has the content of this version."""
        return self.version == version and self.taken == self.completed


class EnvoyAdmin:
    """Reads the statistics of one Envoy.

    Args:
        path: of the unix socket of its admin interface.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=path),
            timeout=TIMEOUT,
            trust_env=False,
        )

    async def read(self) -> Mapping[str, FilterState]:
        """Return the state of each filter of ours, by the name of its resource.

        Raises:
            WriteError: it cannot be read, so nothing is proven.
        """
        try:
            answer = await self._client.get(f"http://envoy/stats?{_QUERY}")
            if answer.status_code != 200 or len(answer.content) > _MAX_BYTES:
                raise WriteError(f"{self._path}: status {answer.status_code}")
            return _read_states(answer.json()["stats"])
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            kind = type(error).__name__
            raise WriteError(
                f"Envoy's admin interface at {self._path} cannot be read ({kind}); is "
                "VERIFIER_ENVOY_ADMIN the pipe of `admin.address`?"
            ) from None

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _read_states(stats: list[dict[str, Any]]) -> dict[str, FilterState]:
    """Return the states in an answer of `/stats?format=json`."""
    found: dict[str, dict[str, Any]] = {}
    for stat in stats:
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
        )
        for resource, fields in found.items()
    }
