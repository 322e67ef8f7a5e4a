"""The recipes for Kubernetes, Kong and APISIX, which no test can run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from verifier.check.answers import DECISION_ID_HEADER, IDENTITY_HEADERS

GATEWAYS = Path(__file__).resolve().parents[2] / "deploy" / "gateways"
RECIPES = (
    "kubernetes/envoy-gateway.yaml",
    "kubernetes/gateway-api.yaml",
    "kubernetes/ingress-nginx.yaml",
    "kong/kong.yml",
    "apisix/apisix.yaml",
)
#: A recipe with such a line lets requests pass while no verifier answers.
OPEN = re.compile(r"^\s*(failOpen|allow_degradation|failure_mode_allow): true", re.M)


def names_in(text: str) -> set[str]:
    """Return the names of headers in a text, in lower case, without comments."""
    lines = [line for line in text.splitlines() if line.strip()[:1] != "#"]
    return {word.lower() for word in re.findall(r"[\w-]+", "\n".join(lines))}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_identity_header_is_taken_from_the_verifier(recipe: str) -> None:
    names = {name.decode().lower() for name in (*IDENTITY_HEADERS, DECISION_ID_HEADER)}
    assert names <= names_in((GATEWAYS / recipe).read_text())


@pytest.mark.parametrize(
    "recipe", ["kubernetes/ingress-nginx.yaml", "apisix/apisix.yaml"]
)
def test_list_of_names_that_a_client_may_not_write_is_that_of_nginx(
    recipe: str,
) -> None:
    """Neither removes by prefix, as nginx does not."""
    config = (GATEWAYS / "nginx/gatehouse.conf").read_text()
    site, _, _ = config.partition("location @gatehouse_forbidden")
    blanked = re.findall(r'^ +proxy_set_header (\S+) +"";$', site, re.M)
    # Both gateways write it themselves.
    wanted = {name.lower() for name in blanked} - {"x-forwarded-port"}
    assert len(wanted) > 30
    assert wanted <= names_in((GATEWAYS / recipe).read_text())


@pytest.mark.parametrize("folder", ["kubernetes", "kong", "apisix"])
def test_no_recipe_opens_when_the_verifier_is_away(folder: str) -> None:
    for path in (GATEWAYS / folder).glob("*.y*ml"):
        assert not OPEN.search(path.read_text()), path.name
