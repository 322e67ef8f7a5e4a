"""Checks a sample token of another issuer, and shows the facts that would be sent.

The code of the gate decides. Nothing of the payload is shown before the signature was
verified, and the token never is (R35).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from shared.checking.findings import Findings
from shared.jose.jws import JwsError, parse_compact
from shared.jose.strict_json import StrictJsonError, read_object
from shared.jose.verification_keys import KeysFound
from verifier.check.claims import (
    ClaimNames,
    Claims,
    read_claims,
    read_unverified_iss,
)
from verifier.check.denials import Denied, DenyReason
from verifier.check.policy import IssuerTerms, KnownIssuer, TokenPolicy
from verifier.check.trust import Trust, keys_by_id
from verifier.check.verify import REASON_OF, SignedToken, check_time, read_signed
from verifier.checking.claim_suggestions import find_claim, spell_path, suggest_paths
from verifier.policies.meanings import MEANINGS

#: A word of a header that is shown: the name of an algorithm, or a media type.
_WORD: Final = re.compile(r"[A-Za-z0-9.+/_-]{1,64}")
#: The identity header of each fact.
_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "client": "X-Auth-Client",
        "scopes": "X-Auth-Scope",
        "roles": "X-Auth-Roles",
        "user": "X-Auth-User",
        "session": "X-Auth-Session",
    }
)
#: Claims that are read wherever the facts are.
_STANDARD: Final = ("iss", "sub", "aud", "exp", "iat", "nbf", "jti")
#: Names for facts of which there are none.
_NOWHERE: Final = ClaimNames(*(("(nowhere)",) for _ in ClaimNames._fields))
_NO_SUCH_FACT: Final = "leave it so if tokens for your API do not have one"
_CHECK: Final = "issuers.token"


class Facts(NamedTuple):
    """What a gateway would send to the application about the sample token.

    Attributes:
        issuer: the configured name.
        subject, client, user, session: texts, empty when the token has none.
        scopes, roles: in their order.
    """

    issuer: str
    subject: str
    client: str
    scopes: tuple[str, ...]
    roles: tuple[str, ...]
    user: str
    session: str


def choose_issuer(
    token: bytes, issuers: Iterable[KnownIssuer], findings: Findings
) -> KnownIssuer | None:
    """Return the issuer that a token names; None when there is none, which is found.

    The `iss` itself is not shown: the token is not verified.
    """
    known = {one.terms.issuer: one for one in issuers}
    try:
        iss = read_unverified_iss(parse_compact(token).unverified_payload)
    except JwsError as error:
        _refuse(findings, "token", REASON_OF[error.fault], "")
        return None
    except Denied as denied:
        _refuse(findings, "token", denied.reason, "it has no iss")
        return None
    if iss in known:
        return known[iss]
    hints = [_compare(iss, one) for one in known.values()]
    detail = "; ".join(hint for hint in hints if hint) or "none is similar"
    _refuse(findings, "token", DenyReason.ISSUER_MISMATCH, detail)
    return None


def _compare(iss: str, known: KnownIssuer) -> str:
    """Return how an `iss` differs from that of an issuer; empty when in all."""
    where, issuer = f"issuers.{known.terms.name}.issuer", known.terms.issuer
    if iss.rstrip("/") == issuer.rstrip("/"):
        has_slash = issuer.endswith("/")
        return f"{where} has {'a' if has_slash else 'no'} slash at its end"
    if iss.casefold() == issuer.casefold():
        return f"{where} differs in upper and lower case"
    try:
        theirs, ours = urlsplit(iss), urlsplit(issuer)
    except ValueError:
        return ""
    if theirs.netloc == ours.netloc and ours.netloc:
        part = "scheme" if theirs.path == ours.path else "path"
        return f"{where} has the same host and another {part}"
    return ""


def check_sample(
    token: bytes, terms: IssuerTerms, found: KeysFound, now: int, findings: Findings
) -> Facts | None:
    """Verify a token with the issuer's keys, and show what would be sent.

    Args:
        token: the sample.
        terms: of its issuer.
        found: the keys of its issuer.
        now: Unix seconds.
        findings: gets what was found.

    Returns:
        The facts; None unless the issuer signed the token, in a form that can be used.
    """
    where = f"issuers.{terms.name}"
    trust = Trust(terms.issuer)
    trust.trust_keys(terms.issuer, keys_by_id(found.keys), 1)
    policy = TokenPolicy((terms,))
    try:
        signed = read_signed(token, trust.snapshot, policy, 0)
    except (Denied, JwsError) as error:
        reason = error.reason if isinstance(error, Denied) else REASON_OF[error.fault]
        _refuse(findings, where, reason, _explain(reason, token, terms, found))
        return None
    try:
        check_time(signed, policy.leeway, now)
    except Denied as denied:
        _refuse(findings, where, denied.reason, _explain_time(signed, now))
    else:
        shown = (
            f"good, signed by {signed.kid}, and expires in {signed.ends_at - now:.0f} s"
        )
        findings.ok(_CHECK, where, f"the sample token is {shown}")
    payload = read_object(parse_compact(token).unverified_payload)
    facts = _facts_of(terms.name, signed.claims)
    _show_facts(where, facts, terms.claims or ClaimNames(), payload, findings)
    return facts


def _refuse(findings: Findings, where: str, reason: DenyReason, detail: str) -> None:
    shown = f"the sample token is refused, {reason.value}"
    findings.error(
        _CHECK, where, f"{shown}: {detail}" if detail else shown, MEANINGS[reason]
    )


def _explain(
    reason: DenyReason, token: bytes, terms: IssuerTerms, found: KeysFound
) -> str:
    """Return what of the token does not fit; empty when the reason says all."""
    match reason:
        case DenyReason.ALG_NOT_ALLOWED | DenyReason.TYP_NOT_ALLOWED:
            return _explain_header(token, reason, terms)
        case DenyReason.KID_UNKNOWN:
            return _explain_kid(token, found)
        case DenyReason.CLAIM_MISSING | DenyReason.CLAIMS_MALFORMED:
            return _explain_claims(token, terms)
        case DenyReason.AUDIENCE_MISMATCH:
            aud = _payload_of(token).get("aud", [])
            values = [aud] if isinstance(aud, str) else aud
            has = ", ".join(values) or "missing"
            return f"aud is {has}, and audience is {terms.audience}"
        case DenyReason.LIFETIME_TOO_LONG:
            payload = _payload_of(token)
            lifetime = payload["exp"] - payload["iat"]
            return (
                f"it lives {lifetime:.0f} s, and max_lifetime is {terms.max_lifetime}"
            )
        case _:
            return ""


def _explain_header(token: bytes, reason: DenyReason, terms: IssuerTerms) -> str:
    """Return what the header has, and the field of the file that does not list it."""
    if reason is DenyReason.ALG_NOT_ALLOWED:
        member, field, accepted = "alg", "algorithms", terms.algorithms
    else:
        member, field, accepted = "typ", "types", terms.accepted_typs
    value = parse_compact(token).unverified_header.get(member)
    if value is None:
        shown = f"no {member}"
    elif isinstance(value, str) and _WORD.fullmatch(value):
        shown = f"{member} {value}"
    else:
        shown = f"no usable {member}"
    # `application/` may be left out: the file's short form says the same.
    words = sorted(
        word or '""' for word in accepted if not word.startswith("application/")
    )
    return f"its header has {shown}, and {field} lists {', '.join(words)}"


def _explain_kid(token: bytes, found: KeysFound) -> str:
    """Return why no key is found; the kid is shown only if the issuer's set has it."""
    kid = parse_compact(token).unverified_header.get("kid")
    for name, why in found.unusable:
        if name == kid:
            return f"its key {name} cannot be used: {why}"
    return f"the usable keys are {', '.join(key.kid for key in found.keys)}"


def _explain_claims(token: bytes, terms: IssuerTerms) -> str:
    """Return which claim is missing or malformed; the signature was good."""
    payload = _payload_of(token)
    if not payload:
        return "its payload is no strict JSON object"
    missing = sorted(terms.required_claims - payload.keys())
    if missing:
        return f"it has no {', '.join(missing)}"
    wrong = [name for name in _STANDARD if not _can_be_read(payload, name, _NOWHERE)]
    for fact, path in (terms.claims or ClaimNames())._asdict().items():
        names = _NOWHERE._replace(**{fact: path})
        if not _can_be_read(payload, path[0], names):
            wrong.append(f"{'.'.join(path)} (claims.{fact})")
    return f"another type or range is expected of {', '.join(wrong)}"


def _can_be_read(payload: Mapping[str, Any], name: str, names: ClaimNames) -> bool:
    """Return whether the gate can read a claim if it stands alone."""
    alone = {name: payload[name]} if name in payload else {}
    try:
        read_claims(json.dumps(alone).encode(), frozenset(), names=names)
    except Denied:
        return False
    return True


def _payload_of(token: bytes) -> dict[str, Any]:
    """Return the payload of a token whose signature was good; empty when it is none."""
    try:
        return read_object(parse_compact(token).unverified_payload)
    except StrictJsonError:
        return {}


def _explain_time(signed: SignedToken, now: int) -> str:
    if signed.ends_at <= now:
        return f"it ended {now - signed.ends_at:.0f} s ago"
    return f"it begins in {signed.begins_at - now:.0f} s"


def _facts_of(name: str, claims: Claims) -> Facts:
    return Facts(
        issuer=name,
        subject=claims.sub,
        client=claims.client_id,
        scopes=claims.scopes,
        roles=claims.roles,
        user=claims.username,
        session=claims.sid,
    )


def _show_facts(
    where: str,
    facts: Facts,
    names: ClaimNames,
    payload: Mapping[str, Any],
    findings: Findings,
) -> None:
    findings.ok("issuers.fact", f"{where}.sub", f"X-Auth-Subject: {facts.subject}")
    for fact, path in names._asdict().items():
        concerns = f"{where}.claims.{fact}"
        if find_claim(payload, path) is None:
            remedy = _suggest(fact, payload)
            shown = f"the sample token has nothing at {'.'.join(path)}"
            findings.warn("issuers.fact", concerns, shown, remedy)
            continue
        value = getattr(facts, fact)
        text = value if isinstance(value, str) else " ".join(value)
        findings.ok("issuers.fact", concerns, f"{_HEADERS[fact]}: {text}".rstrip())


def _suggest(fact: str, payload: Mapping[str, Any]) -> str:
    paths = suggest_paths(fact, payload)
    if not paths:
        return _NO_SUCH_FACT
    return f"it may be {' or '.join(f'{fact} = {spell_path(p)}' for p in paths)}"
