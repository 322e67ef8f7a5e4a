"""Every example on docs/issuers/*.md is one that the programs read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.configuration.issuers_file import OtherIssuer, parse_issuers
from tests.support.issuer_pages import (
    FOLDER,
    ISSUERS_FILE,
    POLICIES_FILE,
    names_of,
    pages,
    shown,
)
from verifier.check.policy import TokenPolicy
from verifier.policies.document import parse_policies
from verifier.policies.other_issuers import terms_of

PAGES = pages()
RECIPES = [page for page in PAGES if page.name != "README.md"]
_IDS = [page.stem for page in PAGES]
#: What the first lines of a page say, and its line in the table of README.md.
_TESTED = re.compile(r"^Tested (\d{4}-\d\d-\d\d)[ .]")
_NOT_TESTED = re.compile(r"^Not tested here: .+ Written \d{4}-\d\d-\d\d from its ")


def issuers_of(page: Path) -> dict[str, OtherIssuer]:
    found: dict[str, OtherIssuer] = {}
    for text in shown(page, ISSUERS_FILE):
        found |= parse_issuers(text)
    return found


def test_there_is_a_recipe_for_each_provider() -> None:
    assert {page.stem for page in RECIPES} == {
        *("keycloak", "entra-id", "okta", "auth0", "google", "gitlab"),
        *("github-actions", "kubernetes", "oidc-provider", "lemonldap", "gatehouse"),
    }


@pytest.mark.parametrize("page", PAGES, ids=_IDS)
def test_files_on_the_page_are_read_as_they_are(page: Path) -> None:
    assert names_of(page) == {ISSUERS_FILE, POLICIES_FILE}
    issuers = issuers_of(page)
    assert issuers
    own = TokenPolicy.own("https://login.example.com/own", "orders")
    terms = [terms_of(other) for other in issuers.values()]
    for text in shown(page, POLICIES_FILE):
        policies = parse_policies(text, own, terms)
        named = [one for one in policies.values() if len(one.token.issuers) > 1]
        only = [one for one in policies.values() if one.token.issuers[0].name != "own"]
        assert named or only, "no policy accepts the issuer of the page"


@pytest.mark.parametrize("page", RECIPES, ids=[page.stem for page in RECIPES])
def test_a_recipe_and_the_table_agree_on_what_was_tested(page: Path) -> None:
    (row,) = [
        line
        for line in (FOLDER / "README.md").read_text().splitlines()
        if line.startswith("|") and f"]({page.name})" in line
    ]
    text = page.read_text().split("\n\n")[1]
    tested = _TESTED.match(text)
    if tested:
        assert f"| {tested[1]}" in row
        assert "tests/foreign/test_real_issuers.py" in text
    else:
        assert _NOT_TESTED.match(text)
        assert "| no; " in row
