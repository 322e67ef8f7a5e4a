"""The rules by which HAProxy checks a token, as a part of its configuration.

`jwt_verify` compares the signature alone. HAProxy's JSON queries read a payload more
loosely than we do, so no claim is taken from them. The rules accept a token only in the
exact bytes that our issuer makes: the header by a map, the payload by one regular
expression. No value in it has a quotation mark or a backslash, so each claim is at a
fixed place between quotation marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from shared.claims import (
    ALGORITHM,
    MAX_IDENTIFIER_CHARS,
    MAX_TOKEN_BYTES,
    MAX_USERNAME_CHARS,
)
from verifier.native.terms import InexpressibleError, NativeTerms

#: A character of a value: visible ASCII without what the identity headers would encode
#: (shared/identity_headers.py), and what JSON would escape.
_CHAR: Final = r"[!#$&-+\--\[\]-~]"
#: A role, which stands in a list, has no closing bracket besides.
_ROLE_CHAR: Final = r"[!#$&-+\--\[^-~]"
#: An identifier that a token may have. An entry with another key concerns no token that
#: passes.
WORD: Final = re.compile(rf"{_CHAR}{{1,{MAX_IDENTIFIER_CHARS}}}")
_ROLE: Final = re.compile(rf"{_ROLE_CHAR}+")
_POLICY_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]+")

#: The signatures of keys with 2,048, 3,072 and 4,096 bits, in their one spelling.
_SIGNATURE: Final = (
    "(?:[A-Za-z0-9_-]{341}[AQgw]|[A-Za-z0-9_-]{512}"
    "|[A-Za-z0-9_-]{682}[AEIMQUYcgkosw048])"
)
#: Sizes of keys whose signatures have this form, bits.
KEY_BITS: Final = (2_048, 3_072, 4_096)
_AUTHORIZATION: Final = (
    rf"^[Bb][Ee][Aa][Rr][Ee][Rr] (?=[!-~]{{1,{MAX_TOKEN_BYTES}}}\z)"
    rf"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.{_SIGNATURE}\z"
)

_REFUSED: Final = (
    "http-request return status 401 hdr Cache-Control no-store hdr WWW-Authenticate "
    '\'Bearer realm="gatehouse", error="invalid_token"\''
)
_INSUFFICIENT: Final = _REFUSED.replace("401", "403").replace(
    "invalid_token", "insufficient_scope"
)
_UNAUTHENTICATED: Final = _REFUSED.replace(', error="invalid_token"', "")
_CLOSED: Final = (
    "http-request return status 503 hdr Cache-Control no-store hdr Retry-After 5"
)


class MapFiles(NamedTuple):
    """The files by which HAProxy names its maps.

    Attributes:
        window: `window` to the first and the last second of the window.
        headers: a token's header segment to the path of the key.
        sessions: a revoked sid.
        tokens: a revoked jti.
        minimums: a subject to the least generation that is accepted.
    """

    window: Path
    headers: Path
    sessions: Path
    tokens: Path
    minimums: Path


def check_terms(terms: NativeTerms) -> None:
    """Check that HAProxy can check all of a policy.

    Raises:
        InexpressibleError: naming the policy, and every field that it cannot check.
    """
    faults = []
    for field, words, form in (
        ("issuer", [terms.issuer], WORD),
        ("audience", [terms.audience], WORD),
        ("required_scopes", terms.required_scopes, WORD),
        ("any_scopes", terms.any_scopes, WORD),
        ("required_roles", terms.required_roles, _ROLE),
        ("client_ids", terms.client_ids, WORD),
    ):
        faults += [
            f"{field}: {word!r} has a character that HAProxy's rules cannot read"
            for word in words
            if not form.fullmatch(word)
        ]
    if terms.claims:
        faults.append("claims: HAProxy reads no claims but those of our identity")
    if not _POLICY_NAME.fullmatch(terms.policy):
        faults.append("name: HAProxy's sections take letters, digits, '-', '_', '.'")
    if faults:
        raise InexpressibleError(
            f"policy {terms.policy}: HAProxy cannot check it: {'; '.join(faults)}"
        )


def policy_section(terms: NativeTerms, maps: MapFiles) -> str:
    """Return the section from which a frontend takes the rules of this policy.

    Raises:
        InexpressibleError: HAProxy cannot check all of it.
    """
    check_terms(terms)
    rules = [
        *_without_spoofed_headers(),
        *_within_window(terms, maps),
        *_reading_token(maps),
        *_checking_token(terms),
        *_checking_revocations(maps),
        *_checking_requirements(terms),
        *_setting_identity(),
    ]
    lines = [f"    {rule}" for rule in rules]
    return "\n".join([f"defaults gatehouse-{terms.policy}", "    mode http", *lines])


# --- the rules, in their order --------------------------------------------------------


def _without_spoofed_headers() -> Iterable[str]:
    yield "# identity headers of the client, in every spelling (R11)"
    yield "http-request del-header ^x[^a-z0-9]auth([^a-z0-9]|$) -m reg"


def _within_window(terms: NativeTerms, maps: MapFiles) -> Iterable[str]:
    leeway = terms.leeway
    yield "# closed without news: the first and the last second, in one value"
    yield f"# HAProxy compares with no number below 0: gh_now is {leeway} s ago"
    yield f"http-request set-var(txn.gh_now) date(-{leeway})"
    yield f"http-request set-var(txn.gh_window) str(window),map_str({maps.window})"
    opens = "var(txn.gh_window),field(1,:),sub(txn.gh_now)"
    closes = "var(txn.gh_window),field(2,:),sub(txn.gh_now)"
    yield f"{_CLOSED} unless {{ {opens} le {leeway} }} {{ {closes} gt {leeway} }}"


def _reading_token(maps: MapFiles) -> Iterable[str]:
    yield "# one credential, in its one form (R13, R17)"
    yield (
        f"{_UNAUTHENTICATED} if !{{ req.fhdr_cnt(authorization) eq 1 }} "
        "{ req.fhdr_cnt(authorization) eq 0 }"
    )
    yield (
        f"{_REFUSED} unless {{ req.fhdr_cnt(authorization) eq 1 }} "
        f"{{ req.fhdr(authorization) -m reg {_quoted(_AUTHORIZATION)} }}"
    )
    yield "http-request set-var(txn.gh_token) http_auth_bearer"
    yield "# the header must be that of one of our keys, byte for byte (R14 to R16)"
    yield (
        "http-request set-var(txn.gh_key) "
        f"var(txn.gh_token),field(1,.),map_str({maps.headers})"
    )
    yield "http-request set-var(txn.gh_claims) var(txn.gh_token),field(2,.),ub64dec"


def _checking_token(terms: NativeTerms) -> Iterable[str]:
    yield "# HAProxy reads up to a NUL: no byte of the payload may be left over"
    yield (
        "http-request set-var(txn.gh_size) "
        "var(txn.gh_token),field(2,.),length,mul(3),div(4)"
    )
    yield f"http-request set-var(txn.gh_iat) {_number(17)}"
    yield "# the payload as our issuer writes it; iss, aud, times; the signature"
    conditions = (
        f"var(txn.gh_claims) -m reg {_quoted(_payload_form(terms))}",
        "var(txn.gh_claims),length,sub(txn.gh_size) eq 0",
        f"{_number(15, 'txn.gh_now')} gt 0",
        f"var(txn.gh_iat),sub(txn.gh_now) le {2 * terms.leeway}",
        f"{_number(15, 'txn.gh_iat')} le {terms.max_lifetime}",
        f"var(txn.gh_token),jwt_verify({ALGORITHM},txn.gh_key) eq 1",
    )
    yield f"{_REFUSED} unless {' '.join(f'{{ {c} }}' for c in conditions)}"


def _checking_revocations(maps: MapFiles) -> Iterable[str]:
    yield "# not revoked: session, token, generation of the subject"
    yield (
        f"{_REFUSED} if {{ {_claim(32, f',map_str({maps.sessions})')} -m found }} "
        f"or {{ {_claim(20, f',map_str({maps.tokens})')} -m found }}"
    )
    yield (
        "http-request set-var(txn.gh_minimum) "
        f"{_claim(8, f',map_str_int({maps.minimums})')}"
    )
    yield (
        f"{_REFUSED} if {{ var(txn.gh_minimum) -m found }} "
        f"!{{ {_number(35, 'txn.gh_minimum')} ge 0 }}"
    )


def _checking_requirements(terms: NativeTerms) -> Iterable[str]:
    yield f"# what the policy {terms.policy} asks besides (R8)"
    for scope in terms.required_scopes:
        yield f"{_INSUFFICIENT} unless {{ {_claim(28)} {_containing([scope])} }}"
    if terms.any_scopes:
        form = _containing(terms.any_scopes)
        yield f"{_INSUFFICIENT} unless {{ {_claim(28)} {form} }}"
    yield f"http-request set-var(txn.gh_roles) {_ROLES}"
    if terms.required_roles:
        form = _containing(terms.required_roles)
        yield f"{_INSUFFICIENT} unless {{ var(txn.gh_roles) {form} }}"
    if terms.client_ids:
        names = "|".join(map(re.escape, terms.client_ids))
        form = _quoted(rf"^(?:{names})\z")
        yield f"{_INSUFFICIENT} unless {{ {_claim(24)} -m reg {form} }}"


def _setting_identity() -> Iterable[str]:
    yield "# the identity, each header once, empty without a value (R10)"
    yield f"http-request set-var(txn.gh_user) {_claim(6, of=_REST)} if {_HAS_USER}"
    for name, value in (
        ("Subject", _claim(8)),
        ("User", "var(txn.gh_user)"),
        ("Client", _claim(24)),
        ("Scope", _claim(28)),
        ("Roles", "var(txn.gh_roles)"),
        ("Session", _claim(32)),
    ):
        shown = value.strip('"')
        yield f'http-request set-header X-Auth-{name} "%[{shown}]"'
    yield "http-request set-header X-Auth-Decision allow"


# --- values of the payload ------------------------------------------------------------


def _claim(place: int, then: str = "", of: str = "var(txn.gh_claims)") -> str:
    r"""Return the expression for the text between two quotation marks."""
    return rf'''"{of},field({place},'\"'){then}"'''


def _number(place: int, less: str = "") -> str:
    """Return the expression for the number behind a name, as in `:17,`, less another
    one.
    """
    then = f",sub({less})" if less else ""
    return _claim(place, f",word(1,':,'){then}")


#: What follows the roles, and the roles with spaces between them.
_REST: Final = r"var(txn.gh_claims),field(37,'\"',0),field(2,],0)"
_ROLES: Final = (
    """"var(txn.gh_claims),field(37,'\\"',0),field(1,]),"""
    '''regsub('\\",\\"',' ',g),field(2,'\\"')"'''
)
_HAS_USER: Final = f"{{ {_claim(4, of=_REST)} -m str username }}"


def _payload_form(terms: NativeTerms) -> str:
    """Return the form of the payload that our issuer makes (issuer/tokens/minting.py).

    Possessive quantifiers: each text can be read in one way only.
    """
    word = f"{_CHAR}{{1,{MAX_IDENTIFIER_CHARS}}}+"
    words = f"(?:{_CHAR}++(?: {_CHAR}++)*+)?+"
    roles = rf'\[(?:"{_ROLE_CHAR}++"(?:,"{_ROLE_CHAR}++")*+)?+\]'
    date = "[1-9][0-9]{9}"
    number = "(?:0|[1-9][0-9]{0,14})"
    members = ",".join(
        (
            rf'^\{{"iss":"{re.escape(terms.issuer)}"',
            f'"sub":"{word}"',
            f'"aud":"{re.escape(terms.audience)}"',
            f'"exp":{date}',
            f'"iat":{date}',
            f'"jti":"{word}"',
            f'"client_id":"{word}"',
            f'"scope":"{words}"',
            f'"sid":"{word}"',
            f'"gen":{number}',
            f'"roles":{roles}',
            f'"auth_time":{number}',
        )
    )
    username = f'(?:,"username":"{_CHAR}{{1,{MAX_USERNAME_CHARS}}}+")?+'
    methods = f'(?:,"amr":{roles},"acr":"{_CHAR}++")?+'
    status = rf'"status_list":\{{"idx":{number},"uri":"{_CHAR}++"\}}'
    return rf'{members}{username}{methods}(?:,"status":\{{{status}\}})?+\}}\z'


def _containing(words: Sequence[str]) -> str:
    """Return the condition that one of these is in a list with spaces."""
    listed = "|".join(map(re.escape, words))
    return f"-m reg {_quoted(f'(?:^| )(?:{listed})(?: |$)')}"


def _quoted(text: str) -> str:
    """Return the text in the strong quotation marks of HAProxy's configuration."""
    return "'" + text.replace("'", "'\\''") + "'"
