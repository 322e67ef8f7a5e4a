"""Checks that the keys of another issuer can be found and used.

It does once what the verifier does in the background: discovery where the issuers file
names no JWKS, then the JWKS. What is fetched is public, so it may be shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from shared.checking.findings import Findings
from shared.jose.algorithms import ALGORITHM_NAMES, canonical_name
from shared.jose.strict_json import read_object
from shared.jose.verification_keys import (
    JwksError,
    KeysFound,
    VerificationKey,
    read_keys,
)
from shared.outgoing.authorities import Authorities
from shared.outgoing.failures import FailureKind, shown_url
from verifier.check.policy import IssuerTerms, KnownIssuer
from verifier.sync.discovery import Discovered, discover
from verifier.sync.fetch import Fetch, FetchError, HttpSource, unexpected
from verifier.sync.keys import MAX_JWKS_BYTES

_ACCEPT: Final = "application/jwk-set+json, application/json"
_REACH: Final = "see that the issuer runs and that this machine reaches it"
_TRUST: Final = "name its authority: --ca-file here, VERIFIER_CA_FILE for the verifier"
_OF_DISCOVERY: Final[Mapping[FailureKind, str]] = MappingProxyType(
    {
        FailureKind.BAD_ANSWER: (
            "write `issuer` exactly as the tokens have it; where the document differs "
            "from them, set jwks_url"
        ),
        FailureKind.STATUS: (
            "compare `issuer` with the `iss` of a token; without such a document set "
            "jwks_url"
        ),
        FailureKind.REDIRECT: (
            "compare `issuer` with the `iss` of a token; no redirect is followed, so "
            "set jwks_url if it is right"
        ),
        FailureKind.UNKNOWN_AUTHORITY: _TRUST,
    }
)
_OF_JWKS: Final[Mapping[FailureKind, str]] = MappingProxyType(
    {
        FailureKind.STATUS: "name the URL of the issuer's JWKS in jwks_url",
        FailureKind.REDIRECT: "name the URL behind the redirect in jwks_url",
        FailureKind.UNKNOWN_AUTHORITY: _TRUST,
    }
)


def ask_other_issuer(
    known: KnownIssuer,
    authorities: Authorities,
    findings: Findings,
    *,
    is_brief: bool = False,
) -> KeysFound | None:
    """Do `check_other_issuer` over connections of its own."""

    async def ask() -> KeysFound | None:
        source = HttpSource(authorities)
        try:
            return await check_other_issuer(
                known, source.fetch, findings, is_brief=is_brief
            )
        finally:
            await source.close()

    return asyncio.run(ask())


async def check_other_issuer(
    known: KnownIssuer, fetch: Fetch, findings: Findings, *, is_brief: bool = False
) -> KeysFound | None:
    """Fetch the keys of another issuer, and explain what is there.

    Args:
        known: the issuer.
        fetch: sends the requests.
        findings: gets what was found.
        is_brief: leave out single keys, and differences that do no harm.

    Returns:
        The keys; None when there is none that can be used, which the findings explain.
    """
    where, terms, jwks_url = _name(known), known.terms, known.jwks_url
    if not jwks_url:
        try:
            found = await discover(fetch, terms.issuer)
        except FetchError as error:
            remedy = _OF_DISCOVERY.get(error.kind, _REACH)
            findings.error("issuers.discovery", where, f"{error.url}: {error}", remedy)
            return None
        findings.ok(
            "issuers.discovery", where, f"{found.url} names {shown_url(found.jwks_url)}"
        )
        _compare_algorithms(where, found, terms, findings, is_brief=is_brief)
        jwks_url = found.jwks_url
    document = await _fetch_jwks(where, jwks_url, fetch, findings)
    if document is None:
        return None
    return _read_jwks(known, jwks_url, document, findings, is_brief=is_brief)


def _name(known: KnownIssuer) -> str:
    return f"issuers.{known.terms.name}"


def _compare_algorithms(
    where: str,
    found: Discovered,
    terms: IssuerTerms,
    findings: Findings,
    *,
    is_brief: bool,
) -> None:
    """Compare the algorithms of ID tokens with those that the file lists.

    Access tokens may be signed with others, so a difference alone is no fault.
    """
    announced = {canonical_name(name) for name in found.algorithms}
    listed = {canonical_name(name) for name in terms.algorithms}
    if not announced or announced == listed:
        return
    shown = (
        f"the document says that ID tokens are signed with {_join(announced)}, and "
        f"algorithms lists {_join(listed)}"
    )
    if announced.isdisjoint(listed):
        remedy = "see how your access tokens are signed: --token-file checks one"
        findings.warn("issuers.algorithms", where, shown, remedy)
    elif not is_brief and not announced & ALGORITHM_NAMES <= listed:
        findings.ok("issuers.algorithms", where, shown)


async def _fetch_jwks(
    where: str, url: str, fetch: Fetch, findings: Findings
) -> bytes | None:
    try:
        answer = await fetch(url, {"Accept": _ACCEPT}, 0.0, MAX_JWKS_BYTES)
        if answer.status != 200:
            raise unexpected(answer, url)
    except FetchError as error:
        remedy = _OF_JWKS.get(error.kind, _REACH)
        findings.error("issuers.keys", where, f"{error.url}: {error}", remedy)
        return None
    return answer.body


def _read_jwks(
    known: KnownIssuer,
    url: str,
    document: bytes,
    findings: Findings,
    *,
    is_brief: bool,
) -> KeysFound | None:
    where = _name(known)
    try:
        found = read_keys(document, known.terms.algorithms)
    except JwksError as error:
        findings.error(
            "issuers.keys",
            where,
            f"{shown_url(url)}: {error}",
            "list the algorithm of its keys in algorithms, if that is what is missing",
        )
        return None
    count = _count(len(found.keys), "usable key")
    others = _count_for_encryption(document)
    left_out = f"; {_count(others, 'key')} for encryption left out" if others else ""
    findings.ok("issuers.keys", where, f"{shown_url(url)} has {count}{left_out}")
    if not is_brief:
        for key in found.keys:
            findings.ok("issuers.key", where, describe_key(key))
    for name, reason in found.unusable:
        findings.warn(
            "issuers.key",
            where,
            f"key {name} cannot be used: {reason}",
            "tokens that it signs are refused; see whether the issuer uses it",
        )
    return found


def describe_key(key: VerificationKey) -> str:
    """Return kid, algorithm and size of a key."""
    public_key = key.public_key
    size = key.algorithm.curve
    if isinstance(public_key, RSAPublicKey):
        size = f"{public_key.key_size} bits"
    shown = "" if size in ("", key.algorithm.name) else f", {size}"
    return f"key {key.kid}: {key.algorithm.name}{shown}"


def _count_for_encryption(document: bytes) -> int:
    # `read_keys` has read this document already.
    jwks: list[dict[str, object]] = read_object(document)["keys"]
    return sum(jwk.get("use") == "enc" for jwk in jwks)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _join(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
