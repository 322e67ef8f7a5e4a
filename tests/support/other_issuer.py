"""Another issuer, with its OpenID configuration, keys and faults, without a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from shared.configuration.issuers_file import parse_issuers
from shared.outgoing.failures import FailureKind
from tests.support.clock import FakeClock
from tests.support.jose_keys import JoseKey, jose_key
from verifier.check.policy import KnownIssuer
from verifier.policies.other_issuers import terms_of
from verifier.sync.fetch import Fetched, FetchError, TakeLine


class OtherIssuer:
    """One issuer.

    Attributes:
        name: in the issuers file.
        url: its `iss`.
        keys: those in its JWKS.
        is_down: it answers nothing.
        jwks_path: where its OpenID configuration says that the keys are.
        asked: the paths of all requests.
    """

    def __init__(self, name: str, algorithm: str = "ES256") -> None:
        self.name = name
        self.url = f"https://{name}.example.com"
        self.keys: list[JoseKey] = [jose_key(algorithm)]
        self.algorithm = algorithm
        self.is_down = False
        self.jwks_path = "/keys"
        self.asked: list[str] = []

    def entry(self, more: str = "") -> str:
        """Return its entry of the issuers file."""
        return (
            f'[issuers.{self.name}]\nissuer = "{self.url}"\naudience = "orders"\n'
            f'algorithms = ["{self.algorithm}"]\n{more}\n'
        )

    def token(self, now: int, **claims: Any) -> bytes:
        """Return a good token, by its first key."""
        good = {
            "iss": self.url,
            "aud": "orders",
            "sub": "jane",
            "iat": now,
            "exp": now + 300,
        }
        return self.keys[0].token(orjson.dumps(good | claims), typ="JWT")

    def answer(self, path: str, headers: Mapping[str, str], sent_at: float) -> Fetched:
        """Answer a request; an answer with keys has an ETag."""
        self.asked.append(path)
        if self.is_down:
            raise FetchError("down", FailureKind.FAILED, url=f"{self.url}{path}")
        if path == "/.well-known/openid-configuration":
            found = {"issuer": self.url, "jwks_uri": f"{self.url}{self.jwks_path}"}
            return Fetched(200, {}, orjson.dumps(found), sent_at)
        if path != self.jwks_path:
            return Fetched(404, {}, b"", sent_at)
        body = orjson.dumps({"keys": [key.jwk for key in self.keys]})
        etag = f'"{hash(body)}"'
        if headers.get("If-None-Match") == etag:
            return Fetched(304, {}, b"", sent_at)
        return Fetched(200, {"etag": etag}, body, sent_at)


class Internet:
    """Answers for several issuers."""

    def __init__(self, clock: FakeClock, *issuers: OtherIssuer) -> None:
        self._clock = clock
        self.issuers = {issuer.url: issuer for issuer in issuers}

    async def fetch(
        self,
        url: str,
        headers: Mapping[str, str],
        hold: float,
        max_bytes: int,
        take_line: TakeLine | None = None,
    ) -> Fetched:
        """Implement `Fetch`."""
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        issuer = self.issuers[f"{scheme}://{host}"]
        return issuer.answer(f"/{path}", headers, self._clock.monotonic())


def known(*entries: str) -> tuple[KnownIssuer, ...]:
    """Return the issuers of a file with these entries."""
    others = parse_issuers("".join(entries)).values()
    return tuple(KnownIssuer(terms_of(other), other.jwks_url) for other in others)
