"""A decision of any worker is explained by any worker (R66)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ProcessFactory
from tests.support.raw_http import bearer, post_json, send
from tests.support.stack import Stack

WORKERS = 2
#: Each asks two of the workers at random; that all ask the same one is impossible.
ATTEMPTS = 12

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("explain")
    factory = ProcessFactory(folder)
    try:
        yield Stack.start(folder, factory, VERIFIER_WORKERS=str(WORKERS))
    finally:
        factory.stop_all()


def test_every_refusal_is_found_by_its_id_at_once(stack: Stack) -> None:
    ports, secret = stack.addresses, "hush-hush"
    for _ in range(ATTEMPTS):
        refused = send(
            ports.verifier,
            "GET",
            "/verify/nginx",
            [bearer(f"a.{secret}.c"), ("X-Original-URI", f"/{secret}")],
        )
        assert refused.status == 401
        decision_id = refused.header("x-auth-decision-id")
        asked = {"decision_id": decision_id}
        answer = post_json(ports.verifier_admin, "/explain", asked)
        assert answer.status == 200, answer.body
        said = answer.json()
        assert said["decision_id"] == decision_id
        assert (said["reason"], said["policy"]) == ("token_malformed", "default")
        assert secret not in answer.body.decode()


def test_an_id_that_no_worker_knows_is_404(stack: Stack) -> None:
    port, asked = stack.addresses.verifier_admin, {"decision_id": "0" * 16}
    answer = post_json(port, "/explain", asked)
    assert answer.status == 404
    assert "each worker keeps its last 1,000" in answer.body.decode().lower()
