"""Nobody learns from the time or the body of a refusal who has an account (R32).

Statistical, and made to hold on a busy machine: what is compared is the time this
process had a processor, the kinds of login take turns in an order that is drawn anew each
round (what recurs in this process, such as its garbage collection, would else fall on the
same kind each time), and more samples are taken while their medians differ. What costs a hash more or less differs by half or more, however
many samples are taken. The hash has the lowest cost the settings allow: what is around it
must be as small a share of the whole as it is in service.

A login that must wait costs no hash, so it is compared with one that must wait at a name
without an account: whether the account exists is what must not show.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Mapping
from statistics import median

import pytest
from sqlalchemy import update

from issuer.models import User
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD
from tests.support.login_story import GATEWAY, OFFICE, STRANGER, fail_from

WRONG = "wrong horse battery"
#: Name and password of each kind; the first is what the others are compared with.
KINDS = {
    "known": ("alice", WRONG),
    "unknown": ("nobody", WRONG),
    "disabled, right password": ("disabled", PASSWORD),
    "over-long name": ("x" * 3_000, WRONG),
    "over-long password": ("alice", "x" * 3_000),
    "empty": ("", ""),
}
WAITING = {"known": ("alice", WRONG), "unknown": ("nobody", WRONG)}
MOST_APART = 0.05


@pytest.fixture
async def issuer(database_url: str) -> AsyncIterator[IssuerHarness]:
    settings = make_settings(
        database_url,
        bcrypt_cost=10,
        trusted_proxies=(GATEWAY,),
        login_free_failures=100,
        login_source_free_failures=100_000,
    )
    async with running_issuer(settings) as harness:
        await harness.create_user("alice", PASSWORD)
        disabled = await harness.create_user("disabled", PASSWORD)
        async with harness.database.write() as db:
            users = update(User).where(User.id == disabled.id)
            await db.execute(users.values(disabled_at=1))
        yield harness


async def time_each(
    issuer: IssuerHarness,
    kinds: Mapping[str, tuple[str, str]],
    status: int,
    draw: random.Random,
) -> tuple[dict[str, float], set[bytes]]:
    """Log in once as each kind; return the seconds each took, and the bodies."""
    took, bodies = {}, set()
    for kind in draw.sample(list(kinds), len(kinds)):
        username, password = kinds[kind]
        began = time.process_time()
        answer = await issuer.client.post(
            "/auth/login",
            json={"username": username, "password": password},
            headers={"X-Forwarded-For": OFFICE, "X-Correlation-Id": "the-same-for-all"},
        )
        took[kind] = time.process_time() - began
        assert answer.status_code == status
        bodies.add(answer.content)
    return took, bodies


def find_apart(samples: Mapping[str, list[float]]) -> dict[str, float]:
    """Return how far the median of each kind is from the first one's, as a share."""
    first, *others = samples
    base = median(samples[first])
    return {kind: abs(median(samples[kind]) / base - 1) for kind in others}


async def compare(
    issuer: IssuerHarness,
    kinds: Mapping[str, tuple[str, str]],
    *,
    status: int,
    rounds: int,
    most_rounds: int,
) -> dict[str, float]:
    """Return how far apart the kinds' medians are, once near enough or out of rounds."""
    samples: dict[str, list[float]] = {kind: [] for kind in kinds}
    bodies: set[bytes] = set()
    draw = random.Random(0)
    await time_each(issuer, kinds, status, draw)  # fills caches
    apart: dict[str, float] = {}
    for number in range(1, most_rounds + 1):
        took, seen = await time_each(issuer, kinds, status, draw)
        bodies |= seen
        for kind, seconds in took.items():
            samples[kind].append(seconds)
        if number % rounds == 0:
            apart = find_apart(samples)
            if max(apart.values()) <= MOST_APART:
                break
    assert len(bodies) == 1, "bodies differ"
    return apart


@pytest.mark.alone
async def test_no_kind_of_failed_login_is_told_by_its_time_or_body(
    issuer: IssuerHarness,
) -> None:
    """R32."""
    apart = await compare(issuer, KINDS, status=401, rounds=5, most_rounds=40)
    assert max(apart.values()) <= MOST_APART, apart


@pytest.mark.alone
async def test_a_login_that_must_wait_does_not_tell_whether_there_is_an_account(
    issuer: IssuerHarness,
) -> None:
    """R32, R34."""
    settings = issuer.settings.model_copy(update={"login_free_failures": 1})
    async with running_issuer(settings, issuer.clock) as strict:
        for name in ("alice", "nobody"):
            await fail_from(strict, STRANGER, 1, name)
        apart = await compare(strict, WAITING, status=429, rounds=40, most_rounds=800)
    assert max(apart.values()) <= MOST_APART, apart
