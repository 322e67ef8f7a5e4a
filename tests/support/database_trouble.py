"""Steps that tests of a database in trouble share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from sqlalchemy import make_url

from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD


def is_unavailable(answer: httpx.Response) -> bool:
    """Return whether an answer is 503 with the time to wait."""
    return answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1


async def readiness(issuer: IssuerHarness) -> tuple[int, str]:
    """Return the status of the readiness and its reason."""
    answer = await issuer.operators.get("/readyz")
    return answer.status_code, answer.json().get("reason", "")


async def count_unexpected(issuer: IssuerHarness) -> bytes:
    metrics = issuer.issuer.base.metrics.render()
    name = b"gatehouse_issuer_unexpected_errors_total"
    return next(line for line in metrics.splitlines() if line.startswith(name))


@asynccontextmanager
async def issuer_with_alice(
    url: str, **changes: object
) -> AsyncIterator[IssuerHarness]:
    """Run an issuer with one user; at the end no request was answered 500."""
    async with running_issuer(make_settings(url, **changes)) as issuer:
        await issuer.issuer.keys.store.ensure_active()
        await issuer.create_user("alice", PASSWORD)
        yield issuer
        assert await count_unexpected(issuer) == (
            b"gatehouse_issuer_unexpected_errors_total 0.0"
        )


def name_of(url: str) -> str:
    """Return the name of the database, or the path of the file."""
    return str(make_url(url).database)
