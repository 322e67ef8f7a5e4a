"""What comes after a process that wrote into gateways: its lease has to run out.

The gateways let requests pass until their window is over, whatever kind of process the
successor is and whatever its staleness. Only the issuer's row of the old process covers
that, so no successor may end it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.feed import FOLLOWER_HEADER, FOLLOWER_REPLACES_HEADER, EntryKind
from shared.outgoing.authorities import Authorities
from tests.support.cold_starts import VerifierHost, kill, records
from tests.support.gatehouse_verifier import SimulatedVerifier
from tests.unit.verifier.test_settings import load
from verifier.composition import compose
from verifier.disk.compaction import compact
from verifier.disk.copy_format import RecordKind
from verifier.operators.decision_log import DecisionBoard
from verifier.operators.metrics import WorkerParts
from verifier.reloading.files import Files
from verifier.reloading.policy_file import read_policies
from verifier.sync.cold_start import AgeLimits, ColdStart
from verifier.sync.fetch import HttpSource
from verifier.sync.goodbye import say_goodbye


@pytest.fixture
def host(tmp_path: Path) -> VerifierHost:
    return VerifierHost(tmp_path / "state")


async def killed(host: VerifierHost, **options: Any) -> SimulatedVerifier:
    """A process that had synced with one session revoked, and is no more."""
    verifier = await host.start(**options)
    host.issuer.revoke(EntryKind.SID, "dead")
    await verifier.sync()
    kill(verifier)
    return verifier


def id_of(verifier: SimulatedVerifier) -> str:
    return verifier.copy.identity.follower


@pytest.mark.parametrize(
    "successor",
    [
        {},
        {"max_staleness": 13},
        {"has_gateways": True},
        {"has_gateways": True, "max_staleness": 13},
    ],
    ids=["plain", "plain, smaller", "native", "native, smaller"],
)
async def test_no_successor_ends_the_lease(
    host: VerifierHost, successor: dict[str, Any]
) -> None:
    """It has the entries, the position and the age all the same."""
    await killed(host, has_gateways=True)
    verifier = await host.start(**successor)
    assert verifier.feed.replaces == ()
    assert verifier.feed.position == 1
    assert verifier.check(host.issuer.mint()).status == 200
    assert verifier.check(host.issuer.mint(sid="dead")).status == 401


async def test_later_successors_end_none_but_the_plain_ones(host: VerifierHost) -> None:
    await killed(host, has_gateways=True)
    plain = await killed(host)
    third = await host.start()
    assert third.feed.replaces == (id_of(plain),)


async def test_lease_that_a_window_may_rest_on_runs_out_as_well(
    host: VerifierHost,
) -> None:
    """A process may write windows by the age in the copy, and end before its own first
    request: those rest on the lease of the one before it.
    """
    plain = await killed(host)
    native = await host.start(has_gateways=True)
    assert native.feed.replaces == (id_of(plain),)
    kill(native)
    assert (await host.start()).feed.replaces == ()


async def test_compaction_changes_nothing(host: VerifierHost) -> None:
    native = await host.start(has_gateways=True)
    await native.sync()
    await compact(native.copy, host.clock.now())
    kill(native)
    assert (await host.start()).feed.replaces == ()


async def test_merged_copies_are_judged_one_by_one(host: VerifierHost) -> None:
    native = await host.start(has_gateways=True, workers=2)
    plain = await host.start(workers=2)
    for verifier in (native, plain):
        await verifier.sync()
    for verifier in (native, plain):
        kill(verifier)
    successor = await host.start()
    assert len(host.copies()) == 1
    assert successor.feed.replaces == (id_of(plain),)


async def test_goodbye_of_a_plain_successor_ends_its_own_lease_only(
    host: VerifierHost,
) -> None:
    await killed(host, has_gateways=True)
    plain = await host.start()
    await say_goodbye(plain.feed, plain.copy, host.issuer.post)
    (said,) = host.issuer.goodbyes
    assert said[FOLLOWER_HEADER] == id_of(plain)
    assert FOLLOWER_REPLACES_HEADER not in said


async def test_earlier_versions_find_the_members_that_they_read(
    host: VerifierHost,
) -> None:
    """They know nothing of gateways; an empty id names no lease for them, either."""
    await killed(host, has_gateways=True)
    (path,) = host.copies()
    (writer,) = (r for r in records(path) if r.kind is RecordKind.WRITER)
    said = orjson.loads(writer.payload)
    assert said == {"follower": "", "replaces": [], "has_list": False}


async def composed(tmp_path: Path, native: str) -> WorkerParts:
    """Compose a worker as the program does, and start it from the directory."""
    settings = load(
        tmp_path,
        state_dir=str(tmp_path / "state"),
        haproxy_master=f"unix:{tmp_path}/master",
        haproxy_dir=str(tmp_path / "haproxy"),
    )
    authorities = Authorities("VERIFIER_CA_FILE", "")
    files = Files(settings, read_policies(settings), authorities)
    source = HttpSource(authorities)
    parts = compose(files, source, DecisionBoard(1), 0, native=native)
    limits = AgeLimits(30, 600, lambda: 0.0, lambda: 0.0)
    start = ColdStart(Path(settings.state_dir), parts.copy, 1, limits)
    await start.run(parts.trust, parts.feed)
    return parts


@pytest.mark.parametrize(("native", "ended"), [("haproxy", 0), ("", 1)])
async def test_program_with_gateways_composes_its_copy_so(
    tmp_path: Path, native: str, ended: int
) -> None:
    first = await composed(tmp_path, native)
    first.copy.close()
    second = await composed(tmp_path, "")
    assert len(second.feed.replaces) == ended
    second.copy.close()
