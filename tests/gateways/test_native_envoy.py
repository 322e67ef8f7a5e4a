"""Envoy checks tokens by itself, and our writer fills it (docs/native.md).

One Envoy with four workers for the whole module, on the shipped configuration.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from shared.feed import EntryKind
from tests.support.native_envoy import (
    SCOPE,
    WORKERS,
    NativeEnvoy,
    native_envoy,
)
from tests.support.processes import wait_until
from tests.support.tokens import good_claims, make_token, signing_key
from verifier.native.envoy import levels, token_filters
from verifier.native.envoy.names import RECENT, SETTLED
from verifier.sync.clock import boottime

pytestmark = pytest.mark.processes

_REALM: Final = 'Bearer realm="gatehouse"'
_REVOKED: Final = f'{_REALM}, error="invalid_token"'
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def native() -> Iterator[NativeEnvoy]:
    """The one Envoy of this module; a test leaves it open, with the writer running."""
    with native_envoy() as running:
        yield running


def token(**changes: Any) -> bytes:
    """Return a token of a session and a user of its own."""
    number = next(_numbers)
    own = {"sid": f"sid-{number}", "jti": f"jti-{number}", "sub": f"user-{number}"}
    return make_token(good_claims(int(time.time()), **own | changes))


# --- what passes, and as what ---------------------------------------------------------


def test_application_gets_every_identity_header_once(native: NativeEnvoy) -> None:
    answer = native.send_token(token(sub="u", sid="s", username="Älice"))
    assert answer.status == 200
    identity = sorted((n, v) for n, v in answer.reached if n.startswith("x-auth"))
    assert identity == [
        ("x-auth-client", "gatehouse"),
        ("x-auth-decision", "allow"),
        ("x-auth-roles", ""),
        ("x-auth-scope", "orders:read orders:write"),
        ("x-auth-session", "s"),
        ("x-auth-subject", "u"),
        ("x-auth-user", "Älice".encode().decode("latin-1")),
    ]
    assert not [n for n, _ in answer.reached if "gatehouse" in n]
    assert answer.values("authorization") == []


@pytest.mark.parametrize(
    "name",
    [
        *("X-Auth-Subject", "x-auth-user", "X-AUTH-ROLES", "X-Auth-Anything"),
        *("X-Auth", "x_auth_subject", "X-Auth_Subject", "X.Auth.Subject"),
        *("X-Gatehouse-Now", "X-Gatehouse-Gen", "x-gatehouse-aud", "Remote-User"),
    ],
)
def test_spoofed_headers_do_not_reach_the_application(
    native: NativeEnvoy, name: str
) -> None:
    good = token(username=None)
    credential = ("Authorization", f"Bearer {good.decode()}")
    answer = native.send([(name, "forged"), credential, (name, "forged")])
    assert answer.status == 200
    assert "forged" not in [value for _, value in answer.reached]
    assert answer.values("x-auth-user") == [""]


def test_spoofed_claims_do_not_replace_missing_ones(native: NativeEnvoy) -> None:
    """A header of the client must not stand for what its token lacks."""
    lacking = token(gen=None)
    credential = ("Authorization", f"Bearer {lacking.decode()}")
    assert native.send([("X-Gatehouse-Gen", "9"), credential]).status == 401


@pytest.mark.parametrize(
    ("headers", "status", "challenge"),
    [
        ([], 401, _REALM),
        ([("Authorization", "Basic YTpi")], 401, _REALM),
        ([("Authorization", "Bearer x.y.z")], 401, _REVOKED),
        ([("Authorization", "Bearer")], 401, _REALM),
        ([("X-Gatehouse-Now", "9999999999")], 401, _REALM),
    ],
)
def test_bad_credentials_are_refused_in_the_words_of_rfc_6750(
    native: NativeEnvoy, headers: list[tuple[str, str]], status: int, challenge: str
) -> None:
    answer = native.send(headers)
    assert (answer.status, answer.headers["www-authenticate"]) == (status, challenge)
    assert answer.headers["content-length"] == "0"


def test_bad_tokens_are_refused_as_invalid(native: NativeEnvoy) -> None:
    now = int(time.time())
    bad = {
        "expired": token(exp=now - 10, iat=now - 600),
        "in its last second": token(exp=now - 5, iat=now - 600),
        "another audience": token(aud="other"),
        "another issuer": token(iss="https://other.test"),
        "another key": make_token(good_claims(now), key=signing_key("other")),
    }
    for name, each in bad.items():
        answer = native.send_token(each)
        assert answer.status == 401, name
        assert answer.headers["www-authenticate"] == _REVOKED, name


def test_token_within_the_leeway_passes(native: NativeEnvoy) -> None:
    now = int(time.time())
    assert native.send_token(token(exp=now - 1, iat=now - 600)).status == 200


def test_scope_of_a_policy_is_asked_for(native: NativeEnvoy) -> None:
    wait_until(lambda: native.send((), native.scoped_port).status == 401)
    for enough in (SCOPE, f"a {SCOPE}", f"{SCOPE} b", f"a {SCOPE} b"):
        assert native.send_token(token(scope=enough), native.scoped_port).status == 200
    for scope in (
        None,
        "",
        "orders",
        f"{SCOPE}s",
        f"x{SCOPE}",
        SCOPE.replace(":", "-"),
    ):
        answer = native.send_token(token(scope=scope), native.scoped_port)
        assert answer.status == 403, scope
        challenge = answer.headers["www-authenticate"]
        assert challenge == f'{_REALM}, error="insufficient_scope"'


# --- what is revoked ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key", "generation", "refused", "passing"),
    [
        (EntryKind.JTI, "j", 0, {"jti": "j"}, {"jti": "j2"}),
        (EntryKind.SID, "s1", 0, {"sid": "s1"}, {"sid": "S1"}),
        (EntryKind.SID, "a*b", 0, {"sid": "a*b"}, {"sid": "aab"}),
        (EntryKind.SID, "*", 0, {"sid": "*"}, {"sid": "x"}),
        (EntryKind.SID, "*.test", 0, {"sid": "*.test"}, {"sid": "a.test"}),
        (EntryKind.SID, "ü 1", 0, {"sid": "ü 1"}, {"sid": "ü"}),
        (EntryKind.USER, "u1", 3, {"sub": "u1", "gen": 2}, {"sub": "u1", "gen": 3}),
        (EntryKind.USER, "u2", 1, {"sub": "u2", "gen": 0}, {"sub": "u20", "gen": 0}),
        (
            EntryKind.CLIENT,
            "c1",
            4,
            {"sub": "c1", "client_id": "c1", "gen": 3},
            {"sub": "u", "client_id": "c1", "gen": 3},
        ),
    ],
)
def test_revoked_is_refused_once_proven_and_others_pass(
    native: NativeEnvoy,
    kind: EntryKind,
    key: str,
    generation: int,
    refused: dict[str, Any],
    passing: dict[str, Any],
) -> None:
    """R24, R25: each kind of entry."""
    bad, good = token(**refused), token(**passing)
    assert native.send_token(bad).status == 200
    native.revoke(kind, key, generation)
    answer = native.send_token(bad)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, _REVOKED)
    assert native.send_token(good).status == 200


def test_higher_generation_counts(native: NativeEnvoy) -> None:
    for generation in (2, 5, 3):
        native.revoke(EntryKind.USER, "raised", generation)
    statuses = native.statuses([token(sub="raised", gen=gen) for gen in (2, 4, 5)])
    assert statuses == [401, 401, 200]


def test_other_entries_of_a_token_with_a_good_generation_count(
    native: NativeEnvoy,
) -> None:
    """Where a generation is high enough, the look-up goes on with the next tree."""
    native.revoke(EntryKind.USER, "both", 2)
    native.revoke(EntryKind.JTI, "of-both")
    assert native.send_token(token(sub="both", gen=2)).status == 200
    assert native.send_token(token(sub="both", gen=2, jti="of-both")).status == 401


def test_revoked_key_and_new_key(native: NativeEnvoy) -> None:
    first, second = signing_key(), signing_key("second")
    of_first, now = token(), int(time.time())
    of_second = make_token(good_claims(now, sid="second"), key=second)
    assert native.statuses([of_first, of_second]) == [200, 401]
    native.trust_keys([first, second])
    assert native.statuses([of_first, of_second]) == [200, 200]
    native.revoke(EntryKind.KID, second.kid)
    assert native.statuses([of_first, of_second]) == [200, 401]
    native.trust_keys([first])
    assert native.statuses([of_first, of_second]) == [200, 401]


def test_all_levels_are_filled(
    native: NativeEnvoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What moves to an older filter stays revoked all the time."""
    native.forget_entries()
    monkeypatch.setattr(levels.Levels.__init__, "__defaults__", (3,))
    native.stop_writer()
    native.start_writer()
    native.wait_until_proven()
    before = native.states()
    good = token()
    tokens = [token(sid=f"level-{n}") for n in range(30)]
    for n in range(30):
        native.revoke(EntryKind.SID, f"level-{n}")
        asked = [tokens[at] for at in {0, n // 2, n - n % 3, n}]
        assert set(native.statuses(asked)) == {401}, n
    assert set(native.statuses(tokens)) == {401}
    assert native.send_token(good).status == 200
    after = native.states()
    moves = {name: after[name].taken - before[name].taken for name in after}
    assert moves[f"{RECENT}default"] >= 30 > moves[SETTLED] >= 7


def test_nothing_passes_after_its_revocation_is_proven(native: NativeEnvoy) -> None:
    """300 revocations, each followed by requests to all workers over new connections.

    An acknowledgement by the main thread is not enough: workers have it later.
    """
    sids = [f"proven-{n}" for n in range(300)]
    headers = {
        sid: [("Authorization", f"Bearer {token(sid=sid).decode()}")] for sid in sids
    }

    async def ask(sid: str) -> list[int]:
        asking = [native.sending(headers[sid]) for _ in range(WORKERS + 1)]
        return [answer.status for answer in await asyncio.gather(*asking)]

    async def history() -> list[tuple[str, list[int]]]:
        passed = []
        for sid in sids:
            await native.revoking(EntryKind.SID, sid)
            statuses = await ask(sid)
            if set(statuses) != {401}:
                passed.append((sid, statuses))
        return passed

    assert native.on_loop(history()) == []


# --- when something fails -------------------------------------------------------------


def test_new_stream_refuses_no_request(native: NativeEnvoy) -> None:
    """The xDS server begins anew; requests pass by what Envoy has."""
    good, bad = token(), token(sid="before")
    native.revoke(EntryKind.SID, "before")
    native.stop_writer()
    assert native.statuses([good, bad]) == [200, 401]
    native.start_writer()
    statuses = set()

    def is_proven() -> bool:
        statuses.add(tuple(native.statuses([good, bad])))
        return native.is_written(native.in_force.mark.position)

    wait_until(is_proven)
    assert statuses == {(200, 401)}


def test_envoy_closes_after_its_window_and_opens_by_itself(
    native: NativeEnvoy,
) -> None:
    """R27: our process is dead; also a request that began within the window is refused
    after it.
    """
    good = token()
    native.stop_writer()
    native.start_writer(fresh_for=3.5)
    native.wait_until_proven()
    native.stop_writer()
    assert native.send_token(good).status == 200
    begun = native.begin_request(good)
    wait_until(lambda: native.send_token(good).status == 503, deadline=5)
    answer = native.send_token(good)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert "www-authenticate" not in answer.headers
    assert native.finish_request(begun).status == 503
    native.start_writer()
    wait_until(lambda: native.send_token(good).status == 200)


def test_stopped_envoy_is_not_proven_and_closes_when_it_goes_on(
    native: NativeEnvoy,
) -> None:
    """What it cannot be sent is in force when its window is over, and not before."""
    good, bad = token(), token(sid="while-stopped")
    native.stop_writer()
    native.start_writer(fresh_for=3.0)
    native.wait_until_proven()
    assert native.statuses([good, bad]) == [200, 200]
    fresh_until = native.trust.snapshot.own.fresh_until
    begun = [native.begin_request(each) for each in (good, bad)]
    with native.stopped():
        position = native.enforce_later(EntryKind.SID, "while-stopped")
        for each in begun:
            native.send_rest(each)
        assert not native.is_written(position)
        wait_until(lambda: native.is_written(position))
        assert boottime() >= fresh_until
    # What it was sent while it stood still may be in force first.
    after = [native.answer_of(each).status for each in begun]
    assert after in ([503, 503], [503, 401])
    native.keep_fresh()
    wait_until(lambda: native.statuses([good, bad]) == [200, 401])


def test_counters_that_are_reset_are_counted_anew(native: NativeEnvoy) -> None:
    """Between two writes; and the next writer goes on with their numbers."""
    native.reset_counters()
    assert native.states()[f"{RECENT}default"].taken < 3
    bad = token(sid="after-reset")
    native.revoke(EntryKind.SID, "after-reset")
    assert native.send_token(bad).status == 401
    native.stop_writer()
    native.start_writer()
    native.revoke(EntryKind.SID, "by-the-next")


def test_nothing_is_proven_after_a_refused_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Envoy counts it as completed, not as taken; what comes after it is in force."""
    bad = token(sid="after-refusal")
    with native_envoy() as own:
        with monkeypatch.context() as broken:
            broken.setattr(token_filters, "_GEN_FORM", "(")
            position = own.enforce_later(EntryKind.SID, "after-refusal")
            wait_until(lambda: own.states()[f"{RECENT}default"].refused > 0)
        wait_until(lambda: own.send_token(bad).status == 401)
        wait_until(lambda: any("it refused a filter" in e for e in own.errors()))
        assert not own.is_written(position)


def test_counters_are_read_over_a_new_connection(native: NativeEnvoy) -> None:
    """In a hot restart, the old process goes on answering on an old connection."""
    before = native.admin_connections()
    for _ in range(20):
        native.states()
    assert native.admin_connections() > before + 20


def test_restarted_envoy_refuses_until_it_has_all(native: NativeEnvoy) -> None:
    """503 before the first write; a revocation of before is there with the window."""
    good, bad = token(), token(sid="of-before")
    native.revoke(EntryKind.SID, "of-before")
    native.stop_writer()
    assert native.envoy is not None
    native.envoy.terminate()
    native.start_envoy()
    answer = native.send_token(good)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert native.send(()).status == 503
    native.start_writer()
    statuses = set()

    def is_open() -> bool:
        statuses.add(native.send_token(bad).status)
        return native.send_token(good).status == 200

    wait_until(is_open)
    statuses.add(native.send_token(bad).status)
    # 401 also where a filter knows no key yet.
    assert statuses <= {401, 503}


def test_no_key_closes_envoy(native: NativeEnvoy) -> None:
    """An empty key set is refused by Envoy, which would keep the keys it has."""
    good = token()
    native.trust_keys([])
    assert native.send_token(good).status == 503
    native.trust_keys([signing_key()])
    wait_until(lambda: native.send_token(good).status == 200)
