"""The rules by which HAProxy checks a token, as a part of its configuration.

`jwt_verify` compares the signature alone, which is nine tenths of a check; so good ones
are remembered, in a stick table. HAProxy's JSON queries read a payload more
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
#: The stick table with the signatures that were good: a digest of token and key. A good
#: signature stays good, so an entry says nothing but that (R26, R27). What does not fit
#: takes the place of the oldest one, and costs a look at the signature.
SIGNATURES: Final = "gatehouse-signatures"
SIGNATURES_TABLE: Final = (
    "stick-table type binary len 32 size 100k expire 15m store gpt0"
)
#: A rule writes into a stick table by one of the three counters of a request alone.
_COUNTER: Final = 2

#: Names no key. Without it, a variable would keep what it was, as from a token that
#: another section has checked in the same request.
_NO_KEY: Final = "-"

_CLOSED: Final = (
    "http-request return status 503 hdr Cache-Control no-store hdr Retry-After 5"
)


class MapFiles(NamedTuple):
    """The files by which HAProxy names its maps, and its list of seconds.

    Attributes:
        window: the first and the last second of the window, as one range.
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
        *_within_window(maps),
        *_reading_token(maps),
        *_checking_token(terms),
        *_checking_signature(),
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


def _within_window(maps: MapFiles) -> Iterable[str]:
    yield "# closed without news: the seconds in which requests pass, as one range"
    yield f"{_CLOSED} unless {{ date -m int -f {maps.window} }}"


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
    yield "http-request set-var(txn.gh_token) http_auth_bearer(authorization)"
    yield "# the header must be that of one of our keys, byte for byte (R14 to R16)"
    yield (
        "http-request set-var(txn.gh_key) "
        f"var(txn.gh_token),field(1,.),map_str({maps.headers},{_NO_KEY})"
    )
    yield "http-request set-var(txn.gh_payload) var(txn.gh_token),field(2,.)"
    yield from _unset("claims")
    yield "http-request set-var(txn.gh_claims) var(txn.gh_payload),ub64dec"


def _checking_token(terms: NativeTerms) -> Iterable[str]:
    yield "# the payload as our issuer writes it, with iss and aud; HAProxy reads up to a"
    yield "# NUL, so no byte may be left over"
    size = "var(txn.gh_payload),length,mul(3),div(4)"
    yield f"http-request set-var(txn.gh_size) {size}"
    yield _unless(
        f"var(txn.gh_claims) -m reg {_quoted(_payload_form(terms))}",
        "var(txn.gh_claims),length,sub(txn.gh_size) eq 0",
    )
    yield "# its values lie behind so many bytes, and between quotation marks"
    yield from _unset("from_jti", "from_sid")
    before_exp = len(f'{{"iss":"{terms.issuer}","aud":"{terms.audience}","exp":')
    before_iat = before_exp + len('1234567890,"iat":')
    before_sub = before_iat + len('1234567890,"sub":"')
    for name, value in (
        # Bytes are no number; a text of digits is.
        ("exp", f"var(txn.gh_claims),bytes({before_exp},10),lower"),
        ("iat", f"var(txn.gh_claims),bytes({before_iat},10),lower"),
        ("from_sub", f"var(txn.gh_claims),bytes({before_sub})"),
        ("from_jti", _rest("from_sub", 5)),
        ("from_sid", _rest("from_jti", 13)),
    ):
        yield f"http-request set-var(txn.gh_{name}) {value}"
    leeway = terms.leeway
    yield f"# HAProxy compares with no number below 0: gh_now is {leeway} s ago"
    yield f"http-request set-var(txn.gh_now) date(-{leeway})"
    yield "# within its time"
    yield _unless(
        "var(txn.gh_exp),sub(txn.gh_now) gt 0",
        f"var(txn.gh_iat),sub(txn.gh_now) le {2 * terms.leeway}",
        f"var(txn.gh_exp),sub(txn.gh_iat) le {terms.max_lifetime}",
    )


def _checking_signature() -> Iterable[str]:
    yield "# signed by the key that its header names, now or when that was looked at: the"
    yield "# file of a key has a name that no other has"
    digest = "var(txn.gh_token),concat(' ',txn.gh_key),sha2(256)"
    yield f'http-request set-var(txn.gh_signed) "{digest}"'
    known = f"var(txn.gh_signed),table_gpt0({SIGNATURES})"
    yield f"http-request set-var(txn.gh_known) {known}"
    is_known = "{ var(txn.gh_known) -m int 1 }"
    verified = f"var(txn.gh_token),jwt_verify({ALGORITHM},txn.gh_key) eq 1"
    yield f"{_REFUSED} unless {is_known} or {{ {verified} }}"
    track = f"track-sc{_COUNTER} var(txn.gh_signed) table {SIGNATURES}"
    yield "# a text for which HAProxy has no room (tune.vars, malloc) becomes a 0 or a 1,"
    yield "# which would stand for every other such text"
    has_room = "{ var(txn.gh_signed),hex,length eq 64 }"
    yield f"http-request {track} if !{is_known} {has_room}"
    yield f"http-request sc-set-gpt0({_COUNTER}) 1 unless {is_known}"


def _checking_revocations(maps: MapFiles) -> Iterable[str]:
    yield "# not revoked: session, token, generation of the subject. A variable for which"
    yield "# HAProxy has no room (tune.vars, malloc) is not set, or to a number. from_sid is"
    yield "# a part of from_jti, and that of from_sub: where it is whole, so are they"
    minimum = _text("from_sub", 1, f",map_str_int({maps.minimums},0)")
    yield f"http-request set-var(txn.gh_minimum) {minimum}"
    jti = _text("from_jti", 1, f",map_str({maps.tokens})")
    sid = _text("from_sid", 1, f",map_str({maps.sessions})")
    yield (
        f"{_REFUSED} if {{ {sid} -m found }} or {{ {jti} -m found }} "
        "or !{ var(txn.gh_from_sid),length gt 20 }"
    )
    generation = _text("from_sid", 4, ",word(1,':,'),sub(txn.gh_minimum)")
    yield (
        f"{_REFUSED} unless {{ var(txn.gh_minimum) -m int 0 }} "
        f"or {{ {generation} ge 0 }}"
    )


def _checking_requirements(terms: NativeTerms) -> Iterable[str]:
    yield f"# what the policy {terms.policy} asks besides (R8)"
    yield from _unset("roles")
    for name, value in (
        ("client", _text("from_jti", 5)),
        ("scope", _text("from_jti", 9)),
        ("from_roles", _rest("from_sid", 6)),
        ("roles", _ROLES),
    ):
        yield f"http-request set-var(txn.gh_{name}) {value}"
    conditions = [f"var(txn.gh_scope) {_having([s])}" for s in terms.required_scopes]
    if terms.any_scopes:
        conditions.append(f"var(txn.gh_scope) {_having(terms.any_scopes)}")
    if terms.required_roles:
        conditions.append(f"var(txn.gh_roles) {_having(terms.required_roles)}")
    if terms.client_ids:
        names = "|".join(map(re.escape, terms.client_ids))
        form = _quoted(rf"^(?:{names})\z")
        conditions.append(f"var(txn.gh_client) -m reg {form}")
    for condition in conditions:
        yield _unless(condition, refusal=_INSUFFICIENT)


def _setting_identity() -> Iterable[str]:
    yield "# the identity, each header once, empty without a value (R10)"
    has_user = _text("after_roles", 4)
    yield from _unset("after_roles", "user")
    yield f"http-request set-var(txn.gh_after_roles) {_AFTER_ROLES}"
    yield (
        f"http-request set-var(txn.gh_user) {_text('after_roles', 6)} "
        f"if {{ {has_user} -m str username }}"
    )
    for header, value in (
        ("Subject", _between("from_sub", 1)),
        ("User", "var(txn.gh_user)"),
        ("Client", "var(txn.gh_client)"),
        ("Scope", "var(txn.gh_scope)"),
        ("Roles", "var(txn.gh_roles)"),
        ("Session", _between("from_sid", 1)),
    ):
        # The client's own were removed above.
        yield f'http-request add-header X-Auth-{header} "%[{value}]"'
    yield "http-request add-header X-Auth-Decision allow"


# --- parts of rules -------------------------------------------------------------------


def _unset(*names: str) -> Iterable[str]:
    """Return the rules that unset variables that a token may leave as they are.

    That is where a text has no such field, or is no base64url. Another section may have
    set them in the same request, for another token.
    """
    return [f"http-request unset-var(txn.gh_{name})" for name in names]


def _unless(*conditions: str, refusal: str = _REFUSED) -> str:
    """Return the rule that refuses unless all the conditions hold."""
    return f"{refusal} unless {' '.join(f'{{ {c} }}' for c in conditions)}"


def _text(of: str, place: int, then: str = "") -> str:
    """Return the expression for the text between two quotation marks of a variable.

    HAProxy looks at each byte up to the place, which costs 20 instructions a byte.
    """
    return f'"{_between(of, place)}{then}"'


def _between(of: str, place: int) -> str:
    r"""Return the same, to be put between quotation marks of the configuration."""
    return rf"""var(txn.gh_{of}),field({place},'\"')"""


def _rest(of: str, place: int) -> str:
    """Return the expression for all that begins at that place of a variable."""
    return rf'''"var(txn.gh_{of}),field({place},'\"',0)"'''


#: `:["a","b"` becomes `a b`.
_ROLES: Final = (
    '"var(txn.gh_from_roles),field(1,]),' r"""regsub('\",\"',' ',g),field(2,'\"')""" '"'
)
_AFTER_ROLES: Final = "var(txn.gh_from_roles),field(2,],0)"


def _payload_form(terms: NativeTerms) -> str:
    """Return the form of the payload that our issuer makes (issuer/tokens/minting.py).

    Possessive quantifiers: each text can be read in one way only.
    """
    word = f"{_CHAR}{{1,{MAX_IDENTIFIER_CHARS}}}+"
    words = f"(?:{_CHAR}++(?: {_CHAR}++)*+)?+"
    role, method = f'"{_ROLE_CHAR}{{1,{MAX_IDENTIFIER_CHARS}}}+"', f'"{_ROLE_CHAR}++"'
    roles, amr = (rf"\[(?:{w}(?:,{w})*+)?+\]" for w in (role, method))
    date = "[1-9][0-9]{9}"
    number = "(?:0|[1-9][0-9]{0,14})"
    members = ",".join(
        (
            rf'^\{{"iss":"{re.escape(terms.issuer)}"',
            f'"aud":"{re.escape(terms.audience)}"',
            f'"exp":{date}',
            f'"iat":{date}',
            f'"sub":"{word}"',
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
    methods = f'(?:,"amr":{amr},"acr":"{_CHAR}++")?+'
    status = rf'"status_list":\{{"idx":{number},"uri":"{_CHAR}++"\}}'
    return rf'{members}{username}{methods}(?:,"status":\{{{status}\}})?+\}}\z'


def _having(words: Sequence[str]) -> str:
    """Return the condition that one of these is in a list with spaces."""
    listed = "|".join(map(re.escape, words))
    return f"-m reg {_quoted(f'(?:^| )(?:{listed})(?: |$)')}"


def _quoted(text: str) -> str:
    """Return the text in the strong quotation marks of HAProxy's configuration."""
    return "'" + text.replace("'", "'\\''") + "'"
