"""Keys, tokens and revocations for the bench: the issuer's form, made in bulk."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field

import orjson
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.claims import LONGEST_ACCESS_TTL
from shared.feed import (
    MAX_PAGE_ENTRIES,
    EntryKind,
    FeedEntry,
    FeedPage,
    encode_page,
)
from shared.jose import base64url
from shared.jose.jwk import RsaPublicJwk
from shared.token_form import leading_claims

AUDIENCE = "bench"
#: The longest a verifier takes, and longer than any run.
LIFETIME = LONGEST_ACCESS_TTL


@dataclass
class PassOffice:
    """Mints tokens and writes revocations as the issuer would.

    Attributes:
        issuer: the `iss` of everything.
        epoch: the feed's.
        revoked_sid: a session that every snapshot but the empty one revokes.
    """

    issuer: str
    epoch: str = field(default_factory=lambda: str(uuid.uuid4()))
    revoked_sid: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __post_init__(self) -> None:
        self._key = rsa.generate_private_key(65_537, 2_048)
        numbers = self._key.public_key().public_numbers()
        self.jwk = RsaPublicJwk.with_thumbprint(numbers.n, numbers.e)

    @property
    def jwks(self) -> bytes:
        """The JWKS to publish."""
        return orjson.dumps({"keys": [self.jwk.to_wire()]})

    @property
    def public_pem(self) -> bytes:
        """The public key, for peers that read PEM."""
        return self._key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def mint(self, **changes: object) -> str:
        """Return an access token in the issuer's form, of typical size."""
        now = int(time.time())
        header = {"alg": "RS256", "typ": "at+jwt", "kid": self.jwk.kid}
        claims = {
            **leading_claims(self.issuer, AUDIENCE),
            "exp": now + LIFETIME,
            "iat": now,
            "sub": str(uuid.uuid4()),
            "jti": str(uuid.uuid4()),
            "client_id": "gatehouse",
            "scope": "orders:read orders:write",
            "sid": str(uuid.uuid4()),
            "gen": 0,
            "roles": ["clerk"],
            "auth_time": now,
            "username": "alice",
        } | changes
        parts = [base64url.encode(orjson.dumps(part)) for part in (header, claims)]
        signing_input = ".".join(parts).encode()
        signature = self._key.sign(signing_input, padding.PKCS1v15(), SHA256())
        return f"{signing_input.decode()}.{base64url.encode(signature)}"

    def snapshot(self, revocations: int) -> bytes:
        """Return a feed snapshot with that many revoked sessions, in lines."""
        prune_at = int(time.time()) + LIFETIME
        lines = []
        for after in range(0, max(revocations, 1), MAX_PAGE_ENTRIES):
            to = min(after + MAX_PAGE_ENTRIES, revocations)
            sids = [str(uuid.uuid4()) for _ in range(after, to)]
            if to == revocations > 0:
                sids[-1] = self.revoked_sid
            entries = [
                FeedEntry(seq, EntryKind.SID, sid, 0, prune_at)
                for seq, sid in enumerate(sids, after + 1)
            ]
            page = self._page(after, to, revocations, entries)
            lines.append(encode_page(page) + b"\n")
        return b"".join(lines)

    def empty_page(self, position: int) -> bytes:
        """Return the page without news."""
        return encode_page(self._page(position, position, position, []))

    def _page(
        self, after: int, to: int, head: int, entries: list[FeedEntry]
    ) -> FeedPage:
        return FeedPage(
            iss=self.issuer,
            epoch=self.epoch,
            after=after,
            to=to,
            head=head,
            as_of=time.time_ns() // 1_000_000,
            max_ttl=LIFETIME,
            entries=entries,
        )


def bad_signature(token: str) -> str:
    """Return the token with another signature of the right form."""
    signing_input, _, signature = token.rpartition(".")
    # The last character stays: some would not be canonical there, and refused for that.
    return f"{signing_input}.{signature[-2::-1]}{signature[-1]}"


def garbage(token: str, count: int) -> list[str]:
    """Return different credentials that can be refused without a signature check.

    In turn: a word; three parts of rubbish; a good token's claims under `alg: none` and
    under HS256; and under an unknown key id.
    """
    _, payload, signature = token.split(".")
    made = []
    for number in range(count):
        rubbish = base64url.encode(f"rubbish {number}".encode() * 20)
        header = [
            {"alg": "none", "typ": "at+jwt", "n": number},
            {"alg": "HS256", "typ": "at+jwt", "n": number},
            {"alg": "RS256", "typ": "at+jwt", "kid": f"unknown-{number}"},
        ]
        forms = [f"word-{number}", f"{rubbish}.{rubbish}.{rubbish}"]
        forms += [
            f"{base64url.encode(orjson.dumps(h))}.{payload}.{signature}" for h in header
        ]
        made.append(forms[number % len(forms)])
    return made
