"""Which headers are read, dialect by dialect, and no other (R3 to R6, R13)."""

from __future__ import annotations

import pytest

from verifier.check.denials import Denied, DenyReason
from verifier.check.forward_auth import (
    DIALECTS,
    HeaderList,
    PlainCheckRequest,
    Question,
    read_bearer,
    read_client,
    read_question,
    read_route,
)

NAMES = sorted(DIALECTS)
#: The headers that each dialect reads beside Authorization, from docs/gateways.md.
READ = {
    b"nginx": {b"x-original-method", b"x-original-uri", b"x-original-host"},
    b"envoy": set(),
    b"caddy": {b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"},
    b"haproxy": {b"x-original-method", b"x-original-uri", b"x-original-host"},
    b"traefik": {b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host"},
    b"apache": {b"x-original-method", b"x-original-uri", b"x-original-host"},
}
FORWARDING = {
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-method",
    b"x-forwarded-path",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-proto",
    b"x-forwarded-scheme",
    b"x-forwarded-server",
    b"x-forwarded-ssl",
    b"x-forwarded-uri",
    b"x-forwarded-url",
    b"x-forwarded-user",
    b"x-original-forwarded-for",
    b"x-original-host",
    b"x-original-method",
    b"x-original-uri",
    b"x-original-url",
    b"x-auth-request-redirect",
    b"x-envoy-original-path",
    b"x-http-method",
    b"x-http-method-override",
    b"x-real-ip",
    b"x-replaced-path",
    b"x-rewrite-url",
    b"x-url",
    b"x-auth-subject",
    b"x-auth-decision",
    b"proxy-authorization",
    b"x-authorization",
    b"cookie",
    b"via",
}
FOREIGN = [
    (dialect, header)
    for dialect in NAMES
    for header in sorted(FORWARDING - READ[dialect])
]
OWN = [(dialect, header) for dialect in NAMES for header in sorted(READ[dialect])]
BEARER = (b"authorization", b"Bearer t.o.k")


def ids(values: list[tuple[bytes, bytes]]) -> list[str]:
    return [b" ".join(value).decode() for value in values]


def ask(dialect: bytes, headers: HeaderList, rest: bytes = b"") -> Question:
    """Return token and client as the dialect reads them, however they are read."""
    target = b"/verify/" + dialect + rest
    request = PlainCheckRequest(b"GET", target, headers, peer_is_trusted=True)
    authorization, client = read_question(request, read_route(target))
    assert read_client(request, read_route(target)) == client
    return read_bearer(authorization), client


def refusal(dialect: bytes, headers: HeaderList) -> DenyReason:
    with pytest.raises(Denied) as caught:
        ask(dialect, headers)
    return caught.value.reason


def own_headers(dialect: bytes) -> list[tuple[bytes, bytes]]:
    """Return what the gateway itself sends."""
    values = {b"method": b"PUT", b"uri": b"/orders?x=1", b"host": b"shop.test"}
    return [
        BEARER,
        *((n, values[n.rpartition(b"-")[2]]) for n in sorted(READ[dialect])),
    ]


@pytest.mark.parametrize("dialect", NAMES)
def test_each_dialect_reads_its_gateways_headers(dialect: bytes) -> None:
    if READ[dialect]:
        expected = (b"t.o.k", (b"PUT", b"shop.test", b"/orders?x=1"))
        assert ask(dialect, own_headers(dialect)) == expected
    else:
        expected = (b"t.o.k", (b"GET", b"shop.test", b"/orders?x=1"))
        headers = [*own_headers(dialect), (b"host", b"shop.test")]
        assert ask(dialect, headers, rest=b"/orders?x=1") == expected


@pytest.mark.parametrize(("dialect", "header"), FOREIGN, ids=ids(FOREIGN))
def test_cve_2026_35051_a_foreign_header_is_ignored(
    dialect: bytes, header: bytes
) -> None:
    """R3 (also CVE-2026-54764, GHSA-vhr5-ggp3-qq85): with any value, once or
    twice, before or after, with `-` or `_`."""
    own = own_headers(dialect)
    plain = ask(dialect, own)
    values = (b"/public", b"DELETE", b"a, b", b"", b"\xff\x00")
    names = {header, header.replace(b"-", b"_")}
    for foreign in ((name, value) for name in names for value in values):
        assert ask(dialect, [foreign, *own]) == plain
        assert ask(dialect, [*own, foreign, foreign]) == plain


@pytest.mark.parametrize(("dialect", "header"), FOREIGN, ids=ids(FOREIGN))
def test_a_foreign_header_does_not_replace_a_missing_one(
    dialect: bytes, header: bytes
) -> None:
    question = ask(dialect, [BEARER, (header, b"/public")])
    method = b"GET" if dialect == b"envoy" else None
    assert question == (b"t.o.k", (method, None, None))


@pytest.mark.parametrize(("dialect", "header"), OWN, ids=ids(OWN))
def test_ghsa_5m6w_wvh7_57vm_repeated_header_is_refused(
    dialect: bytes, header: bytes
) -> None:
    """R4: also when both agree, and under a second spelling, alone or beside."""
    own = own_headers(dialect)
    again = next(h for h in own if h[0] == header)
    assert refusal(dialect, [*own, again]) is DenyReason.FORWARDED_REPEATED
    words = header.split(b"-")
    spellings = [b"_".join(words), b"_".join(words[:2]) + b"-" + words[2]]
    spellings.append(b"-".join(words[:2]) + b"_" + words[2])
    for spelling in spellings:
        alias = (spelling, b"/public")
        for headers in ([*own, alias], [alias, *own], [BEARER, alias]):
            assert refusal(dialect, headers) is DenyReason.FORWARDED_REPEATED


@pytest.mark.parametrize("dialect", [n for n in NAMES if READ[n]])
@pytest.mark.parametrize("uri", [b"/a, /b", b"/a,/b", b"/a /b", b"/a HTTP/1.1"])
def test_two_paths_in_one_value_are_refused(dialect: bytes, uri: bytes) -> None:
    """R4: a comma list where one value belongs."""
    headers = [BEARER, (DIALECTS[dialect].uri_header, uri)]
    assert refusal(dialect, headers) is DenyReason.FORWARDED_REPEATED


@pytest.mark.parametrize("dialect", NAMES)
def test_two_credentials_are_refused(dialect: bytes) -> None:
    """R4: none is picked; also when both are the same."""
    for second in (BEARER, (b"authorization", b"Basic YTpi"), (b"authorization", b"")):
        for headers in ([BEARER, second], [second, BEARER]):
            assert refusal(dialect, headers) is DenyReason.CREDENTIAL_REPEATED


@pytest.mark.parametrize("dialect", NAMES)
def test_missing_credential_differs_from_a_bad_one(dialect: bytes) -> None:
    assert refusal(dialect, []) is DenyReason.CREDENTIAL_MISSING
    # RFC 6750, section 2.3: not in a query, and cookies are another trade.
    with pytest.raises(Denied) as caught:
        ask(dialect, [(b"cookie", b"token=t.o.k")], rest=b"?access_token=t.o.k")
    assert caught.value.reason is DenyReason.CREDENTIAL_MISSING


@pytest.mark.parametrize(
    "authorization",
    [b"Bearer t", b"bearer t", b"BEARER t", b"bEaReR t", b"Bearer   t"],
)
def test_the_scheme_is_case_insensitive_and_followed_by_spaces(
    authorization: bytes,
) -> None:
    """RFC 6750, section 2.1; RFC 9110, section 11.1."""
    assert read_bearer(authorization) == b"t"


@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        b" ",
        b"Bearer",
        b"Bearer ",
        b"Bearer   ",
        b" Bearer t",
        b"t",
        b"Basic dXNlcjpwYXNz",
        b"DPoP t",
        b"Bearertoken t",
        b"Bearer\tt",
        b"Bearer t x",
        b"Bearer t ",
        b"Bearer t\t",
        b"Bearer \xff",
        b"Bearer: t",
    ],
)
def test_cve_2026_25748_a_malformed_credential_is_not_anonymous(
    authorization: bytes,
) -> None:
    """R13: a refusal, never "no credential"."""
    with pytest.raises(Denied) as caught:
        read_bearer(authorization)
    assert caught.value.reason is DenyReason.CREDENTIAL_MALFORMED


@pytest.mark.parametrize(
    "authorization", [b"Bearer a, Bearer b", b"Bearer a,Bearer b", b"Bearer a,", b","]
)
def test_a_comma_list_of_credentials_is_refused(authorization: bytes) -> None:
    """R4: as Envoy and haproxy-auth-request join two lines."""
    with pytest.raises(Denied) as caught:
        read_bearer(authorization)
    assert caught.value.reason is DenyReason.CREDENTIAL_REPEATED


# --- the check path ------------------------------------------------------------------


@pytest.mark.parametrize("dialect", NAMES)
def test_the_check_path_names_dialect_and_policy(dialect: bytes) -> None:
    for target, policy_name in (
        (b"/verify/" + dialect, ""),
        (b"/verify/" + dialect + b"/p/orders", "orders"),
    ):
        route = read_route(target)
        assert route.dialect is DIALECTS[dialect]
        assert (route.policy_name, route.client_uri) == (policy_name, None)


@pytest.mark.parametrize("dialect", [n for n in NAMES if READ[n]])
@pytest.mark.parametrize(
    "query",
    [
        b"?",
        b"?x=1&y=%20z",
        b"?p/lax",
        b"?/p/lax",
        b"?p=lax",
        b"?policy=lax",
        b"?x=/../p/lax",
        b"??p/lax",
    ],
)
def test_the_clients_query_that_caddy_appends_chooses_nothing(
    dialect: bytes, query: bytes
) -> None:
    """docs/design.md, "What a gateway sees": never taken from a query."""
    path = b"/verify/" + dialect
    assert read_route(path + query) == read_route(path)
    named = path + b"/p/strict"
    assert read_route(named + query) == read_route(named)


@pytest.mark.parametrize(
    ("rest", "policy_name", "client_uri"),
    [
        (b"", "", None),
        (b"/", "", b"/"),
        (b"/orders?x=1", "", b"/orders?x=1"),
        (b"/b%2Dc/../q", "", b"/b%2Dc/../q"),
        (b"//p/lax", "", b"//p/lax"),
        (b"?p/lax", "", b"?p/lax"),
        (b"/p/strict", "strict", None),
        (b"/p/strict/", "strict", b"/"),
        (b"/p/strict/orders?x=1", "strict", b"/orders?x=1"),
        (b"/p/strict/p/lax/orders", "strict", b"/p/lax/orders"),
        (b"/p/strict?x=/p/lax", "strict", b"?x=/p/lax"),
        (b"/p", "", b"/p"),
        (b"/pp/lax", "", b"/pp/lax"),
        (b"/P/lax", "", b"/P/lax"),
        (b"/%70/lax", "", b"/%70/lax"),
    ],
)
def test_envoy_puts_the_clients_path_behind_its_own(
    rest: bytes, policy_name: str, client_uri: bytes | None
) -> None:
    route = read_route(b"/verify/envoy" + rest)
    assert (route.policy_name, route.client_uri) == (policy_name, client_uri)


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"/",
        b"/verify",
        b"/verify/",
        b"/verify/unknown",
        b"/verify/NGINX",
        b"/verify//nginx",
        b"/verify/nginx/",
        b"/verify/nginx/x",
        b"/verify/nginx/p",
        b"/verify/nginx/p/",
        b"/verify/nginx/p/?x",
        b"/verify/nginx/p//x",
        b"/verify/nginx/p/a/",
        b"/verify/nginx/p/a/b",
        b"/verify/nginx/../envoy",
        b"/verify/nginx%2fp%2flax",
        b"/verify/nginx;p/lax",
        b"/verify/envoy/p/",
        b"/verify/envoy/p//orders",
        b"/verify/envoy/p/?x",
        b"/verify?nginx",
        b"/verify/?nginx",
        b"/healthz",
        b"/Verify/nginx",
        b"http://verifier/verify/nginx",
        b"\xff",
    ],
)
def test_any_other_check_path_is_unknown(target: bytes) -> None:
    with pytest.raises(Denied) as caught:
        read_route(target)
    assert caught.value.reason is DenyReason.ROUTE_UNKNOWN
