"""What OAuth clients learn of a resource: challenges and metadata (RFC 9728)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.support.gate_counts import counts_of
from tests.support.gatehouse_verifier import started
from tests.support.policy_questions import NOW, TOKEN
from tests.support.tokens import ISSUER
from verifier.check.decision import CheckPaths
from verifier.check.denials import REFUSALS, DenyReason
from verifier.check.policy import PolicyBook, PolicyError
from verifier.policies.document import parse_policies

URL = "https://mcp.example.com/.well-known/oauth-protected-resource"
MCP = """
[policies.mcp]
required_scopes = ["mcp:use"]
resource_metadata = { resource = "https://mcp.example.com/" }
[[policies.mcp.rules]]
path = "/files/**"
any_scopes = ["files:write", "files:read"]
[[policies.mcp.rules]]
path = "/health"
public = true
[[policies.mcp.rules]]
path = "/maybe"
optional = true
[[policies.mcp.rules]]
path = "/old"
max_auth_age = 900
"""


async def challenge(uri: bytes | None, policies: str = MCP, **claims: Any) -> bytes:
    verifier = await started(policies=policies)
    token = verifier.issuer.mint(**claims) if claims else None
    headers = [(b"x-original-method", b"GET")]
    if uri is not None:
        headers.append((b"x-original-uri", uri))
    answer = verifier.check(token, target=b"/verify/nginx/p/mcp", headers=headers)
    assert answer.status in (401, 403)
    names = [name for name, _ in answer.headers]
    assert len(set(names)) == len(names)
    return dict(answer.headers)[b"WWW-Authenticate"]


async def test_challenge_says_where_the_metadata_is_and_what_is_needed() -> None:
    """RFC 9728, section 5.1; RFC 6750, section 3."""
    assert (
        await challenge(b"/files/a")
        == (
            f'Bearer realm="gatehouse", resource_metadata="{URL}", '
            'scope="files:read files:write mcp:use"'
        ).encode()
    )


@pytest.mark.parametrize(
    ("uri", "claims", "error", "scopes"),
    [
        (b"/files/a", {"exp": 5}, b"invalid_token", b"files:read files:write mcp:use"),
        (
            b"/files/a",
            {"scope": "mcp:use"},
            b"insufficient_scope",
            b"files:read files:write mcp:use",
        ),
        # No rule matches, so only the policy's own scopes are known.
        (b"/nothing", {"scope": "mcp:use"}, b"insufficient_scope", b"mcp:use"),
        (b"/a/../b", {"exp": 5}, b"invalid_request", b"mcp:use"),
        (None, {"exp": 5}, b"invalid_request", b"mcp:use"),
    ],
)
async def test_every_refusal_names_both(
    uri: bytes | None, claims: dict[str, Any], error: bytes, scopes: bytes
) -> None:
    found = await challenge(uri, **claims)
    assert b'error="' + error + b'"' in found
    assert b'resource_metadata="' + URL.encode() + b'"' in found
    assert found.endswith(b', scope="' + scopes + b'"')


async def test_rule_is_named_though_the_token_was_refused_first() -> None:
    """The client asks for the right scopes at once, not after its second refusal."""
    policies = MCP.split('[[policies.mcp.rules]]\npath = "/health"')[0]
    for claims in ({}, {"exp": 5}):
        found = await challenge(b"/files/a", policies, **claims)
        assert found.endswith(b', scope="files:read files:write mcp:use"')
        found = await challenge(b"/nothing", policies, **claims)
        assert found.endswith(b', scope="mcp:use"')


async def test_optional_path_asks_for_no_scope() -> None:
    found = await challenge(b"/maybe", exp=5)
    assert found.endswith(b'resource_metadata="' + URL.encode() + b'"')


async def test_policy_without_metadata_names_none() -> None:
    policies = '[policies.mcp]\nrequired_scopes = ["a"]'
    found = await challenge(b"/", policies, scope="b")
    assert b"resource_metadata" not in found
    assert b"scope=" not in found


@pytest.mark.parametrize(
    ("own", "rule", "expected"),
    [(900, 0, 900), (0, 60, 60), (900, 60, 60), (60, 900, 60)],
)
async def test_old_login_is_answered_with_the_age_that_is_needed(
    own: int, rule: int, expected: int
) -> None:
    """RFC 9470, section 3."""
    policies = "[policies.mcp]\n" + (f"max_auth_age = {own}\n" if own else "")
    policies += '[[policies.mcp.rules]]\npath = "/**"\n'
    policies += f"max_auth_age = {rule}\n" if rule else ""
    found = await challenge(b"/", policies, auth_time=NOW - 90_000)
    assert b'error="insufficient_user_authentication"' in found
    assert found.endswith(b', max_age="%d"' % expected)


async def test_trouble_of_ours_has_no_challenge() -> None:
    verifier = await started(policies=MCP)
    verifier.clock.advance(100_000)
    headers = [(b"x-original-method", b"GET"), (b"x-original-uri", b"/files/a")]
    answer = verifier.check(None, target=b"/verify/nginx/p/mcp", headers=headers)
    assert answer.status == 503
    assert b"WWW-Authenticate" not in dict(answer.headers)


async def test_fault_in_the_rules_is_an_answer() -> None:
    """The search for the challenge's rule raised the fault out of the gate."""
    closed = MCP.replace("public = true", "").replace("optional = true", "")
    headers = [(b"x-original-method", b"GET"), (b"x-original-uri", b"/files/a")]
    for policies, reason in (MCP, "internal_error"), (closed, "credential_missing"):
        verifier = await started(policies=policies)
        # A fault of ours: no policy file can make such a tree.
        object.__setattr__(verifier.gate.policies.policies["mcp"], "_tree", None)
        answer = verifier.check(None, target=b"/verify/nginx/p/mcp", headers=headers)
        assert answer.status == REFUSALS[DenyReason(reason)].status
        assert counts_of(verifier.gate) == {reason: 1}


@pytest.mark.parametrize("reason", DenyReason)
def test_all_parameters_can_stand_in_a_challenge(reason: DenyReason) -> None:
    """Nothing that a policy file may have ends the quotes or the line."""
    from verifier.check.answers import challenge_parameters

    policy = parse_policies(MCP, TOKEN)["mcp"]
    for rule in (None, *policy.rules):
        found = challenge_parameters(reason, policy, rule)
        assert bool(found) is (REFUSALS[reason].status != 503)
        assert found.count(b'"') == 2 * found.count(b'="')
        assert not {*b"\r\n\\"} & {*found}


# --- the document ---------------------------------------------------------------------


def document(metadata: str) -> dict[str, Any]:
    policies = parse_policies(f"[policies.a.resource_metadata]\n{metadata}", TOKEN)
    paths = CheckPaths(PolicyBook(policies))
    (answer,) = paths.documents.values()
    headers = dict(answer.headers)
    assert headers[b"Content-Type"] == b"application/json"
    assert headers[b"Content-Length"] == b"%d" % len(answer.body)
    assert headers[b"Access-Control-Allow-Origin"] == b"*"
    found: dict[str, Any] = orjson.loads(answer.body)
    return found


def test_document_names_the_issuer_unless_the_file_names_servers() -> None:
    """RFC 9728, section 2."""
    assert document('resource = "https://a.test/mcp"') == {
        "resource": "https://a.test/mcp",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
    }
    full = document("""
        resource = "https://a.test"
        authorization_servers = ["https://b.test", "https://c.test/x"]
        scopes_supported = ["b", "a"]
        resource_name = "Orders, größer"
        resource_documentation = "https://a.test/docs"
        resource_policy_uri = "https://a.test/policy"
        resource_tos_uri = "https://a.test/terms"
        """)
    assert full["authorization_servers"] == ["https://b.test", "https://c.test/x"]
    assert full["scopes_supported"] == ["a", "b"]
    assert full["resource_name"] == "Orders, größer"
    assert len(full) == 8


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ("https://a.test", "https://a.test/.well-known/oauth-protected-resource"),
        ("https://a.test/", "https://a.test/.well-known/oauth-protected-resource"),
        (
            "https://a.test:8443/mcp/v1",
            "https://a.test:8443/.well-known/oauth-protected-resource/mcp/v1",
        ),
        (
            "http://127.0.0.1:8080/x/",
            "http://127.0.0.1:8080/.well-known/oauth-protected-resource/x/",
        ),
        ("http://[::1]", "http://[::1]/.well-known/oauth-protected-resource"),
    ],
)
def test_well_known_path_is_between_host_and_path(resource: str, expected: str) -> None:
    """RFC 9728, section 3.1."""
    text = f'[policies.a.resource_metadata]\nresource = "{resource}"'
    metadata = parse_policies(text, TOKEN)["a"].resource_metadata
    assert metadata is not None
    assert metadata.url == expected


GOOD = 'resource = "https://a.test"\n'


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ("", "resource_metadata.resource: is missing"),
        ('resource = ""', "resource_metadata.resource: '' is no https URL"),
        ('resource = "http://a.test"', "must begin with https://"),
        ('resource = "ftp://a.test"', "is no https URL"),
        ('resource = "https://"', "is no https URL"),
        ('resource = "https://u:p@a.test"', "no user name"),
        ('resource = "ftp://u:p@a.test"', "no user name"),
        ('resource = "https://a.test:0/"', "is no https URL"),
        ('resource = "https://a.test:99999/"', "is no https URL"),
        ('resource = "https://a.test/?a"', "no query and no fragment"),
        ('resource = "https://a.test/#a"', "no query and no fragment"),
        ('resource = "https://a.test/\\"x"', "is no https URL"),
        ('resource = "https://a.test/\\\\"', "is no https URL"),
        ('resource = "https://a.test/\\r\\nX: y"', "is no https URL"),
        ('resource = "https://a.test/é"', "is no https URL"),
        (f'resource = "https://a.test/{"x" * 500}"', "at most 500 characters"),
        (GOOD + "authorization_servers = []", "authorization_servers: must not be"),
        (GOOD + "authorization_servers = [1]", "must be a list of URLs"),
        (GOOD + 'authorization_servers = ["a.test"]', "is no https URL"),
        (GOOD + "scopes_supported = ['a\"b']", "cannot stand in a challenge"),
        (GOOD + 'resource_name = ""', "resource_name: must be a text of 1..200"),
        (GOOD + 'resource_names = ""', "the nearest is resource_name"),
        (GOOD + 'resource_tos_uri = "//u:p@a.test"', "no user name"),
        (GOOD + 'resource_tos_uri = "x"', "resource_tos_uri: 'x' is no https URL"),
    ],
)
def test_metadata_that_is_wrong_is_refused_with_its_field(
    metadata: str, named: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policies(f"[policies.a.resource_metadata]\n{metadata}", TOKEN)
    assert named in str(caught.value)
    # A password in a URL would go into the log and to `/status`.
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("scopes", "named"),
    [
        ("['a\"b']", "cannot stand in a challenge"),
        ("['größe']", "cannot stand in a challenge"),
        (str([f"scope{number:04}" for number in range(120)]), "over 1000 characters"),
    ],
)
@pytest.mark.parametrize("field", ["required_scopes", "any_scopes"])
@pytest.mark.parametrize("where", ["", "[[policies.a.rules]]\npath = '/x'\n"])
def test_scopes_that_no_challenge_can_name_are_refused(
    scopes: str, named: str, field: str, where: str
) -> None:
    metadata = "resource_metadata = { resource = 'https://a.test' }\n"
    text = f"[policies.a]\n{metadata}{where}{field} = {scopes}"
    with pytest.raises(PolicyError) as caught:
        parse_policies(text, TOKEN)
    assert named in str(caught.value)
    # Without metadata nothing is said of them.
    parse_policies(text.replace(metadata, ""), TOKEN)


def test_document_is_bounded() -> None:
    servers = [f"https://{number}.test/{'x' * 400}" for number in range(30)]
    with pytest.raises(PolicyError, match="over 8192 bytes"):
        document(f"{GOOD}authorization_servers = {servers}")
