"""A start that fails and a stop that fails in part still give everything back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from issuer import foundation
from issuer.app import build_public_app
from issuer.composition import Issuer, compose
from issuer.exports.parts import ExportsParts
from issuer.foundation import end_tasks
from issuer.http import lifespan
from tests.support.issuer_harness import FakeClock, make_settings


class _Faulty(ExportsParts):
    """The first package to be stopped and closed; both fail."""

    def stop(self) -> None:
        raise RuntimeError("cannot be stopped")

    async def close(self) -> None:
        raise RuntimeError("cannot be closed")


def compose_faulty(url: str) -> Issuer:
    clock = FakeClock()
    issuer = compose(make_settings(url), clock=clock, elapsed=clock.elapsed)
    issuer.exports.__class__ = _Faulty
    return issuer


async def require_closed(issuer: Issuer) -> None:
    """Check that the hashing threads have ended, and the database's connections."""
    with pytest.raises(RuntimeError, match="after shutdown"):
        await issuer.hashing.pool.run(int)
    assert issuer.base.database.measure().idle == 0


def other_tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_a_package_that_cannot_be_closed_leaves_no_other_open(
    sqlite_url: str,
) -> None:
    issuer = compose_faulty(sqlite_url)
    await issuer.feed.feed.head()
    assert issuer.base.database.measure().idle > 0
    with pytest.raises(RuntimeError, match="cannot be closed"):
        await issuer.close()
    await require_closed(issuer)


async def test_a_package_that_cannot_be_stopped_leaves_no_task_running(
    sqlite_url: str,
) -> None:
    issuer = compose_faulty(sqlite_url)
    app = build_public_app(issuer)
    before = other_tasks()
    with pytest.raises(RuntimeError, match="cannot be"):
        async with app.router.lifespan_context(app):
            await issuer.feed.feed.head()
    assert other_tasks() <= before
    await require_closed(issuer)


async def test_a_start_that_fails_closes_what_was_composed(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    issuer = compose(make_settings(sqlite_url), clock=clock, elapsed=clock.elapsed)
    await issuer.feed.feed.head()
    app = build_public_app(issuer)

    def fail() -> None:
        raise OSError("no limits here")

    monkeypatch.setattr(lifespan, "raise_descriptor_limit", fail)
    before = other_tasks()
    with pytest.raises(OSError, match="no limits here"):
        async with app.router.lifespan_context(app):
            raise AssertionError("it must not start")
    assert other_tasks() <= before
    await require_closed(issuer)


async def test_the_stop_has_one_order(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held requests are answered first; the database goes last, for the others write
    to it.
    """
    issuer = compose_faulty(sqlite_url)
    steps: list[str] = []

    class Noted(ExportsParts):
        def stop(self) -> None:
            steps.append("stop")

        async def close(self) -> None:
            assert issuer.base.database.measure().idle > 0
            steps.append("close")

    issuer.exports.__class__ = Noted
    app = build_public_app(issuer)

    async def note_tasks(tasks: Any) -> None:
        assert issuer.feed.watch._is_closed
        # However busy the machine is: none of them has to be cancelled.
        await end_tasks(tasks, patience=60)
        assert all(task.done() and not task.cancelled() for task in tasks)
        steps.append("tasks")

    monkeypatch.setattr(foundation, "end_tasks", note_tasks)
    async with app.router.lifespan_context(app):
        await issuer.feed.feed.head()
        assert not steps
    assert steps == ["stop", "tasks", "close"]
    await require_closed(issuer)
