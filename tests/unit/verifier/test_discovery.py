"""The OpenID configuration of another issuer names the URL of its keys.

OpenID Connect Discovery 1.0, sections 3 and 4.
"""

from __future__ import annotations

from typing import Any

import pytest

from shared.outgoing.failures import FailureKind
from tests.support.openid_provider import CONFIGURATION, OpenIdProvider
from verifier.sync.discovery import MAX_DOCUMENT_BYTES, discover, locate_keys
from verifier.sync.fetch import Fetched, FetchError

ISSUER = "https://id.example.com/realms/main"
AUTH0 = "https://tenant.eu.auth0.com"
JWKS = "https://id.example.com/realms/main/certs"


def provider(**changes: Any) -> OpenIdProvider:
    """Return a provider whose document has other members; `...` leaves one out."""
    made = OpenIdProvider(changes.get("at", ISSUER))
    members = made.members | {"jwks_uri": JWKS} | changes
    members.pop("at", None)
    made.members = {n: value for n, value in members.items() if value is not ...}
    return made


def answering(status: int, body: bytes) -> OpenIdProvider:
    """Return a provider that answers the question for its document with this."""
    made = OpenIdProvider(ISSUER)
    made.answers[CONFIGURATION] = (status, body)
    return made


async def refusal(asked: OpenIdProvider, issuer: str = ISSUER) -> FetchError:
    with pytest.raises(FetchError) as raised:
        await locate_keys(asked.fetch, issuer)
    return raised.value


async def test_keys_are_located_by_the_document_below_the_issuer() -> None:
    asked = provider()
    assert await locate_keys(asked.fetch, ISSUER) == JWKS
    assert asked.asked == ["/.well-known/openid-configuration"]
    assert asked.largest == MAX_DOCUMENT_BYTES


async def test_slash_at_the_end_of_the_issuer_is_not_doubled() -> None:
    asked = provider(at=AUTH0, issuer=f"{AUTH0}/")
    await locate_keys(asked.fetch, f"{AUTH0}/")
    assert asked.asked == ["/.well-known/openid-configuration"]


async def test_keys_may_be_at_another_host() -> None:
    """Google has them at googleapis.com."""
    elsewhere = "https://www.googleapis.com/oauth2/v3/certs"
    assert await locate_keys(provider(jwks_uri=elsewhere).fetch, ISSUER) == elsewhere


async def test_local_issuer_may_have_its_keys_on_loopback() -> None:
    local, keys = "http://127.0.0.1:8080/realms/main", "http://127.0.0.1:8080/certs"
    asked = provider(at=local, jwks_uri=keys)
    assert await locate_keys(asked.fetch, local) == keys


async def test_algorithms_of_id_tokens_are_read_as_a_hint() -> None:
    names: list[object] = ["RS256", "ES256", 5, "a\x1bb"]
    asked = provider(id_token_signing_alg_values_supported=names)
    assert (await discover(asked.fetch, ISSUER)).algorithms == ("RS256", "ES256")
    assert (await discover(provider().fetch, ISSUER)).algorithms == ()


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"issuer": ...}, "issuer: is missing, and must be exactly 'https://id.ex"),
        ({"issuer": [ISSUER]}, "issuer: is a JSON list"),
        ({"issuer": f"{ISSUER}/"}, "they differ in the slash at the end"),
        ({"issuer": ISSUER.upper()}, "issuer: is 'HTTPS://ID"),
        ({"issuer": "https://a.test/\x1b[2J"}, r"https://a.test/\x1b[2J"),
        ({"jwks_uri": ...}, "jwks_uri: is missing, and must be a URL"),
        ({"jwks_uri": 5}, "jwks_uri: is a JSON int"),
        ({"jwks_uri": "/certs"}, "jwks_uri: must be https://"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri: must be https://"),
        ({"jwks_uri": "http://id.example.com/c"}, "jwks_uri: must be https://"),
        ({"jwks_uri": "http://127.0.0.1:9100/"}, "must be https, as the issuer is"),
        ({"jwks_uri": "https://a:pw@b.test/"}, "jwks_uri: must hold no user name"),
    ],
)
async def test_document_that_names_no_keys_of_the_issuer_is_refused(
    changes: dict[str, Any], shown: str
) -> None:
    error = await refusal(provider(**changes))
    assert error.kind is FailureKind.BAD_ANSWER
    assert shown in str(error)
    assert "pw" not in str(error)
    assert error.url == f"{ISSUER}/.well-known/openid-configuration"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"\xff{}",
        f'{{"issuer":"https://a.test","issuer":"{ISSUER}","jwks_uri":"{JWKS}"}}'.encode(),
    ],
    ids=["nothing", "a page", "a list", "no UTF-8", "a member twice"],
)
async def test_answer_that_is_no_strict_json_object_is_refused(body: bytes) -> None:
    error = await refusal(answering(200, body))
    assert error.kind is FailureKind.BAD_ANSWER
    assert "must be one object of strict JSON" in str(error)


async def test_long_values_are_not_repeated_in_full() -> None:
    error = await refusal(provider(issuer="https://a.test/" + "x" * 100_000))
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, FailureKind.STATUS), (302, FailureKind.REDIRECT), (204, FailureKind.STATUS)],
)
async def test_other_answers_are_refused(status: int, kind: FailureKind) -> None:
    error = await refusal(answering(status, b""))
    assert (error.kind, error.status) == (kind, status)


async def test_failure_of_the_request_is_that_of_the_discovery() -> None:
    failure = FetchError("nothing listens", FailureKind.REFUSED)

    async def fail(*_arguments: object) -> Fetched:
        raise failure

    with pytest.raises(FetchError) as raised:
        await locate_keys(fail, ISSUER)
    assert raised.value is failure
