"""A running node oidc-provider, which signs with ES256 or Ed25519."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

import httpx
from joserfc.jwk import ECKey, OKPKey

from tests.support.node_packages import find_node, install_packages
from tests.support.processes import Process, ProcessFactory, free_port, is_listening
from tests.support.real_issuers.token_endpoint import (
    CLIENT_ID,
    PATIENCE,
    SCOPE,
    fetch_token,
)

USERNAME: Final = "jane"
#: APIs of the provider, by the algorithm of their tokens.
ES256_API: Final = "urn:orders"
EDDSA_API: Final = "urn:orders:ed25519"
_SOURCES: Final = Path(__file__).parent / "node"
_CALLBACK: Final = "https://shop.example.test/callback"
#: RFC 7636, appendix B.
_VERIFIER: Final = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
_CHALLENGE: Final = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


class OidcProvider:
    """A running oidc-provider.

    Attributes:
        issuer: the `iss` of its tokens.
        process: the program itself.
    """

    def __init__(self, folder: Path, factory: ProcessFactory) -> None:
        """Install and start it. Without npm the test is skipped; CI fails.

        Args:
            folder: for its files.
            factory: stops it when the tests are over.
        """
        home, port = folder / "oidc-provider", free_port()
        install_packages(_SOURCES, home)
        self.issuer = f"http://127.0.0.1:{port}"
        self.process: Process = factory.start(
            "oidc-provider",
            (find_node(), "issuer.mjs"),
            env={"PATH": os.environ["PATH"], "PORT": str(port), "KEYS": _make_keys()},
            cwd=home,
            ready=lambda: is_listening(port),
        )

    def client_token(self, api: str = ES256_API) -> str:
        """Return an access token of the client's own."""
        return self._fetch(grant_type="client_credentials", scope=SCOPE, resource=api)

    def user_token(self, api: str = ES256_API) -> str:
        """Return an access token of a person who logs in (authorization code)."""
        return self._fetch(
            grant_type="authorization_code",
            code=self._log_in(api),
            redirect_uri=_CALLBACK,
            code_verifier=_VERIFIER,
            resource=api,
        )

    def _log_in(self, api: str) -> str:
        """Return the code that a browser is sent to the client with.

        The provider's own pages ask for a name, then for consent.
        """
        asked = {
            "client_id": CLIENT_ID,
            "response_type": "code",
            "redirect_uri": _CALLBACK,
            "scope": f"openid {SCOPE}",
            "resource": api,
            "code_challenge": _CHALLENGE,
            "code_challenge_method": "S256",
        }
        forms = [
            {"prompt": "login", "login": USERNAME, "password": "any"},
            {"prompt": "consent"},
        ]
        with httpx.Client(timeout=PATIENCE, trust_env=False) as browser:
            answer = browser.get(f"{self.issuer}/auth", params=asked)
            while not answer.headers.get("location", "").startswith(_CALLBACK):
                if answer.next_request is not None:
                    answer = browser.send(answer.next_request)
                else:
                    assert forms, f"{answer.url}: {answer.status_code} {answer.text}"
                    answer = browser.post(answer.url, data=forms.pop(0))
        found = re.search(r"[?&]code=([^&]+)", answer.headers["location"])
        assert found, answer.headers["location"]
        return found[1]

    def _fetch(self, **form: str) -> str:
        return fetch_token(f"{self.issuer}/token", **form)


def _make_keys() -> str:
    """Return an EC and an Ed25519 key, as private JWKs; the second names no `alg`."""
    elliptic, edwards = ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519")
    return json.dumps(
        [
            elliptic.as_dict(private=True, use="sig", kid="ec", alg="ES256"),
            edwards.as_dict(private=True, use="sig", kid="ed"),
        ]
    )
