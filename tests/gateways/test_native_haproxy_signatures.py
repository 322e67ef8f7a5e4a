"""A real HAProxy that remembers which signatures were good (R26, R27)."""

from __future__ import annotations

import hashlib
import random
import re
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.feed import EntryKind
from shared.token_form import encode_header
from tests.support.installed_gateways import require
from tests.support.native_haproxy import NativeHaproxy, running_haproxy
from tests.support.native_tokens import CASES, in_issuers_order, our_token
from tests.support.processes import free_port, wait_until
from tests.support.raw_http import send
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    good_claims,
    make_token,
    signing_key,
)
from verifier.native.haproxy.token_rules import SIGNATURES
from verifier.native.terms import NativeTerms

pytestmark = pytest.mark.processes

#: Has HAProxy remember any digest.
_REMEMBERING = f"""
frontend remembering
    bind 127.0.0.1:{{port}}
    timeout client 20s
    http-request track-sc2 req.hdr(digest),b64dec table {SIGNATURES}
    http-request sc-set-gpt0(2) 1
    http-request return status 200
"""
PLAIN = NativeTerms("default", ISSUER, AUDIENCE, 5, 3_600, (), (), (), (), ())
STRICT = PLAIN._replace(policy="strict", required_scopes=("orders:pay",))


@pytest.fixture(scope="module")
def site() -> Iterator[NativeHaproxy]:
    require("haproxy")
    with running_haproxy(
        [PLAIN, STRICT], [signing_key(), signing_key("second")]
    ) as site:
        yield site


@pytest.fixture(autouse=True)
def is_settled(site: NativeHaproxy) -> None:
    """Wait for what a test before this one had begun."""
    site.settle()


def digests(site: NativeHaproxy) -> dict[str, int]:
    """Return what the current worker remembers: digests, and whether they were good."""
    shown = site.master(f"@!{site.worker()} show table {SIGNATURES}")
    found = re.findall(r"key=([0-9A-F]{64}) .* gpt0=([0-9]+)", shown)
    return {digest: int(mark) for digest, mark in found}


def digest(site: NativeHaproxy, token: str) -> str:
    """Return what stands for a token that the first key has signed."""
    return hashlib.sha256(f"{token} {path_of(site, 0)}".encode()).hexdigest().upper()


def path_of(site: NativeHaproxy, number: int) -> Path:
    """Return the path of a key's file."""
    return site.directory / "keys" / f"{site.keys[number].fingerprint}.pem"


def forget(site: NativeHaproxy) -> None:
    site.master(f"@!{site.worker()} clear table {SIGNATURES}")


def test_digest_of_a_good_signature_is_kept_and_no_other(site: NativeHaproxy) -> None:
    good = our_token(jti="kept")
    stem, _, signature = good.rpartition(".")
    forged = f"{stem}.{our_token(jti='other').rpartition('.')[2]}"
    forget(site)
    for token in (good, forged, f"{stem}.A{signature[1:]}", good):
        site.ask(token)
    assert digests(site) == {digest(site, good): 1}
    passing = [good]
    for make in CASES.values():
        token = make(int(time.time()))
        if site.ask_raw(b"Authorization: Bearer " + token) == 200:
            passing.append(token.decode())
    assert len(passing) > 3
    assert digests(site) == {digest(site, token): 1 for token in passing}


def test_answers_are_the_same_over_any_history(site: NativeHaproxy) -> None:
    """R27: what was asked before, and how often, changes no answer."""
    now = int(time.time())
    # What is near its end may be past it meanwhile.
    tokens = {n: make(now) for n, make in CASES.items() if "leeway" not in n}
    fresh = {}
    for name, token in tokens.items():
        # A worker that remembers nothing of it.
        forget(site)
        fresh[name] = site.ask_raw(b"Authorization: Bearer " + token)
    assert set(fresh.values()) == {200, 401}
    order = [*tokens] * 4
    random.Random(7).shuffle(order)
    statuses = {name: set[int]() for name in tokens}
    for at in range(0, len(order), 100):
        names = [name for name in order[at : at + 100] if tokens[name].isascii()]
        answers = site.ask_many([tokens[name] for name in names], "default")
        # `ask_many` sends the odd ones first.
        for name in names:
            statuses[name].add(site.ask_raw(b"Authorization: Bearer " + tokens[name]))
        assert len(answers) == len(names)
        assert sorted(answers) == sorted(fresh[name] for name in names)
    assert {n: s for n, s in statuses.items() if s and s != {fresh[n]}} == {}


def test_remembered_token_is_checked_for_all_else(site: NativeHaproxy) -> None:
    """R26: time, policy and revocation count on every request."""
    now = int(time.time())
    short = make_token(in_issuers_order(good_claims(now - 500, exp=now + 2))).decode()
    revoked = our_token(sid="remembered")
    assert [site.ask(token) for token in (short, revoked)] == [200, 200]
    assert {digest(site, token) for token in (short, revoked)} <= digests(site).keys()
    assert site.ask(revoked, "strict") == 403
    site.writing.confirm(EntryKind.SID, "remembered")
    assert site.ask(revoked) == 401
    wait_until(lambda: site.ask(short) == 401, what="past its leeway")


def test_signature_is_good_for_the_key_that_made_it_alone(site: NativeHaproxy) -> None:
    """R27: the key is an input of what is remembered."""
    token = our_token()
    assert [site.ask(token), site.ask(token)] == [200, 200]
    header = token.partition(".")[0]
    assert header == encode_header(site.keys[0].kid)
    put = f"@!{site.worker()} set map {site.directory / 'headers.map'} {header}"
    site.master(f"{put} {path_of(site, 1)}")
    assert [site.ask(token), site.ask(token)] == [401, 401]
    site.master(f"{put} {path_of(site, 0)}")
    assert site.ask(token) == 200


def test_no_more_are_kept_than_the_table_has_room_for(site: NativeHaproxy) -> None:
    shown = site.master(f"@!{site.worker()} show table {SIGNATURES}")
    assert f"# table: {SIGNATURES}, type: binary, size:102400, used:" in shown


def test_variable_without_room_stands_for_no_signature() -> None:
    """R27: HAProxy has 0 or 1 in the place of a text for which it has no room."""
    require("haproxy")
    limit = "global\n    tune.vars.txn-max-size 5500\n"
    with running_haproxy([PLAIN], [signing_key()], limit) as site:
        forget(site)
        # The variables of the longest ones do not fit.
        tokens = [our_token(scope="s" * size) for size in range(1, 900, 2)]
        assert {200, 401} <= {site.ask(token) for token in tokens}
        kept = digests(site)
        assert len(kept) > 100
        assert kept.keys() <= {digest(site, token) for token in tokens}


def test_signature_that_is_remembered_is_not_looked_at_again() -> None:
    require("haproxy")
    port = free_port()
    further = _REMEMBERING.format(port=port)
    with running_haproxy([PLAIN], [signing_key()], further) as site:
        stem, _, _ = our_token(jti="one").rpartition(".")
        forged, other = (
            f"{stem}.{our_token(jti=jti).rpartition('.')[2]}"
            for jti in ("two", "three")
        )
        assert [site.ask(forged), site.ask(other)] == [401, 401]
        good = b64encode(bytes.fromhex(digest(site, forged))).decode()
        assert send(port, headers=[("Digest", good)]).status == 200
        assert [site.ask(forged), site.ask(other)] == [200, 401]
