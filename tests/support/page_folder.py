"""A folder in which the commands of a page are typed, as at an operator's desk."""

from __future__ import annotations

import getpass
import grp
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.demo.installation import ROOT, plain_environment, read_env, write_env
from tests.support.make_up import MakeUp
from tests.support.page_commands import Block
from tests.support.policy_page import first_policies
from tests.support.raw_http import bearer, post_json, send
from tests.support.walk_through import read_steps

#: Commands that end with 1 when they have found something, which is no failure.
_FINDS: Final = ("policy explain", "policy replay", "import-users", "revoke-many")
#: The request that docs/tracing.md follows.
_LOGGED_ID: Final = "5f0c7a4e6cb5d04be0fd4ae1d1a4e5c2"
_LOGGED: Final = {
    "policy": "default",
    "method": "GET",
    "host": "shop.example.com",
    "uri": "/orders/7",
    "credential": "1",
    "gate": "200",
    "decision": "allow",
    "client": "gatehouse",
    "scope": "orders:read",
    "roles": "",
}


def own_database(folder: Path) -> None:
    """Write a `.env` into a folder, and make the SQLite database that it names."""
    made = run("gatehouse-issuer generate-secrets\n", folder)
    lines = [line for line in made.stdout.splitlines() if line.startswith("ISSUER_")]
    lines += ["ISSUER_URL=http://127.0.0.1:8000", "ISSUER_AUDIENCE=api"]
    lines += ["ISSUER_DATABASE_URL=sqlite+aiosqlite:///issuer.db"]
    (folder / ".env").write_text("\n".join([*lines, ""]))
    assert run("gatehouse-issuer migrate\n", folder).returncode == 0


def beside_make_up(folder: Path, up: MakeUp) -> dict[str, str]:
    """Fill a folder with what the pages name; return the words to put in their place.

    Args:
        folder: is empty.
        up: runs; `.env` has the settings of its issuer and verifier.
    """
    demo, made = up.demo_env(), read_env(up.var / "secrets.env")
    issuer, admin = demo["ISSUER_URL"], demo["VERIFIER_ADMIN_URL"]
    (folder / "var").mkdir()
    for file in ("demo.env", "issuer.env", "verifier.env"):
        (folder / "var" / file).symlink_to(up.var / file)
    ours = {name: made[name] for name in made if name.startswith("ISSUER_")}
    settings = ours | {
        "ISSUER_URL": issuer,
        "ISSUER_AUDIENCE": "gatehouse-demo",
        "ISSUER_DATABASE_URL": f"sqlite+aiosqlite:///{up.var / 'issuer.db'}",
        "VERIFIER_ISSUER_URL": issuer,
        "VERIFIER_AUDIENCE": "gatehouse-demo",
        "VERIFIER_FEED_TOKEN": made["ISSUER_FEED_TOKEN"],
    }
    write_env(folder / ".env", settings)
    token = _log_in(demo)
    files = {
        "policies.toml": first_policies(),
        "new.toml": first_policies(),
        "token.txt": f"{token}\n",
        "jwks.json": _get(issuer, "/.well-known/jwks.json"),
        "gatehouse.log": json.dumps(_LOGGED) + "\n",
        "people.csv": "username,roles\nfrida,\n",
        "issuer.log": f"{_LOGGED_ID}\n",
        "verifier.log": f"{_LOGGED_ID}\n",
        "rows.csv": "kind,key,exp\nsid,0d9c2f6e-6a0e-4d6b-8a57-2f0f3f1b9a77,\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return {
        "https://auth.example.com": issuer,
        " ISSUER_URL/": f" {issuer}/",
        "http://127.0.0.1:8100": demo["ISSUER_ADMIN_URL"],
        "http://127.0.0.1:9100": admin,
        "0c5e9d7f1b2a4386": _refused(demo["GATEWAY_URL"]),
        "eyJ...": token,
        "ghk_...": _personal_key(demo, token),
        "USER_OF_THE_VERIFIER": getpass.getuser(),
        "www-data": grp.getgrgid(os.getegid()).gr_name,
        "/run/gatehouse": str(folder / "run"),
    }


def type_blocks(
    blocks: list[Block], folder: Path, words: Mapping[str, str] | None = None
) -> None:
    """Type the blocks of one page, in one shell, with other words where they are given.

    Raises:
        AssertionError: a command failed, or does not show what the page shows.
    """
    texts = [block.with_words(words) if words else block.text for block in blocks]
    steps = read_steps("\n".join([*texts, "echo done", "#> done", ""]))
    mark = "=====typed====="
    typed = "".join(f"{commands}\necho '{mark}'\n" for commands, _ in steps)
    finds = any(command in typed for command in _FINDS)
    done = run(("set +e\n" if finds else "") + typed, folder)
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    for (commands, shown), output in zip(steps, done.stdout.split(mark), strict=False):
        for text in shown:
            assert text in output, f"{commands}\n{output}"


def run(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run commands in a shell that has our programs on its PATH.

    What they write to standard error is with the rest, in `stdout`.
    """
    environment = plain_environment()
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return subprocess.run(
        ["sh", "-eu", "-c", commands],
        cwd=folder,
        env=environment | {"PATH": path, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _get(url: str, path: str) -> str:
    answer = send(_port(url), "GET", path)
    assert answer.status == 200
    return answer.body.decode()


def _log_in(demo: Mapping[str, str]) -> str:
    account = {
        "username": demo["ADMIN_USERNAME"],
        "password": demo["ADMIN_PASSWORD"],
    }
    answer = post_json(_port(demo["ISSUER_URL"]), "/auth/login", account)
    assert answer.status == 200, answer
    return str(answer.json()["access_token"])


def _personal_key(demo: Mapping[str, str], token: str) -> str:
    key = {
        "name": "script",
        "scopes": [],
        "expires_in": 3600,
        "password": demo["ADMIN_PASSWORD"],
    }
    headers = [bearer(token)]
    answer = post_json(_port(demo["ISSUER_URL"]), "/users/me/keys", key, headers)
    assert answer.status == 201, answer
    return str(answer.json()["key"])


def _refused(gateway: str) -> str:
    """Return the id of a decision that was a refusal."""
    answer = send(_port(gateway), "GET", "/orders/7")
    assert answer.status == 401
    return answer.header("X-Auth-Decision-Id") or ""
