"""Finds the keys of another issuer by its OpenID configuration.

OpenID Connect Discovery 1.0, section 4. The document is public, and so is what it says;
it is used only if it is the configuration of exactly the issuer that was asked for.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from shared.configuration.urls import check_foreign_url
from shared.jose.strict_json import StrictJsonError, read_object
from shared.outgoing.failures import FailureKind
from verifier.sync.fetch import Fetch, FetchError, unexpected

#: The largest document, bytes. Those of well-known providers have 1 to 10 kB.
MAX_DOCUMENT_BYTES: Final = 262_144
_PATH: Final = "/.well-known/openid-configuration"
_ALGORITHMS: Final = "id_token_signing_alg_values_supported"
#: Names of algorithms that are read. There are 13 that we know.
_MAX_ALGORITHMS: Final = 100
#: Characters of a value that are shown.
_MAX_SHOWN: Final = 200


class Discovered(NamedTuple):
    """The parts of an OpenID configuration that concern the verification of tokens.

    Attributes:
        url: of the document.
        jwks_url: of the issuer's keys.
        algorithms: with which the issuer may sign ID tokens, as it says. It may sign
            access tokens with others, so this is a hint for people only.
    """

    url: str
    jwks_url: str
    algorithms: tuple[str, ...]


async def locate_keys(fetch: Fetch, issuer: str) -> str:
    """Return the URL of an issuer's JWKS.

    Args:
        fetch: sends the request.
        issuer: the exact `iss`; a URL without a query that `check_foreign_url`
            accepts.

    Raises:
        FetchError: as `discover`.
    """
    return (await discover(fetch, issuer)).jwks_url


async def discover(fetch: Fetch, issuer: str) -> Discovered:
    """Fetch the OpenID configuration of an issuer, and read it.

    Args:
        fetch: sends the request.
        issuer: the exact `iss`; a URL without a query that `check_foreign_url`
            accepts.

    Raises:
        FetchError: there is no answer of 200; or the answer is none that can be used,
            with the kind `bad_answer` and the member that is wrong.
    """
    url = discovery_url(issuer)
    answer = await fetch(url, {"Accept": "application/json"}, 0.0, MAX_DOCUMENT_BYTES)
    if answer.status != 200:
        raise unexpected(answer, url)
    try:
        members = read_object(answer.body)
        _check_issuer(members, issuer)
        jwks_url = _read_jwks_uri(members, issuer)
    except StrictJsonError as error:
        rule = "the OpenID configuration must be one object of strict JSON"
        raise FetchError(f"{rule}: {error}", FailureKind.BAD_ANSWER, url=url) from None
    except ValueError as error:
        raise FetchError(str(error), FailureKind.BAD_ANSWER, url=url) from None
    return Discovered(url, jwks_url, _read_algorithms(members))


def discovery_url(issuer: str) -> str:
    """Return the URL of an issuer's OpenID configuration (section 4.1)."""
    return f"{issuer.removesuffix('/')}{_PATH}"


def _check_issuer(members: dict[str, Any], issuer: str) -> None:
    """Compare the issuer (section 4.3).

    Without this, a server that answers for several issuers, or an attacker who has one
    of its paths, could name the keys for the tokens of another.

    Raises:
        ValueError: it is not exactly the same.
    """
    found = members.get("issuer")
    if found == issuer:
        return
    message = f"issuer: is {_shown(found)}, and must be exactly {_shown(issuer)}"
    if isinstance(found, str) and found.rstrip("/") == issuer.rstrip("/"):
        message += "; they differ in the slash at the end"
    raise ValueError(message)


def _read_jwks_uri(members: dict[str, Any], issuer: str) -> str:
    """Return where the keys are (section 3).

    Raises:
        ValueError: it is missing, or is no URL that keys may be fetched from.
    """
    value = members.get("jwks_uri")
    if not isinstance(value, str):
        raise ValueError(f"jwks_uri: is {_shown(value)}, and must be a URL")
    try:
        check_foreign_url(value)
    except ValueError as error:
        # The message does not repeat the value, which may hold a password.
        raise ValueError(f"jwks_uri: {error}") from None
    if _scheme(issuer) == "https" and _scheme(value) != "https":
        # Only http to loopback comes here. The document must not turn requests to a
        # far issuer into requests to a program on this machine.
        raise ValueError(
            f"jwks_uri: is {_shown(value)}, and must be https, as the issuer is"
        )
    return value


def _read_algorithms(members: dict[str, Any]) -> tuple[str, ...]:
    names = members.get(_ALGORITHMS)
    if not isinstance(names, list):
        return ()
    return tuple(
        name
        for name in names[:_MAX_ALGORITHMS]
        if isinstance(name, str) and name.isascii() and name.isprintable()
    )


def _scheme(url: str) -> str:
    return urlsplit(url).scheme


def _shown(value: object) -> str:
    """Return a value of the document, short and printable."""
    if value is None:
        return "missing"
    if not isinstance(value, str):
        return f"a JSON {type(value).__name__}"
    shown = ascii(value[: _MAX_SHOWN + 1])
    return shown if len(value) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
