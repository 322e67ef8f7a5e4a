"""Reads the file that names other issuers, `issuers.toml` (docs/issuers/README.md).

Both programs read the same file. Every field is checked, and none is ignored.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final

from shared.claims import ALWAYS_REQUIRED, OWN_ISSUER, is_identifier
from shared.configuration.toml_fields import TomlFields
from shared.configuration.urls import check_foreign_url
from shared.jose.algorithms import ALGORITHM_NAMES

#: Each issuer has a task, a connection now and then, and up to 100 keys.
MAX_ISSUERS: Final = 100
#: The default of `max_lifetime`, seconds.
USUAL_LIFETIME: Final = 3_600
#: Seconds. Revocations are kept for as long as the longest token can live.
LONGEST_LIFETIME: Final = 30 * 86_400

_NAME_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_MAX_NAME: Final = 64
_FIELDS: Final = (
    *("issuer", "audience", "jwks_url", "algorithms", "types"),
    *("max_lifetime", "required_claims", "claims"),
)
_CLAIMS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "client": ("azp",),
        "scopes": ("scope",),
        "roles": ("roles",),
        "user": ("preferred_username",),
        "session": ("sid",),
    }
)
_HINT: Final = "texts need quotes, and each issuer begins with [issuers.NAME]"


class IssuersFileError(ValueError):
    """The file cannot be used; the message names issuer, field and rule."""


@dataclass(frozen=True, slots=True)
class OtherIssuer:
    """Another issuer than our own, as the file describes it.

    Attributes:
        name: in policy files, metrics, logs and `/status`.
        issuer: the exact `iss` of its tokens.
        audience: one of their `aud`.
        jwks_url: of its keys; empty: the one that its OpenID configuration names.
        algorithms: accepted `alg` of its tokens.
        types: accepted `typ` of its tokens, lower case; the empty text stands for a
            header without `typ`.
        max_lifetime: the longest `exp - iat`, seconds.
        required_claims: claims that must be present.
        claims: the path of each of our facts in its tokens: client, scopes, roles,
            user, session.
    """

    name: str
    issuer: str
    audience: str
    jwks_url: str
    algorithms: frozenset[str]
    types: frozenset[str]
    max_lifetime: int
    required_claims: frozenset[str]
    claims: Mapping[str, tuple[str, ...]]


class _Fields(TomlFields):
    """One table of the file.

    Raises:
        IssuersFileError: when it is no table, or has another field.
    """

    error: ClassVar[type[ValueError]] = IssuersFileError


def parse_issuers(text: str) -> Mapping[str, OtherIssuer]:
    """Read the text of the file.

    Returns:
        The issuers by name, in the order of the file; at least one.

    Raises:
        IssuersFileError: for a field that is missing, unknown or wrong.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise IssuersFileError(f"not TOML: {error}; {_HINT}") from None
    except RecursionError:
        raise IssuersFileError("nested too deeply") from None
    tables = _Fields("", document, {"issuers"}).read_table("issuers")
    if not tables:
        raise IssuersFileError(
            "there is no issuer; begin each with [issuers.NAME], or name no file"
        )
    if len(tables) > MAX_ISSUERS:
        raise IssuersFileError(f"issuers: must be at most {MAX_ISSUERS}")
    issuers: dict[str, OtherIssuer] = {}
    names_by_iss: dict[str, str] = {}
    for name, table in tables.items():
        issuers[name] = _read_issuer(name, table)
        # The exact `iss` chooses the issuer of a token (R67).
        first = names_by_iss.setdefault(issuers[name].issuer, name)
        if first != name:
            raise IssuersFileError(
                f"issuers.{name}.issuer: is that of issuers.{first} already"
            )
    return MappingProxyType(issuers)


def _read_issuer(name: str, table: Any) -> OtherIssuer:
    where = f"issuers.{name}"
    if not 0 < len(name) <= _MAX_NAME or not _NAME_CHARS.issuperset(name):
        raise IssuersFileError(
            f"{where}: a name has a-z, 0-9 and -, and {_MAX_NAME} characters at most"
        )
    if name == OWN_ISSUER:
        raise IssuersFileError(
            f"{where}: the name stands for the issuer of Gatehouse; choose another one"
        )
    fields = _Fields(where, table, _FIELDS)
    jwks_url = fields.read_text("jwks_url", "")
    if jwks_url:
        _check_url(fields, "jwks_url", jwks_url)
    return OtherIssuer(
        name=name,
        issuer=_read_iss(fields, is_fetched=not jwks_url),
        audience=_read_identifier(fields, "audience", "the name of your API"),
        jwks_url=jwks_url,
        algorithms=_read_algorithms(fields),
        types=_read_types(fields),
        max_lifetime=(
            fields.read_seconds("max_lifetime", largest=LONGEST_LIFETIME)
            or USUAL_LIFETIME
        ),
        required_claims=_read_required(fields),
        claims=_read_claims(fields),
    )


def _read_identifier(fields: _Fields, name: str, what: str) -> str:
    value = fields.read_text(name, "")
    if name not in fields:
        raise fields.fail(name, f"is missing; it is {what}")
    if not is_identifier(value):
        raise fields.fail(name, "must be text of 1..256 characters")
    return value


def _read_iss(fields: _Fields, *, is_fetched: bool) -> str:
    iss = _read_identifier(fields, "issuer", "the exact `iss` of the tokens")
    if is_fetched:
        _check_url(fields, "issuer", iss)
        if "?" in iss:
            # OpenID Connect Discovery 1.0, section 2.
            raise fields.fail("issuer", "must have no query, or set jwks_url")
    return iss


def _check_url(fields: _Fields, name: str, url: str) -> None:
    try:
        check_foreign_url(url)
    except ValueError as error:
        raise fields.fail(name, str(error)) from None


def _read_algorithms(fields: _Fields) -> frozenset[str]:
    names = fields.read_words("algorithms") or frozenset({"RS256"})
    for name in sorted(names):
        if name not in ALGORITHM_NAMES:
            known = ", ".join(sorted(ALGORITHM_NAMES))
            raise fields.fail("algorithms", f"cannot be {name!r}; choose of {known}")
    return names


def _read_types(fields: _Fields) -> frozenset[str]:
    """Return the accepted types in lower case (RFC 7515, section 4.1.9)."""
    types = fields.read_list("types") if "types" in fields else ["JWT", "at+jwt"]
    if not types or not all(
        isinstance(typ, str) and (not typ or is_identifier(typ)) for typ in types
    ):
        rule = 'must be a list of texts, such as ["JWT"]; "" stands for no typ'
        raise fields.fail("types", rule)
    return frozenset(form for typ in types for form in _forms_of(typ.lower()))


def _forms_of(typ: str) -> tuple[str, ...]:
    """Return both spellings of a type: `application/` may be left out.

    RFC 7515, section 4.1.9.
    """
    short = typ.removeprefix("application/")
    return (short,) if not short or "/" in short else (short, f"application/{short}")


def _read_required(fields: _Fields) -> frozenset[str]:
    if "required_claims" not in fields:
        return ALWAYS_REQUIRED
    names = fields.read_words("required_claims")
    missing = sorted(ALWAYS_REQUIRED - names)
    if missing:
        raise fields.fail("required_claims", f"must have {', '.join(missing)}, too")
    return names


def _read_claims(fields: _Fields) -> Mapping[str, tuple[str, ...]]:
    table = fields.read_table("claims")
    inner = _Fields(f"{fields.where}.claims", table, _CLAIMS)
    paths = {name: inner.read_path(name, value) for name, value in table.items()}
    found = {**_CLAIMS, **paths}
    if found["roles"] == found["scopes"]:
        # The head of an allow is bounded by the token: each list is sent once.
        raise inner.fail("roles", "is the claim of the scopes; name another one")
    return MappingProxyType(found)
