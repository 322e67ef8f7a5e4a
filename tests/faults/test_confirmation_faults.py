"""After `confirmed`, no 200: verifiers, issuers and networks are broken to see it.

Each trial revokes one token; a violation is a 200 to a request that was sent after the
answer `confirmed: true` for its token had come. `make proof` makes 20 times as many
trials.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Gate, Secrets, prepare
from tests.support.network_namespace import Namespace, new_namespace
from tests.support.processes import ProcessFactory
from tests.support.trials import running, wait_for_none

Tell = Callable[[str, str], None]

pytestmark = [pytest.mark.processes, pytest.mark.proof]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Secrets]:
    """A prepared SQLite database, to be copied."""
    path = tmp_path_factory.mktemp("template") / "issuer.db"
    return path, prepare(f"sqlite+aiosqlite:///{path}", path.parent)


@pytest.fixture
def fleet(
    tmp_path: Path, factory: ProcessFactory, template: tuple[Path, Secrets]
) -> Fleet:
    """One issuer on SQLite; each test adds its verifiers."""
    path, secrets = template
    for file in path.parent.glob("issuer.db*"):
        shutil.copy(file, tmp_path)
    url = f"sqlite+aiosqlite:///{tmp_path / 'issuer.db'}"
    fleet = Fleet(tmp_path, factory, url, secrets)
    fleet.start_issuer()
    return fleet


def test_confirmation_waits_for_a_paused_verifier(
    fleet: Fleet, scale: int, tell: Tell
) -> None:
    """R18: stopped at random moments, for less than its bound."""
    gates = [fleet.add_gate(name) for name in ("a", "b")]
    with running(fleet) as trials:
        for _ in range(6 * scale):
            stopped = random.choice(gates)
            (name,) = trials.mint()
            trials.wait_for(200, name)
            with stopped.paused():
                waiting = trials.confirm(name)
                wait_for_none(random.uniform(0.05, 1.5), waiting)
            assert waiting.result().is_confirmed
        trials.ask_on()
        tell("short pause", trials.verdict(confirmed_at_least=6 * scale))


def add_gate_in(fleet: Fleet, namespace: Namespace, *options: str) -> Gate:
    """Start a verifier in a network of its own; only the feed goes over the cable.

    Secrets travel to loopback only, so a relay stands at either end of the cable.
    """
    issuer = f"127.0.0.1:{fleet.replicas[0].port}"
    port, _ = fleet.add_relay("relay-here", issuer, *options, host=namespace.here)
    far = f"{namespace.here}:{port}"
    inside, _ = fleet.add_relay("relay-there", far, prefix=namespace.prefix)
    return fleet.add_gate("cut", follows=inside, prefix=namespace.prefix)


def test_verifier_without_news_closes_before_confirmation_stops_waiting(
    fleet: Fleet, scale: int, tell
) -> None:
    """R18: paused past its bound, cut off, killed without a copy, killed with one."""
    with new_namespace() as namespace:
        cut = add_gate_in(fleet, namespace)
        issuer = f"127.0.0.1:{fleet.replicas[0].port}"
        port, relay = fleet.add_relay("relay-copied", issuer)
        copied = fleet.add_gate("copied", follows=port, keeps_copy=True)
        paused, lost = fleet.add_gate("paused"), fleet.add_gate("lost")
        fleet.add_gate("hearing")
        with running(fleet) as trials:
            for _ in range(scale):
                names = trials.mint(12)
                trials.wait_for(200, names[-1])
                with paused.paused():
                    namespace.cut()
                    relay.send_signal(signal.SIGSTOP)
                    for gate in (lost, copied):
                        assert gate.process is not None
                        gate.process.kill()
                    calls = [trials.confirm(name) for name in names[:6]]
                    fleet.start_gate(copied, ready="/healthz")
                    # From its disk copy, which the issuer does not know.
                    trials.wait_for(200, gates=copied.name)
                    calls += [trials.confirm(name) for name in names[6:]]
                    wait_for_none(3, *calls)
                    fleet.start_gate(lost)
                    trials.wait_for(503, gates=cut.name)
                    assert all(call.result().is_confirmed for call in calls)
                    trials.ask_on(but=paused.name)
                namespace.mend()
                relay.send_signal(signal.SIGCONT)
                # By themselves, and in any order.
                trials.wait_for(200)
                for name in names:
                    trials.wait_for(401, name)
                trials.ask_on()
            for name in fleet.gates:
                after = trials.watch.after_promises(name)
                tell(f"silent, {name}", f"asked after {dict(after)}")
                assert after.total() >= 12 * scale
            tell("silent", trials.verdict(confirmed_at_least=12 * scale))


def test_bad_network_delays_confirmation_but_breaks_no_promise(
    fleet: Fleet, scale: int, tell
) -> None:
    """R18: 10 % loss and 200 ms delay either way, and now and then nothing at all.

    By netem; where the kernel has none, the relay holds each piece 200 ms, and one in
    ten as long as TCP waits before it sends again.
    """
    with new_namespace() as namespace:
        has_netem = namespace.spoil(delay_ms=200, loss_percent=10)
        options = () if has_netem else ("--delay", "0.2", "--loss", "0.1")
        add_gate_in(fleet, namespace, *options)
        fleet.add_gate("near")
        with running(fleet) as trials:
            for _ in range(2 * scale):
                calls = []
                for name in trials.mint(5):
                    calls.append(trials.confirm(name))
                    wait_for_none(random.uniform(0, 0.5))
                namespace.cut()
                (name,) = trials.mint()
                calls.append(waiting := trials.confirm(name))
                wait_for_none(random.uniform(0.5, 2), waiting)
                namespace.mend()
                assert all(call.result().is_confirmed for call in calls)
            trials.ask_on()
            how = "netem" if has_netem else "relay: this kernel has no netem"
            tell(f"bad line ({how})", trials.verdict(confirmed_at_least=12 * scale))


def test_killed_and_restarted_verifier_keeps_the_promise(
    fleet: Fleet, scale: int, tell
) -> None:
    """R18: from its disk copy, at random moments; nothing waits for the old process."""
    killed = fleet.add_gate("killed", keeps_copy=True)
    fleet.add_gate("other")
    with running(fleet) as trials:
        for _ in range(3 * scale):
            assert killed.process is not None
            names = trials.mint(4)
            trials.wait_for(200, names[-1])
            calls = [trials.confirm(name) for name in names[:2]]
            wait_for_none(random.uniform(0, 0.03))
            killed.process.kill()
            calls += [trials.confirm(name) for name in names[2:]]
            fleet.start_gate(killed)
            assert all(call.result().is_confirmed for call in calls)
            trials.wait_for(200)
        trials.ask_on()
        tell("killed, with a copy", trials.verdict(confirmed_at_least=12 * scale))
