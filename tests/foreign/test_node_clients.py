"""openid-client and jose, from npm, against a running issuer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.foreign.conftest import RunningIssuer

pytestmark = pytest.mark.processes
SOURCES = Path(__file__).parent / "node"
#: `make setup` installs Node.js and npm here.
_PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our script and the packages that the lock file pins."""
    npm = _PROGRAMS / "npm"
    if not npm.exists():
        _give_up("there is no npm in the environment; make setup brings it")
    folder = tmp_path_factory.mktemp("node")
    for source in SOURCES.iterdir():
        if source.is_file():
            shutil.copy(source, folder)
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        env=os.environ | {"PATH": f"{_PROGRAMS}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        _give_up(f"npm ci failed; is a package registry in reach?\n{done.stderr}")
    return folder


def _give_up(why: str) -> None:
    """A test that did not run must not look green in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


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
        [_PROGRAMS / "node", "client.mjs"],
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
