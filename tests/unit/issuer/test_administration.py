"""Which tokens may administer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from issuer.errors import ForbiddenError, InsufficientAuthenticationError
from issuer.http.authorization.administration import AdministrationRule
from issuer.http.authorization.login_methods import (
    BY_CODE,
    BY_PASSWORD,
    BY_RECOVERY_CODE,
    find_acr,
)
from issuer.http.authorization.principals import PERSONAL_KEY_CLIENT_ID, Principal
from shared.claims import CLOCK_ALLOWANCE

NOW = 1_795_000_000
PERSON = Principal(
    subject="u",
    username="alice",
    client_id="gatehouse",
    scopes=frozenset({"gatehouse:admin"}),
    roles=(),
    sid="s",
    jti="j",
    generation=0,
    auth_time=NOW - 100,
    issued_at=NOW,
    expires_at=NOW + 600,
    audience="api",
    amr=BY_PASSWORD,
)
KEY = replace(PERSON, client_id=PERSONAL_KEY_CLIENT_ID, amr=(), auth_time=NOW)
CLIENT = replace(PERSON, subject="c", client_id="c", amr=(), auth_time=0)
ANY = AdministrationRule()
RECENT = AdministrationRule(max_login_age=100)
FACTOR = AdministrationRule(needs_second_factor=True)


@pytest.mark.parametrize(
    ("rule", "principal"),
    [
        (ANY, replace(PERSON, auth_time=0)),
        (ANY, KEY),
        (RECENT, PERSON),
        (RECENT, replace(PERSON, auth_time=NOW + CLOCK_ALLOWANCE)),
        (FACTOR, replace(PERSON, amr=BY_CODE)),
        (FACTOR, replace(PERSON, amr=BY_RECOVERY_CODE, auth_time=0)),
        (RECENT, CLIENT),
        (FACTOR, CLIENT),
    ],
)
def test_which_scopes_administer(
    rule: AdministrationRule, principal: Principal
) -> None:
    rule.require(principal, NOW)


@pytest.mark.parametrize(
    ("rule", "principal", "acr", "max_age"),
    [
        (RECENT, replace(PERSON, auth_time=NOW - 101), None, 100),
        # R53: a login of the future is none.
        (RECENT, replace(PERSON, auth_time=NOW + CLOCK_ALLOWANCE + 1), None, 100),
        (RECENT, KEY, None, 100),
        (FACTOR, KEY, find_acr(BY_CODE), None),
        (FACTOR, PERSON, find_acr(BY_CODE), None),
        (FACTOR, replace(PERSON, amr=()), find_acr(BY_CODE), None),
        (AdministrationRule(100, True), PERSON, find_acr(BY_CODE), 100),
    ],
)
def test_which_operations_need_another_login(
    rule: AdministrationRule, principal: Principal, acr: str | None, max_age: int | None
) -> None:
    with pytest.raises(InsufficientAuthenticationError) as refused:
        rule.require(principal, NOW)
    assert (refused.value.acr, refused.value.max_age) == (acr, max_age)


@pytest.mark.parametrize("rule", [ANY, RECENT, FACTOR])
def test_nothing_replaces_the_scope(rule: AdministrationRule) -> None:
    for principal in (PERSON, CLIENT, KEY):
        with pytest.raises(ForbiddenError):
            rule.require(replace(principal, scopes=frozenset({"orders:read"})), NOW)


def test_the_class_of_a_login_is_that_of_its_methods() -> None:
    assert find_acr(()) is None
    assert find_acr(BY_PASSWORD) != find_acr(BY_CODE) == find_acr(BY_RECOVERY_CODE)
