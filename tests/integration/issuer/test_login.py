"""Login: a session for the right password, one and the same refusal for all else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import bcrypt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from sqlalchemy import select, update

from issuer.acts import Caller
from issuer.errors import InvalidCredentialsError
from issuer.hashing.hash_times import HashTimes
from issuer.hashing.hash_work import bcrypt_work
from issuer.hashing.hashing_pool import HashingPool
from issuer.hashing.parts import HashingParts
from issuer.hashing.passwords import PasswordHasher
from issuer.login.login import Login
from issuer.login.parts import LoginParts
from issuer.settings.issuer_settings import KeyRing
from issuer.storage.tables.sessions import Session
from issuer.storage.tables.users import User
from tests.support.issuer_harness import (
    FakeClock,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import (
    PASSWORD,
    is_accepted,
    log_in,
    post_login,
    read_audit,
)

CALLER = Caller("192.0.2.7", "test", "c" * 32)


class CountingBcrypt:
    """Hashes as bcrypt does and keeps the cost of each hash that was run."""

    def __init__(self) -> None:
        self.costs: list[int] = []

    def __call__(self, password: bytes, salt: bytes) -> bytes:
        made = bcrypt.hashpw(password, salt)
        self.costs.append(int(salt[4:6]))
        return made


@pytest.fixture
async def alice(issuer: IssuerHarness) -> str:
    """Alice's user id."""
    user = await issuer.create_user("alice", PASSWORD)
    return user.id


async def test_a_login_answers_tokens_that_anybody_can_check_with_the_jwks(
    issuer: IssuerHarness, alice: str
) -> None:
    """RFC 9068, checked by a library that is not ours."""
    answer = await post_login(issuer)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Pragma"] == "no-cache"
    body = answer.json()
    assert body.keys() == {
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "scope",
        "device_token",
    }
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 600)
    jwks = (await issuer.client.get("/.well-known/jwks.json")).json()
    token = joserfc_jwt.decode(
        body["access_token"], KeySet.import_key_set(jwks), algorithms=["RS256"]
    )
    assert token.header["typ"] == "at+jwt"
    claims = token.claims
    now = issuer.clock.now
    assert claims | {"jti": "", "sid": ""} == {
        "iss": "https://issuer.test",
        "sub": alice,
        "aud": "api",
        "exp": now + 600,
        "iat": now,
        "jti": "",
        "client_id": "gatehouse",
        "scope": "",
        "sid": "",
        "gen": 0,
        "roles": [],
        "auth_time": now,
        "username": "alice",
        "amr": ["pwd"],
        "acr": "urn:gatehouse:acr:password",
    }


async def test_a_login_opens_a_session_and_is_recorded(
    issuer: IssuerHarness, alice: str
) -> None:
    tokens = await log_in(issuer)
    async with issuer.database.read() as db:
        session = (await db.scalars(select(Session))).one()
    assert (session.sid, session.user_id) == (tokens.sid, alice)
    assert session.address == "192.0.2.7"
    assert session.expires_at == issuer.clock.now + issuer.settings.refresh_ttl
    (event,) = await read_audit(issuer, "login.succeeded")
    assert event["subject"] == alice
    assert event["facts"]["sid"] == tokens.sid


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize("username", ["ALICE", "\uff21\uff2c\uff29\uff23\uff25"])
async def test_any_spelling_of_the_name_logs_in(
    issuer: IssuerHarness, username: str
) -> None:
    """R36."""
    assert await is_accepted(issuer, await log_in(issuer, username))


# --- R32 ---------------------------------------------------------------------------


def make_login(
    issuer: IssuerHarness,
    pool: HashingPool,
    bcrypt_hash: Callable[[bytes, bytes], bytes] = bcrypt.hashpw,
) -> Login:
    """Return a login over the same database that hashes elsewhere."""
    parts = issuer.issuer
    hasher = PasswordHasher(
        issuer.settings.password_peppers,
        cost=issuer.settings.bcrypt_cost,
        bcrypt_hash=bcrypt_hash,
    )
    times = HashTimes(bcrypt_work(issuer.settings.bcrypt_cost))
    hashing = HashingParts(parts.base, hasher, pool, times)
    return LoginParts(parts.base, hashing, parts.sessions).login


@pytest.fixture
async def counted(
    issuer: IssuerHarness,
) -> AsyncIterator[tuple[Login, CountingBcrypt]]:
    """A login over the same database that counts its hashes."""
    counting = CountingBcrypt()
    pool = HashingPool(workers=1, queue=9)
    yield make_login(issuer, pool, counting), counting
    pool.close()


FAILURES = [
    pytest.param("alice", "wrong horse battery", "wrong password", id="wrong"),
    pytest.param("nobody", PASSWORD, "unknown user", id="unknown user"),
    pytest.param("disabled", PASSWORD, "disabled user", id="disabled user"),
    pytest.param("broken", PASSWORD, "malformed hash", id="malformed hash"),
    pytest.param("alice", "", "malformed password", id="empty password"),
    pytest.param("alice", "x" * 129, "malformed password", id="over-long password"),
    pytest.param("", PASSWORD, "malformed user name", id="empty name"),
    pytest.param("x" * 65, PASSWORD, "malformed user name", id="over-long name"),
    pytest.param("a\u202elice", PASSWORD, "malformed user name", id="bidi name"),
]


@pytest.fixture
async def accounts(issuer: IssuerHarness, alice: str) -> None:
    """Alice, a disabled user, and one with an invalid hash."""
    disabled = await issuer.create_user("disabled", PASSWORD)
    broken = await issuer.create_user("broken", PASSWORD)
    async with issuer.database.write() as db:
        users = update(User)
        await db.execute(users.where(User.id == disabled.id).values(disabled_at=1))
        await db.execute(users.where(User.id == broken.id).values(password_hash="!"))


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(("username", "password", "reason"), FAILURES)
async def test_every_failed_login_runs_exactly_one_hash_and_is_recorded(
    issuer: IssuerHarness,
    counted: tuple[Login, CountingBcrypt],
    username: str,
    password: str,
    reason: str,
) -> None:
    """R32, R42."""
    login, counting = counted
    with pytest.raises(InvalidCredentialsError):
        await login.log_in(username, password, CALLER)
    assert counting.costs == [issuer.settings.bcrypt_cost]
    (event,) = await read_audit(issuer, "login.failed")
    assert event["facts"] == {"reason": reason}
    assert await read_audit(issuer, "login.succeeded") == []


@pytest.mark.usefixtures("accounts")
async def test_every_failed_login_is_answered_alike(issuer: IssuerHarness) -> None:
    """R32: status, headers and body, byte for byte."""
    answers = set()
    for case in FAILURES:
        username, password, _ = case.values
        answer = await issuer.client.post(
            "/auth/login",
            json={"username": username, "password": password},
            headers={"X-Correlation-Id": "the-same-for-all"},
        )
        headers = tuple(sorted(answer.headers.items()))
        answers.add((answer.status_code, headers, answer.content))
    ((status, _, body),) = answers
    assert status == 401
    assert b"invalid_credentials" in body


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"bcrypt_cost": 11}, id="cost"),
        pytest.param(
            {"password_peppers": KeyRing(p2=b"\x07" * 32, p1=b"\x02" * 32)}, id="pepper"
        ),
    ],
)
async def test_a_login_renews_the_hash_when_parameters_changed(
    issuer: IssuerHarness, database_url: str, change: dict[str, object]
) -> None:
    """R31; two at once, so that neither waits for the other for good."""
    before = await read_hash(issuer)
    changed = make_settings(database_url, **change)
    async with running_issuer(changed, FakeClock()) as later:
        await asyncio.gather(*(log_in(later) for _ in range(2)))
        renewed = await read_hash(issuer)
        assert renewed != before
        await log_in(later)
        assert await read_hash(issuer) == renewed


async def test_a_login_that_a_logout_everywhere_overtakes_is_refused(
    issuer: IssuerHarness, alice: str
) -> None:
    """R28: a login that began before it must not be valid after it."""
    overtaken = OvertakenPool(issuer, alice)
    login = make_login(issuer, overtaken)
    with pytest.raises(InvalidCredentialsError):
        await login.log_in("alice", PASSWORD, CALLER)
    overtaken.close()
    async with issuer.database.read() as db:
        assert (await db.scalars(select(Session))).all() == []


class OvertakenPool(HashingPool):
    """Hashes, and logs the user out everywhere before the answer is used."""

    def __init__(self, issuer: IssuerHarness, user_id: str) -> None:
        super().__init__(workers=1, queue=0)
        self._issuer = issuer
        self._user_id = user_id

    async def run_held(self, work):
        result = await super().run_held(work)
        await self._issuer.issuer.sessions.logout.log_out_everywhere(
            self._user_id, CALLER, actor="system"
        )
        return result


# --- R33, R35 ----------------------------------------------------------------------


async def test_a_full_hashing_queue_answers_503_at_once(
    database_url: str,
) -> None:
    """R33."""
    tight = make_settings(database_url, hash_workers=1, hash_queue=0, bcrypt_cost=12)
    async with running_issuer(tight) as issuer:
        await issuer.create_user("alice", PASSWORD)
        answers = await asyncio.gather(*(post_login(issuer) for _ in range(4)))
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [200, 503, 503, 503]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)


async def test_a_login_is_turned_away_before_anything_is_done_for_it(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R33: a flood costs only its refusals; it is counted and does not fill the log."""
    tight = make_settings(database_url, hash_workers=1, hash_queue=0)
    async with running_issuer(tight) as issuer:
        with issuer.issuer.hashing.pool.reserve():
            answer = await issuer.client.post("/auth/login", content=b"no JSON at all")
            assert answer.status_code == 503
            assert answer.json()["code"] == "temporarily_unavailable"
            assert int(answer.headers["Retry-After"]) > 0
            other = await issuer.client.post("/auth/refresh", content=b"")
            assert other.status_code == 415
        assert (await post_login(issuer, "nobody")).status_code == 401
        shown = issuer.issuer.base.metrics.render().decode()
    assert 'gatehouse_issuer_logins_total{outcome="overloaded"} 1.0' in shown
    assert 'route="/auth/login",status="503"' in shown
    refused = [r for r in caplog.records if r.message == "request.refused"]
    assert all(record.levelname != "ERROR" for record in refused)


SECRET_WORD = "tr0ub4dor-and-three"


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            '{"username":"alice","password":"tr0ub4dor-and-three"}', id="wrong"
        ),
        pytest.param('{"password":"tr0ub4dor-and-three"}', id="no name"),
        pytest.param(
            '{"username":1,"password":"tr0ub4dor-and-three"}', id="name a number"
        ),
        pytest.param(
            '{"username":"alice","password":["tr0ub4dor-and-three"]}', id="a list"
        ),
        pytest.param(
            '{"username":"alice","password":{"tr0ub4dor-and-three":1}}', id="an object"
        ),
        pytest.param(
            '{"username":"alice","password":"x","tr0ub4dor-and-three":1}', id="extra"
        ),
        pytest.param(
            '{"username":"tr0ub4dor-and-three","password":"tr0ub4dor-and-three"}',
            id="typed as the name",
        ),
        pytest.param('{"username":"alice","password":"tr0ub4dor-and-three"', id="cut"),
        pytest.param(
            '{"username":"alice","password":"tr0ub4dor-and-three\\ud800"}',
            id="surrogate",
        ),
        pytest.param(
            '{"username":"alice","password":"tr0ub4dor-and-three\\u0000"}', id="NUL"
        ),
        pytest.param('["tr0ub4dor-and-three"]', id="no object"),
    ],
)
async def test_no_refusal_repeats_the_input(
    issuer: IssuerHarness, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R35: not in the answer, not in the log, not in the audit."""
    answer = await issuer.client.post(
        "/auth/login", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in {400, 401}
    assert SECRET_WORD not in answer.text
    assert SECRET_WORD not in str(answer.headers)
    logged = [str(record.__dict__) for record in caplog.records]
    assert SECRET_WORD not in " ".join(logged)
    for event in await read_audit(issuer, "login.failed"):
        assert SECRET_WORD not in str(event)


@pytest.mark.usefixtures("alice")
async def test_no_password_is_in_the_database(issuer: IssuerHarness) -> None:
    """R31, R35; nor does a refresh token."""
    tokens = await log_in(issuer)
    async with issuer.database.read() as db:
        connection = await db.connection()
        dump = await connection.run_sync(_dump)
    assert PASSWORD not in dump
    assert tokens.refresh_token not in dump
    assert tokens.access_token not in dump
    assert tokens.sid in dump


def _dump(connection) -> str:
    tables = User.metadata.sorted_tables
    return str([connection.execute(select(table)).all() for table in tables])


async def read_hash(issuer: IssuerHarness) -> str:
    async with issuer.database.read() as db:
        return (await db.scalars(select(User.password_hash))).one()
