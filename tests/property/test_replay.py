"""What `policy replay` tells is true: for any two policy files and any request.

A real request, with a real token, is decided by both files. The log has what nginx
would write about it. If the replay tells a change, or none, it is what happened. It may
also say that it cannot tell, but never for a file against itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.support.gatehouse_verifier import TOKEN_POLICY
from tests.support.proofs import examples
from tests.support.tokens import ISSUER, good_claims, make_token, signing_key
from verifier.check.answers import Answer
from verifier.check.decision import Allowed, CheckPaths, Times, decide
from verifier.check.denials import REFUSALS
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.policy import PolicyBook
from verifier.check.trust import Trust, key_set
from verifier.policies.access_log import read_request
from verifier.policies.document import parse_policies
from verifier.policies.replay import Change, Replay

NOW = 1_795_000_000
LEEWAY = TOKEN_POLICY.leeway
PATHS = ("/a", "/b")

words = st.lists(st.sampled_from(["r", "w"]), max_size=2, unique=True)
choices = st.lists(st.sampled_from(["r", "w"]), min_size=1, max_size=2, unique=True)
FIELDS = {
    "required_scopes": words,
    "any_scopes": choices,
    "required_roles": choices,
    "client_ids": choices,
    "max_age": st.sampled_from([60, 120]),
    "max_auth_age": st.sampled_from([60, 120]),
}
CLAIMS = ("", "claims = {t = 1}", "claims = {t = [1, true]}", 'claims = {t = "x"}')
needed = st.tuples(
    st.fixed_dictionaries({}, optional=FIELDS), st.sampled_from(CLAIMS)
).map(
    lambda drawn: "\n".join(
        [
            *(f"{name} = {orjson.dumps(v).decode()}" for name, v in drawn[0].items()),
            drawn[1],
        ]
    )
)
opened = st.sampled_from(["public = true", "optional = true"])


@st.composite
def files(draw: st.DrawFn) -> str:
    lines = ["[policies.p]"]
    either = st.one_of(opened, needed, needed)
    rules = draw(st.lists(st.tuples(st.sampled_from(PATHS), either), max_size=2))
    lines.append(draw(needed if rules else either))
    for name, value in (("preflight", "allow"), ("on_stale", "allow")):
        if draw(st.booleans()):
            lines.append(f'{name} = "{value}"')
    if draw(st.sampled_from([False, False, True])):
        lines.append('audience = "office"')
    for path, text in rules:
        lines += ["[[policies.p.rules]]", f'path = "{path}"', text]
    return "\n".join(lines)


class Sent(NamedTuple):
    """A request as it really was.

    Attributes:
        claims: of its token; None for none.
        is_good: the token's signature is.
        age, auth_age: of the token and the login, seconds.
    """

    method: str
    path: str
    is_preflight: bool
    claims: dict[str, Any] | None
    is_good: bool
    age: int
    auth_age: int


AGES = st.sampled_from(
    [0, *(bound + LEEWAY + more for bound in (60, 120) for more in (0, 1))]
)
requests = st.builds(
    Sent,
    method=st.sampled_from(["GET", "OPTIONS"]),
    path=st.sampled_from([*PATHS, "/c", "/a/../b"]),
    is_preflight=st.booleans(),
    claims=st.none()
    | st.fixed_dictionaries(
        {
            "scope": words.map(" ".join),
            "roles": words,
            "client_id": st.sampled_from(["r", "w", "other"]),
            "aud": st.sampled_from(["api", "office", ["api", "office"]]),
            "t": st.sampled_from([1, True, "x", [1, "x"], [], None]),
        }
    ),
    is_good=st.sampled_from([True, True, True, False]),
    age=AGES,
    auth_age=AGES,
)


def really(text: str, sent: Sent, *, is_fresh: bool) -> tuple[int, Answer | None]:
    """Decide a request by a file, as the gate does."""
    headers = [
        (b"x-original-method", sent.method.encode()),
        (b"x-original-uri", sent.path.encode()),
    ]
    if sent.is_preflight:
        headers += [(b"origin", b"a"), (b"access-control-request-method", b"GET")]
    if sent.claims is not None:
        times = {"iat": NOW - sent.age, "auth_time": NOW - sent.auth_age}
        token = make_token(good_claims(NOW, **times, **sent.claims))
        token = token if sent.is_good else token[:-4] + b"AAAA"
        headers.append((b"authorization", b"Bearer " + token))
    trust = Trust(ISSUER)
    trust.trust_keys(ISSUER, key_set([signing_key().jwk]), 2)
    trust.renew(2 if is_fresh else 0.5)
    check = PlainCheckRequest(b"GET", b"/verify/nginx/p/p", headers, True)
    paths = CheckPaths(PolicyBook(parse_policies(text, TOKEN_POLICY)))
    outcome = decide(check, trust.snapshot, paths, Times(NOW, 1))
    if isinstance(outcome, Allowed):
        return 200, outcome.answer
    return REFUSALS[outcome.reason].status, None


def logged(sent: Sent, status: int, answer: Answer | None, *, has_flag: bool) -> bytes:
    """Return the line that nginx writes."""
    headers = dict(answer.headers) if answer else {}

    def sent_as(name: str) -> str:
        return headers.get(f"X-Auth-{name}".encode(), b"").decode()

    members = {
        "policy": "p",
        "method": sent.method,
        "uri": sent.path,
        "gate": str(status),
        "decision": sent_as("Decision"),
        "client": sent_as("Client"),
        "scope": sent_as("Scope"),
        "roles": sent_as("Roles"),
    }
    if has_flag:
        members["credential"] = "0" if sent.claims is None else "1"
    return orjson.dumps(members)


def replayed(old: str, new: str, line: bytes) -> tuple[Change, str] | None:
    replay = Replay(
        parse_policies(old, TOKEN_POLICY), parse_policies(new, TOKEN_POLICY), NOW
    )
    request = read_request(line)
    assert request is not None
    replay.add(request)
    found = [
        (change, word)
        for row in replay.rows
        for change, counts in row.changes.items()
        for word in counts.elements()
    ]
    assert len(found) <= 1
    return found[0] if found else None


def happened(before: Answer | None, after: Answer | None) -> Change | None:
    if before is None or after is None:
        if before is after:
            return None
        return Change.NEWLY_REFUSED if after is None else Change.NEWLY_ALLOWED
    name = b"X-Auth-Decision"
    same = dict(before.headers)[name] == dict(after.headers)[name]
    return None if same else Change.ALLOWED_DIFFERENTLY


@settings(deadline=None, max_examples=examples(400))
@given(
    old=files(),
    new=files(),
    sent=requests,
    is_fresh=st.sampled_from([True, True, True, False]),
    has_flag=st.booleans(),
)
def test_what_is_told_is_true(
    old: str, new: str, sent: Sent, is_fresh: bool, has_flag: bool
) -> None:
    status, before = really(old, sent, is_fresh=is_fresh)
    _, after = really(new, sent, is_fresh=is_fresh)
    line = logged(sent, status, before, has_flag=has_flag)
    found = replayed(old, new, line)
    if found is not None and found[0] is Change.CANNOT_TELL:
        event("cannot tell")
        assert found[1] != "old_file_disagrees"
    else:
        event(f"replayed {found and found[0]}")
        assert (found and found[0]) == happened(before, after)
    assert replayed(old, old, line) is None
    assert replayed(new, new, line) in (
        None,
        (Change.CANNOT_TELL, "old_file_disagrees"),
    )
