"""nginx and a verifier that accepts tokens by the entries of docs/issuers/*.md."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support import issuer_pages
from tests.support.processes import ProcessFactory, wait_until
from tests.support.raw_http import bearer, post_json, send
from tests.support.real_issuers.token_endpoint import SCOPE
from tests.support.stack import Login, Stack

#: Seconds; the fewest that a verifier takes.
KEYS_MAX_AGE: Final = 60
ROLE: Final = "clerk"
#: Below this path a token needs the role and the scope.
CLERKS: Final = "/clerks/7"
_POLICIES: Final = """\
[policies.default]
issuers = {names}
headers = {{ X-Auth-Issuer = "iss" }}

[[policies.default.rules]]
path = "/clerks/**"
required_roles = ["{role}"]
required_scopes = ["{scope}"]

[[policies.default.rules]]
path = "/**"
"""
#: What a client sends of its own must not reach the application.
_SPOOFED: Final = [(f"X-Auth-{name}", "x") for name in ("Issuer", "User", "Session")]


class Gated:
    """Issuer, verifier, nginx and application, all real.

    Args:
        folder: for their files.
        factory: starts and stops them.
        entries: of the issuers file, by the name of the issuer.

    Attributes:
        stack: all but nginx.
        port: of nginx.
    """

    def __init__(
        self, folder: Path, factory: ProcessFactory, entries: Mapping[str, str]
    ) -> None:
        names = json.dumps(["own", *entries])
        policies = _POLICIES.format(names=names, role=ROLE, scope=SCOPE)
        self._issuers = folder / "issuers.toml"
        self._issuers.write_text("".join(entries.values()))
        policy_file = folder / "policies.toml"
        policy_file.write_text(policies)
        self.stack = Stack.start(
            folder,
            factory,
            VERIFIER_ISSUERS_FILE=str(self._issuers),
            VERIFIER_POLICY_FILE=str(policy_file),
            VERIFIER_KEYS_MAX_AGE=str(KEYS_MAX_AGE),
        )
        self.port = self.stack.start_gateway("nginx").port
        wait_until(lambda: all(map(self.kids, entries)), what="keys of all issuers")

    def status(self, token: str, path: str = CLERKS) -> int:
        """Return how nginx answers a request with this token."""
        return send(self.port, "GET", path, [bearer(token)]).status

    def identity(self, token: str, path: str = CLERKS) -> dict[str, str]:
        """Return the identity headers that the application gets."""
        answer = send(self.port, "GET", path, [bearer(token), *_SPOOFED])
        assert answer.status == 200, f"{answer}: {self.reason(token, path)}"
        headers: dict[str, str] = answer.json()["headers"]
        return {n: value for n, value in headers.items() if n.startswith("x-auth-")}

    def own_login(self) -> Login:
        """Return a login at our own issuer."""
        return self.stack.log_in()

    def reason(self, token: str, path: str = CLERKS) -> str:
        """Return the verifier's word for its refusal of a token; empty if it passes."""
        asked = {"token": token, "method": "GET", "uri": path}
        port = self.stack.addresses.verifier_admin
        return str(post_json(port, "/explain", asked).json()["reason"] or "")

    def facts(self, name: str, token: str) -> dict[str, Any]:
        """Return what `issuers check` reads from a sample token of an issuer.

        Raises:
            AssertionError: it found an error.
        """
        arguments = (self._issuers, "--name", name, "--token-file", "-", "--json")
        done = subprocess.run(
            [sys.executable, "-m", "verifier", "issuers", "check", *arguments],
            input=token,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        found: dict[str, Any] = json.loads(done.stdout)["facts"]
        return found

    def kids(self, name: str) -> set[str]:
        """Return the keys of an issuer that the verifier has."""
        return set(self._state_of(name)["kids"])

    def usable_for(self, name: str) -> float:
        """Return the seconds until the keys of an issuer are too old."""
        return float(self._state_of(name)["usable_for"])

    def _state_of(self, name: str) -> dict[str, Any]:
        answer = send(self.stack.addresses.verifier_admin, "GET", "/status")
        found: dict[str, Any] = answer.json()["issuers"][name]
        return found


def entry(page: str, issuer: str, audience: str = "") -> tuple[str, str]:
    """Return name and text of a page's entry, for an issuer that runs here.

    Args:
        page: its name, without `.md`.
        issuer: the `iss` of the issuer.
        audience: another one than on the page; empty: the same.
    """
    text = issuer_pages.entry(page, issuer)
    name = text.partition("[issuers.")[2].partition("]")[0]
    if audience:
        before, _, rest = text.partition('audience = "')
        text = f'{before}audience = "{audience}"{rest.partition(chr(34))[2]}'
    return name, text
