"""A running verifier takes a changed policy file without a signal (R65).

Its policies are public, so no issuer is needed: a policy that is in force answers 200,
one that is not answers 503.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import Process, ProcessFactory, free_port, wait_until
from tests.support.raw_http import send

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.processes


class Watching:
    """A verifier process and its policy file.

    Attributes:
        file: the path that the setting names.
        process: the verifier; with several workers, their supervisor.
    """

    def __init__(self, folder: Path, factory: ProcessFactory, workers: int) -> None:
        self.folder = folder
        self.file = folder / "policies.toml"
        self.file.write_text(policy("first"))
        self._port, self._admin = free_port(), free_port()
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "VERIFIER_ISSUER_URL": f"http://127.0.0.1:{free_port()}",
            "VERIFIER_AUDIENCE": "api",
            "VERIFIER_FEED_TOKEN": "f" * 40,
            "VERIFIER_POLICY_FILE": str(self.file),
            "VERIFIER_POLICY_WATCH": "0.1",
            "VERIFIER_START_WAIT": "0",
            "VERIFIER_WORKERS": str(workers),
            "VERIFIER_BIND": f"127.0.0.1:{self._port}",
            "VERIFIER_ADMIN_BIND": f"127.0.0.1:{self._admin}",
        }
        self.workers = workers
        self.process: Process = factory.start(
            "verifier",
            (sys.executable, "-m", "verifier"),
            env=env,
            cwd=folder,
            ready=lambda: self.is_in_force("first"),
        )

    def is_in_force(self, name: str) -> bool:
        """Return whether every worker answers by the policy of this name.

        Each check comes on a new connection, and the workers take them in turn.
        """
        target = f"/verify/nginx/p/{name}"
        statuses = {
            send(self._port, "GET", target, []).status for _ in range(8 * self.workers)
        }
        return statuses == {200}

    def replace(self, text: str) -> None:
        """Put another file in place of the present one, by a rename."""
        beside = self.folder / "policies.toml.new"
        beside.write_text(text)
        beside.rename(self.file)

    def wait_for(self, name: str) -> None:
        wait_until(lambda: self.is_in_force(name), what=f"{name} is in force")

    def has_trouble(self) -> bool:
        """Return whether metric, readiness and every worker's status say so."""
        body = send(self._admin, "GET", "/metrics").body.decode()
        differs = [
            sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
            if sample.name == "gatehouse_verifier_policy_file_differs"
        ]
        warnings = send(self._admin, "GET", "/readyz").json()["warnings"]
        errors = {
            send(self._admin, "GET", "/status").json()["policy_file"]["last_error"]
            for _ in range(8 * self.workers)
        }
        return (
            differs == [1.0] and "policy_file_differs" in warnings and "" not in errors
        )

    def logged(self, name: str) -> list[dict[str, object]]:
        return [
            json.loads(line)
            for line in self.process.log().splitlines()
            if f'"{name}"' in line
        ]


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def watching(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watching]:
    factory = ProcessFactory(tmp_path)
    try:
        yield Watching(tmp_path, factory, request.param)
    finally:
        factory.stop_all()


def policy(name: str) -> str:
    return f"[policies.{name}]\npublic = true\n"


def test_changed_file_comes_into_force_and_a_bad_one_does_not(
    watching: Watching,
) -> None:
    watching.replace(policy("second"))
    watching.wait_for("second")
    watching.replace("[policies.third]\npubic = true\n")
    wait_until(watching.has_trouble, what="the bad file is reported")
    assert watching.is_in_force("second")
    # Each worker logs it once, however often it looks.
    wait_until(
        lambda: len(watching.logged("reload.kept")) >= watching.workers,
        what="a line of each worker",
    )
    kept = watching.logged("reload.kept")
    assert len(kept) == watching.workers
    assert "pubic" in str(kept[0])
    watching.replace(policy("third"))
    watching.wait_for("third")
    wait_until(lambda: not watching.has_trouble(), what="the report has ended")
    assert len(watching.logged("reload.kept")) == watching.workers
    # A file that is written in place, and a stop with the watch running.
    watching.file.write_text(policy("fourth"))
    watching.wait_for("fourth")
    assert watching.process.terminate() == 0


def test_file_behind_links_is_followed(watching: Watching) -> None:
    """As Kubernetes replaces the files of a ConfigMap."""
    for name in ("first", "second"):
        (watching.folder / name).mkdir()
        (watching.folder / name / "policies.toml").write_text(policy(name))
    (watching.folder / "..data").symlink_to("first")
    link = watching.folder / "link"
    link.symlink_to("..data/policies.toml")
    link.rename(watching.file)
    link = watching.folder / "..data_tmp"
    link.symlink_to("second")
    link.rename(watching.folder / "..data")
    watching.wait_for("second")


@pytest.mark.parametrize("watching", [2], ids=["two workers"], indirect=True)
def test_worker_that_starts_while_the_file_is_bad_has_the_last_good_one(
    watching: Watching,
) -> None:
    """The supervisor passes on what its workers noticed, not what it began with."""
    watching.replace(policy("second"))
    watching.wait_for("second")
    watching.replace("[")
    wait_until(watching.has_trouble, what="the bad file is reported")
    workers = watching.process.family() - {watching.process.pid}
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_until(
        lambda: len(watching.logged("worker.serving")) == 2 * watching.workers,
        what="other workers serve",
    )
    assert watching.is_in_force("second")
    wait_until(watching.has_trouble, what="the new workers report it as well")
