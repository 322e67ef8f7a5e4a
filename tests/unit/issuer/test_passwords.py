"""Which passwords are taken (R30) and how they are kept (R31)."""

from __future__ import annotations

import re

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from issuer.errors import InvalidCredentialsError, InvalidRequestError
from issuer.hashing.passwords import PasswordHasher, check_new_password
from issuer.settings.issuer_settings import KeyRing

#: bcrypt's least cost: these tests are about what is around it.
COST = 4
OLD = KeyRing(p1=b"\x01" * 32)
NEW = KeyRing(p2=b"\x02" * 32, p1=b"\x01" * 32)


class CountingBcrypt:
    """Hashes as bcrypt does and keeps the cost of each hash that was run."""

    def __init__(self) -> None:
        self.costs: list[int] = []

    def __call__(self, password: bytes, salt: bytes) -> bytes:
        made = bcrypt.hashpw(password, salt)
        self.costs.append(int(salt[4:6]))
        return made


def hasher(peppers: KeyRing = OLD, cost: int = COST) -> PasswordHasher:
    return PasswordHasher(peppers, cost=cost)


# --- R30 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    [
        pytest.param("x" * 15, id="15 of one letter"),
        pytest.param("\u5c71" * 15, id="15 code points of three bytes"),
        pytest.param("\U0001f511" * 128, id="128 code points of four bytes"),
        pytest.param("                 ", id="spaces"),
        pytest.param("tab\tand\nline feed too", id="controls"),
        pytest.param("\ufb03" * 5, id="15 once normalised"),
    ],
)
def test_any_characters_may_make_a_password(password: str) -> None:
    """R30: no composition rules."""
    check_new_password(password, username="alice", minimum=15)


@pytest.mark.parametrize(
    ("password", "rule"),
    [
        ("x" * 14, "at least 15"),
        ("e\u0301" * 14, "at least 15"),
        ("", "at least 15"),
        ("x" * 129, "at most 128"),
        ("\ufdfa" * 8, "at most 128"),
        ("123456789987654321", "most common"),
        ("1QAZ2WSX3EDC4RFV", "most common"),
        ("\uff11\uff12\uff13456789987654321", "most common"),
        ("my name is Alice, really", "user name"),
        ("unreadable \ud800 surrogate", "Unicode"),
    ],
)
def test_a_refused_password_is_published_the_reason(password: str, rule: str) -> None:
    """R30, and R35: the reason does not repeat what was typed."""
    with pytest.raises(InvalidRequestError) as refused:
        check_new_password(password, username="alice", minimum=15, field="new_password")
    (problem,) = refused.value.problems
    assert problem.field == "new_password"
    assert rule in problem.rule
    assert not password or password not in problem.rule


@pytest.mark.parametrize(
    "password",
    [
        pytest.param("password123456789", id="two of them"),
        pytest.param("passwordpassword", id="one twice"),
        pytest.param("ILoveYouIloveyouILOVEYOU", id="one three times"),
    ],
)
def test_common_passwords_in_a_row_are_common(password: str) -> None:
    """R30: few of the list have 15 characters, so people type two."""
    with pytest.raises(InvalidRequestError) as refused:
        check_new_password(password, username="alice", minimum=15)
    assert "most common" in refused.value.problems[0].rule


def test_the_list_of_common_passwords_is_long() -> None:
    """R30: as docs/login.md tells it."""
    common = FREQUENCY_LISTS["passwords"]
    assert len(set(common)) >= 10_000
    assert sum(len(password) >= 15 for password in common) == 31
    assert sum(len(password) >= 8 for password in common) == 11_611


def test_a_user_name_of_two_letters_does_not_forbid_most_passwords() -> None:
    check_new_password("a sentence with an l in it", username="al", minimum=15)


def test_common_passwords_are_refused_at_a_lower_minimum_too() -> None:
    """R30."""
    with pytest.raises(InvalidRequestError, match="malformed"):
        check_new_password("iloveyou", username="alice", minimum=8)


# --- R31 ---------------------------------------------------------------------------


def test_the_stored_string_names_scheme_pepper_and_cost() -> None:
    """R31."""
    stored = hasher(NEW).hash("correct horse battery")
    assert re.fullmatch(r"ghp1\$p2\$\$2b\$04\$[./A-Za-z0-9]{53}", stored)


@pytest.mark.parametrize(
    "password",
    [
        pytest.param("correct horse battery", id="plain"),
        pytest.param("x" * 100, id="over the 72 bytes of bcrypt"),
        pytest.param("\U0001f511" * 128, id="512 bytes"),
        pytest.param("nul\0inside", id="NUL"),
    ],
)
def test_a_password_verifies_against_its_own_hash(password: str) -> None:
    """R31: nothing raises, whatever its length in bytes."""
    hasher().verify(hasher().hash(password), password)


def test_nothing_is_truncated() -> None:
    """R31: two passwords that differ after 72 bytes are two passwords."""
    stored = hasher().hash("x" * 100 + "a")
    with pytest.raises(InvalidCredentialsError):
        hasher().verify(stored, "x" * 100 + "b")


def test_two_spellings_of_one_text_are_one_password() -> None:
    """R30: NFKC."""
    hasher().verify(hasher().hash("Ame\u0301lie"), "Am\u00e9lie")


def test_a_hash_without_its_pepper_is_worth_nothing() -> None:
    """R31."""
    stored = hasher(OLD).hash("correct horse battery")
    with pytest.raises(InvalidCredentialsError):
        hasher(KeyRing(p1=b"\x09" * 32)).verify(stored, "correct horse battery")


def test_an_old_pepper_still_verifies_and_asks_for_a_rehash() -> None:
    """R31."""
    stored = hasher(OLD).hash("correct horse battery")
    hasher(NEW).verify(stored, "correct horse battery")
    assert hasher(NEW).needs_rehash(stored)
    assert not hasher(OLD).needs_rehash(stored)


def test_another_cost_asks_for_a_rehash() -> None:
    """R31."""
    stored = hasher(cost=4).hash("correct horse battery")
    hasher(cost=5).verify(stored, "correct horse battery")
    assert hasher(cost=5).needs_rehash(stored)


GOOD = hasher().hash("correct horse battery")


@pytest.mark.parametrize(
    ("stored", "password"),
    [
        pytest.param(GOOD, "wrong horse battery", id="wrong"),
        pytest.param(GOOD, "", id="empty"),
        pytest.param(GOOD, "x" * 129, id="over-long"),
        pytest.param(GOOD, "\ufdfa" * 100, id="over-long once normalised"),
        pytest.param(GOOD, "\udcff", id="lone surrogate"),
        pytest.param("", "x", id="no stored hash"),
        pytest.param("!", "x", id="locked by hand"),
        pytest.param(GOOD.replace("p1", "p9"), "x", id="unknown pepper"),
        pytest.param(GOOD.replace("ghp1", "ghp2"), "x", id="unknown scheme"),
        pytest.param(GOOD.replace("$04$", "$31$"), "x", id="a cost of days"),
        pytest.param(GOOD[:-1], "x", id="cut"),
        pytest.param(GOOD + "\n", "x", id="line feed after it"),
        pytest.param("$2b$" + GOOD.rpartition("$2b$")[2], "x", id="bare bcrypt"),
        pytest.param(re.sub(r"(04\$.{21}).", r"\1/", GOOD), "x", id="odd salt"),
    ],
)
def test_every_refusal_runs_exactly_one_hash(stored: str, password: str) -> None:
    """R32."""
    counting = CountingBcrypt()
    with pytest.raises(InvalidCredentialsError):
        PasswordHasher(OLD, cost=COST, bcrypt_hash=counting).verify(stored, password)
    assert counting.costs == [COST]


def test_refusing_for_nobody_runs_exactly_one_hash_of_present_parameters() -> None:
    """R32."""
    counting = CountingBcrypt()
    with pytest.raises(InvalidCredentialsError) as refused:
        PasswordHasher(OLD, cost=5, bcrypt_hash=counting).refuse(detail="unknown user")
    assert counting.costs == [5]
    assert refused.value.detail == "unknown user"


@settings(max_examples=50, deadline=None)
@given(
    stored=st.one_of(
        st.text(max_size=100), st.from_regex(r"ghp1\$p1\$\$2b\$04\$.{53}")
    ),
    password=st.text(st.characters(), max_size=140),
)
def test_whatever_is_stored_or_typed_is_refused_with_one_error(
    stored: str, password: str
) -> None:
    """R32: nothing but the refusal can come out."""
    with pytest.raises(InvalidCredentialsError):
        hasher().verify(stored, password)
