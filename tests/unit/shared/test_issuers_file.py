"""The file of other issuers: what it can say, and what is refused."""

from __future__ import annotations

import pytest

from shared.configuration.issuers_file import (
    LONGEST_LIFETIME,
    MAX_ISSUERS,
    IssuersFileError,
    OtherIssuer,
    parse_issuers,
)
from shared.jose.algorithms import ALGORITHMS

ENTRY = """
[issuers.keycloak]
issuer = "https://id.example.com/realms/main"
audience = "orders"
"""


def one(more: str = "") -> OtherIssuer:
    return parse_issuers(ENTRY + more)["keycloak"]


def test_entry_of_two_lines_has_the_usual_values() -> None:
    found = one()
    assert (found.name, found.issuer) == (
        "keycloak",
        "https://id.example.com/realms/main",
    )
    assert (found.audience, found.jwks_url) == ("orders", "")
    assert found.algorithms == {"RS256"}
    assert found.types == {"jwt", "at+jwt", "application/jwt", "application/at+jwt"}
    assert (found.max_lifetime, found.required_claims) == (3_600, {"sub", "exp", "iat"})
    assert dict(found.claims) == {
        "client": ("azp",),
        "scopes": ("scope",),
        "roles": ("roles",),
        "user": ("preferred_username",),
        "session": ("sid",),
    }


def test_every_field_is_read() -> None:
    found = one("""
jwks_url = "https://id.example.com/keys?p=1"
algorithms = ["ES256", "EdDSA"]
types = ["application/AT+JWT", ""]
max_lifetime = 86400
required_claims = ["sub", "exp", "iat", "jti"]
[issuers.keycloak.claims]
client = "client_id"
roles = ["realm_access", "roles"]
""")
    assert found.jwks_url == "https://id.example.com/keys?p=1"
    assert found.algorithms == {"ES256", "EdDSA"}
    assert found.types == {"at+jwt", "application/at+jwt", ""}
    assert found.max_lifetime == 86_400
    assert found.required_claims == {"sub", "exp", "iat", "jti"}
    assert found.claims["client"] == ("client_id",)
    assert found.claims["roles"] == ("realm_access", "roles")
    assert found.claims["user"] == ("preferred_username",)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_can_be_listed(name: str) -> None:
    assert one(f'algorithms = ["{name}"]').algorithms == {name}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("algorithm = []", "there is no such field; the nearest is algorithms"),
        ('algorithms = ["none"]', "issuers.keycloak.algorithms: cannot be 'none'"),
        ('algorithms = ["HS256"]', "cannot be 'HS256'; choose of ES256, "),
        ('algorithms = "RS256"', "algorithms: must be a list of words"),
        ("types = []", "types: must be a list of texts"),
        ("types = [1]", "types: must be a list of texts"),
        ("max_lifetime = 0", f"max_lifetime: must be 1..{LONGEST_LIFETIME} seconds"),
        ("max_lifetime = 3e3", "max_lifetime: must be 1.."),
        ('required_claims = ["sub", "iat"]', "required_claims: must have exp, too"),
        ("required_claims = []", "must have exp, iat, sub, too"),
        ('jwks_url = "http://id.example.com/keys"', "jwks_url: must be https://"),
        ('jwks_url = "https://u:p@id.example.com/"', "jwks_url: must hold no user"),
        ("claims = 7", "claims: must be a table"),
        ('claims = { role = "x" }', "claims.role: there is no such field"),
        (
            'claims = { roles = "scp", scopes = "scp" }',
            "claims.roles: is the claim of the scopes",
        ),
        ("claims = { roles = [] }", "claims.roles: must be the name of a claim"),
        ('claims = { roles = ["a", 1] }', "claims.roles: must be the name of a claim"),
    ],
)
def test_wrong_field_is_named_with_its_rule(more: str, message: str) -> None:
    with pytest.raises(IssuersFileError) as caught:
        one(more)
    assert message in str(caught.value)
    assert str(caught.value).startswith("issuers.keycloak.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no issuer; begin each with [issuers.NAME]"),
        ("issuers = 3", "issuers: must be a table"),
        ("x = 3", "x: there is no such field"),
        ("[issuers.a\n", "not TOML"),
        ("[issuers.a]", "issuers.a.issuer: is missing"),
        ('[issuers.a]\nissuer = "https://a.test"', "issuers.a.audience: is missing"),
        ("[issuers.Own]", "issuers.Own: a name has a-z"),
        (
            "[issuers.own]",
            "issuers.own: the name stands for the issuer of Gatehouse; choose",
        ),
        (
            '[issuers.a]\naudience = "x"\nissuer = "a"',
            "issuers.a.issuer: must be https://",
        ),
        (
            '[issuers.a]\naudience = "x"\nissuer = "https://a.test/?b"',
            "issuers.a.issuer: must have no query",
        ),
        (
            '[issuers.a]\naudience = ""\nissuer = "https://a.test"',
            "issuers.a.audience: must be text of 1..256 characters",
        ),
        (
            ENTRY + ENTRY.replace("keycloak", "again"),
            "issuers.again.issuer: is that of issuers.keycloak already",
        ),
        ("a = " + "[" * 2_000, "nested too deeply"),
    ],
)
def test_file_that_cannot_be_used_is_refused(text: str, message: str) -> None:
    with pytest.raises(IssuersFileError) as caught:
        parse_issuers(text)
    assert message in str(caught.value)


def test_issuer_that_is_no_url_needs_the_address_of_its_keys() -> None:
    """RFC 7519, section 4.1.1: `iss` is any text."""
    text = '[issuers.a]\naudience = "x"\nissuer = "accounts"\n'
    found = parse_issuers(text + 'jwks_url = "https://a.test/keys"')
    assert found["a"].issuer == "accounts"


def test_number_of_issuers_is_bounded() -> None:
    def entries(count: int) -> str:
        return "".join(
            f'[issuers.i{n}]\nissuer = "https://{n}.test"\naudience = "x"\n'
            for n in range(count)
        )

    assert len(parse_issuers(entries(MAX_ISSUERS))) == MAX_ISSUERS
    with pytest.raises(IssuersFileError, match="at most 100"):
        parse_issuers(entries(MAX_ISSUERS + 1))
