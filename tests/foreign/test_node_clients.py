"""openid-client and jose, from npm, against a running issuer."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.foreign.conftest import RunningIssuer
from tests.support.node_packages import find_node, install_packages

pytestmark = pytest.mark.processes
SOURCES = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our script and the packages that the lock file pins."""
    folder = tmp_path_factory.mktemp("node")
    install_packages(SOURCES, folder)
    return folder


def test_openid_client_and_jose_get_along_with_us(
    running: RunningIssuer, node_folder: Path
) -> None:
    """Discovery, every grant for programs, introspection, revocation, and our
    tokens.
    """
    shown = {
        "url": running.url,
        "audience": running.audience,
        "clientId": running.client_id,
        "clientSecret": running.client_secret,
        "refreshToken": running.log_in()["refresh_token"],
        "personalKey": running.make_key(),
    }
    done = subprocess.run(
        [find_node(), "client.mjs"],
        cwd=node_folder,
        env={"PATH": os.environ["PATH"], "RUNNING": json.dumps(shown)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    usual = {
        "alg": "RS256",
        "before": True,
        "after": False,
        "scope": {"status": 400, "error": "invalid_scope"},
        "target": {"status": 400, "error": "invalid_target"},
    }
    assert found == {
        "basic": usual,
        "post": usual,
        "wrongSecret": {"status": 401, "scheme": "basic"},
        "afterRevocation": {"status": 400, "error": "invalid_grant"},
        "exchanged": {
            "type": "urn:ietf:params:oauth:token-type:access_token",
            "scope": "gatehouse:admin",
        },
    }
