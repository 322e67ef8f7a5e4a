"""`doctor`: scenarios, judgement, remedies and arguments, without a gateway."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import cast

import pytest

from deploy.gateway_programs.program import CONFIGS
from shared.jose import base64url
from verifier.commands.main import main
from verifier.doctor.differences import DIFFERENCES, differences_of
from verifier.doctor.examination import TOGETHER, CannotExamineError, examine
from verifier.doctor.holes import HOLES
from verifier.doctor.judge import (
    Expectation,
    Finding,
    NotATokenError,
    judge,
    judge_without_verifier,
    read_identity,
)
from verifier.doctor.probe import (
    BadUrlError,
    Gateway,
    ProbeAnswer,
    UnreachableError,
)
from verifier.doctor.remedies import KINDS, REMEDIES, recognise
from verifier.doctor.scenarios import EVIL, SCENARIOS, Scenario

IDENTITY = {"x-auth-subject": "u1", "x-auth-user": "jane", "x-auth-client": ""}
EXPECTED = Expectation("t.o.k", IDENTITY, "/orders")
GOOD = "a.eyJzdWIiOiJ1In0.c"
CHALLENGE = (("www-authenticate", "Bearer"), ("x-auth-decision-id", "0123"))


def scenario(title: str) -> Scenario:
    (found,) = (s for s in SCENARIOS if s.title == title)
    return found


def echoed(path: str = "/orders?since=2026", **headers: str | list[str]) -> ProbeAnswer:
    identity: dict[str, str | list[str]] = {**IDENTITY, "x-auth-decision": "allow"}
    seen = {n.replace("_", "-"): value for n, value in headers.items()}
    body = {"method": "GET", "path": path, "headers": identity | seen}
    return ProbeAnswer(200, (), json.dumps(body).encode())


def holes(found: list[Finding]) -> set[str]:
    return {finding.hole for finding in found}


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    titles = [s.title for s in SCENARIOS]
    assert len(titles) >= 70
    assert len(set(titles)) == len(titles)
    assert {s.hole for s in SCENARIOS} <= set(HOLES)


@pytest.mark.parametrize("kind", KINDS)
def test_every_hole_has_a_line_that_the_shipped_config_has(kind: str) -> None:
    files = [path for path in (CONFIGS / kind).iterdir() if path.suffix != ".md"]
    lines = {line.strip() for path in files for line in path.read_text().splitlines()}
    has_ids = differences_of(kind).has_decision_ids
    assert set(REMEDIES[kind]) == set(HOLES) - (
        {"decision-id"} if not has_ids else set()
    )
    for hole, wanted in REMEDIES[kind].items():
        assert wanted, hole
        for line in wanted:
            assert line in lines, (kind, hole)


def test_a_gateway_is_known_by_its_answers() -> None:
    assert recognise("nginx/1.22.1") == "nginx"
    assert recognise("Caddy") == "caddy"
    assert recognise("uvicorn") == recognise("") == ""


# --- judgement -----------------------------------------------------------------------


def test_a_right_allow_is_right() -> None:
    assert judge(scenario("a token passes"), echoed(), EXPECTED) == []


@pytest.mark.parametrize(
    ("answer", "hole"),
    [
        (echoed(x_auth_user="mary"), "identity-lost"),
        (echoed(x_auth_user=["jane", "jane"]), "identity-lost"),
        (echoed(x_auth_decision=""), "identity-lost"),
        (echoed(authorization="Bearer t.o.k"), "token-shared"),
        (echoed(x_copied="t.o.k"), "token-shared"),
        (echoed(path="/orders"), "changed"),
        (ProbeAnswer(200, (), b"<html>"), "changed"),
        (ProbeAnswer(200, (), b"[1]"), "changed"),
        (ProbeAnswer(503, (), b""), "refused"),
    ],
)
def test_a_wrong_allow_is_a_hole(answer: ProbeAnswer, hole: str) -> None:
    assert holes(judge(scenario("a token passes"), answer, EXPECTED)) == {hole}


def test_what_a_client_wrote_is_the_hole_of_its_scenario() -> None:
    spoofed = scenario("spoofed X_Auth_User (R11)")
    found = judge(spoofed, echoed(**{"x.auth.user": EVIL}), EXPECTED)
    assert holes(found) == {"identity-alias"}
    admin = scenario("spoofed X-Auth-Admin (R11)")
    assert holes(judge(admin, echoed(x_auth_admin=EVIL), EXPECTED)) == {
        "foreign-identity"
    }


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (ProbeAnswer(401, CHALLENGE, b""), set()),
        (ProbeAnswer(401, CHALLENGE[1:], b""), {"refusal"}),
        (ProbeAnswer(401, CHALLENGE[:1], b""), {"decision-id"}),
        (ProbeAnswer(200, (), b""), {"open"}),
        (ProbeAnswer(101, (), b""), {"open"}),
        (ProbeAnswer(403, (), b""), {"refusal"}),
        (ProbeAnswer(204, (), b""), {"refusal"}),
    ],
)
def test_a_request_without_token_is_401(answer: ProbeAnswer, wanted: set[str]) -> None:
    assert holes(judge(scenario("no token"), answer, EXPECTED)) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (ProbeAnswer(503, (("retry-after", "5"),), b""), set()),
        (ProbeAnswer(503, (), b""), {"unavailable"}),
        (ProbeAnswer(401, CHALLENGE, b""), {"unavailable"}),
        (echoed(), {"fail-open"}),
    ],
)
def test_nothing_passes_without_a_verifier(
    answer: ProbeAnswer, wanted: set[str]
) -> None:
    passing = scenario("a token passes")
    assert holes(judge_without_verifier(passing, answer)) == wanted


# --- gateways that check tokens by themselves -----------------------------------------


def native(token_identity: dict[str, str]) -> Expectation:
    differences = differences_of("envoy-native")
    return Expectation(
        "t.o.k", differences.identity(token_identity), "/orders", differences
    )


def test_differences_are_about_scenarios_and_headers_that_there_are() -> None:
    titles, names = {s.title for s in SCENARIOS}, read_identity(GOOD)
    for kind, differences in DIFFERENCES.items():
        assert kind in KINDS
        assert set(differences.refuses) <= titles
        assert set(differences.empties) <= set(names)


def test_what_a_native_gateway_may_do_otherwise_is_no_hole() -> None:
    expected = native(IDENTITY | {"x-auth-roles": "clerk"})
    bare = ProbeAnswer(401, CHALLENGE[:1], b"")
    assert judge(scenario("no token"), bare, expected) == []
    assert judge(scenario("scheme in lower case"), bare, expected) == []
    assert judge(scenario("scheme in lower case"), echoed(), expected) == []
    assert judge(scenario("a token passes"), echoed(), expected) == []


@pytest.mark.parametrize(
    ("title", "answer", "hole"),
    [
        ("a token passes", ProbeAnswer(401, CHALLENGE[:1], b""), "refused"),
        ("a token passes", echoed(x_auth_roles="admin"), "identity-lost"),
        ("spoofed X-Auth-Roles (R11)", echoed(x_auth_roles=EVIL), "identity"),
        ("scheme in lower case", ProbeAnswer(503, (), b""), "refused"),
        ("scheme in lower case", ProbeAnswer(401, (), b""), "refusal"),
        ("no token", echoed(), "open"),
    ],
)
def test_anything_else_is_a_hole_of_a_native_gateway_too(
    title: str, answer: ProbeAnswer, hole: str
) -> None:
    expected = native(IDENTITY | {"x-auth-roles": "clerk"})
    assert holes(judge(scenario(title), answer, expected)) == {hole}


@pytest.mark.parametrize(
    ("title", "status", "wanted"),
    [
        ("no token", 401, set()),
        ("scheme in lower case", 401, set()),
        ("a token passes", 401, {"unavailable"}),
        ("a token passes", 200, {"fail-open"}),
        ("no token", 200, {"fail-open"}),
        ("a token passes", 500, {"unavailable"}),
    ],
)
def test_native_gateway_without_news_refuses_or_is_not_available(
    title: str, status: int, wanted: set[str]
) -> None:
    answer = ProbeAnswer(status, CHALLENGE[:1], b"")
    differences = differences_of("envoy-native")
    found = judge_without_verifier(scenario(title), answer, differences)
    assert holes(found) == wanted


# --- what a report shows --------------------------------------------------------------


def test_a_report_cannot_write_to_the_terminal() -> None:
    (found,) = judge(
        scenario("a token passes"), echoed(x_auth_user="\x1b[2J"), EXPECTED
    )
    assert "\x1b" not in found.detail


@pytest.mark.parametrize("part", [slice(0, 40), slice(20, 60)])
@pytest.mark.parametrize("place", ["x_auth_user", "x_other"])
def test_a_report_has_no_part_of_the_token(part: slice, place: str) -> None:
    """R35: a hostile application may answer with it anywhere."""
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1MSIsImp0aSI6IjEifQ.c2lnbmF0dXJl"
    expected = Expectation(token, IDENTITY, "/orders")
    piece = token[part]
    sent = {place: f"a{piece}b {EVIL}", piece: EVIL}
    answer = echoed(f"/{piece}", **sent)
    found = judge(scenario("spoofed X_Auth_User (R11)"), answer, expected)
    assert len(found) >= 2
    assert not any(piece[:16] in finding.detail for finding in found)


def test_names_of_headers_cannot_write_to_the_terminal() -> None:
    answer = echoed(**{"\x1b[2J": EVIL})
    (found,) = judge(scenario("a token passes"), answer, EXPECTED)
    assert "\x1b" not in found.detail


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"method":"\\ud800","path":"","headers":{}}']
)
def test_json_that_cannot_be_read_is_no_echo(body: bytes) -> None:
    assert ProbeAnswer(200, (), body).seen() is None


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
def test_a_tunnel_may_be_refused_without_a_verifier(status: int) -> None:
    tunnel = scenario("CONNECT")
    assert judge(tunnel, ProbeAnswer(status, (), b""), EXPECTED) == []
    assert judge_without_verifier(tunnel, ProbeAnswer(status, (), b"")) == []
    assert holes(judge(tunnel, ProbeAnswer(200, (), b""), EXPECTED)) == {"tunnel"}


# --- an examination -----------------------------------------------------------------


class SlowGateway:
    """Answers 503 when as many probes wait as are sent at a time, but the first.

    Args:
        answered: probes that are answered; those after them are not.
    """

    def __init__(self, answered: int) -> None:
        self._answered = answered
        self._together = threading.Barrier(TOGETHER)
        self._counting = threading.Lock()
        self.sent = 0

    def send(self, *_: object) -> ProbeAnswer:
        with self._counting:
            self.sent += 1
            number = self.sent
        if number > self._answered:
            raise UnreachableError("closed")
        if number > 1:
            self._together.wait(timeout=60)
        return ProbeAnswer(503, (("retry-after", "5"),), b"")


def test_probes_do_not_wait_for_each_other() -> None:
    """A gateway may wait for a second before it answers without a verifier."""
    gateway, sent = SlowGateway(answered=1 + 2 * TOGETHER), []
    examined = examine(
        cast(Gateway, gateway),
        EXPECTED,
        is_verifier_stopped=True,
        on_probe=lambda: sent.append(None),
    )
    assert examined.probes == 1 + 2 * TOGETHER
    assert len(sent) == gateway.sent == len(SCENARIOS)
    # In the order of the scenarios, although they end in any.
    later = [
        s.title for s in SCENARIOS if s.title in {f.scenario for f in examined.findings}
    ]
    assert [finding.scenario for finding in examined.findings] == later
    assert holes(examined.findings) == {"refused"}


def test_a_gateway_that_does_not_answer_is_not_examined() -> None:
    gateway = SlowGateway(answered=0)
    with pytest.raises(CannotExamineError, match="no answer: closed"):
        examine(cast(Gateway, gateway), EXPECTED)
    assert gateway.sent == 1


class GuardedGateway:
    """Answers every request without a token as a gateway does whose verifier runs."""

    def __init__(self) -> None:
        self.sent = 0

    def send(self, *_: object) -> ProbeAnswer:
        self.sent += 1
        return ProbeAnswer(401, CHALLENGE, b"")


def test_a_verifier_that_still_runs_is_no_hole() -> None:
    gateway = GuardedGateway()
    with pytest.raises(CannotExamineError, match="a verifier still answers"):
        examine(cast(Gateway, gateway), EXPECTED, is_verifier_stopped=True)
    assert gateway.sent == 1


def test_an_examination_without_a_probe_finds_nothing_out() -> None:
    with pytest.raises(CannotExamineError, match="--public"):
        examine(cast(Gateway, SlowGateway(0)), EXPECTED, public=["", "/", "*"])


# --- arguments -----------------------------------------------------------------------


def test_the_identity_is_that_of_the_allow() -> None:
    claims = {"sub": "ü", "username": "a b", "scope": "x  y", "roles": ["r,1", "r2"]}
    token = f"a.{base64url.encode(json.dumps(claims).encode())}.c"
    assert read_identity(token) == {
        "x-auth-subject": "%C3%BC",
        "x-auth-user": "a%20b",
        "x-auth-client": "",
        "x-auth-scope": "x y",
        "x-auth-roles": "r%2C1 r2",
        "x-auth-session": "",
    }


@pytest.mark.parametrize(
    "token", ["", "a.b", "a.b.c", "a.e30.c", "a.W10.c", f"{GOOD}\r\nX: y", f"{GOOD}€"]
)
def test_another_text_is_not_a_token(token: str) -> None:
    with pytest.raises(NotATokenError, match="JWT"):
        read_identity(token)


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:8080", "ftp://a", "http://", "http://a/b", "http://u@a"),
        *("http://a?x", "http://a:99999", "http://[::1"),
    ],
)
def test_a_url_that_names_no_gateway_is_refused(url: str) -> None:
    with pytest.raises(BadUrlError):
        Gateway.from_url(url)


def test_a_url_has_the_usual_port() -> None:
    assert Gateway.from_url("http://a").port == 80
    assert Gateway.from_url("https://a").port == 443
    assert Gateway.from_url("http://[::1]:8080").host == "::1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gateway", "x"], "--gateway: must be http://"),
        (["--gateway", "http://a", "--path", "x"], "--path: must begin with /"),
        (
            ["--gateway", "http://a", "--path", "/a\r\nX: y"],
            "--path: must begin with /",
        ),
        (["--gateway", "http://a", "--public", ""], "--public: must begin with /"),
        (["--gateway", "http://a", "--public", "/"], "no probe is left"),
        (["--gateway", "http://a", "--host", "a\r\nX: y"], "--host: must be HOST"),
        (["--gateway", "http://a", "--host", "€"], "--host: must be HOST"),
        (["--gateway", "http://a", "--timeout", "0"], "--timeout: must be seconds"),
        (["--gateway", "http://a", "--token-file", "/none"], "/none is not there"),
        (["--gateway", "http://a", "--echo", "8081"], "--echo: must be HOST:PORT"),
        (["--gateway", "https://a", "--ca-file", "/none"], "--ca-file: No such file"),
    ],
)
def test_a_bad_argument_is_named(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert main(["doctor", "--json", *arguments]) == 2
    assert said in json.loads(capsys.readouterr().out)["error"]


def test_a_file_that_is_no_token_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("secret-secret")
    arguments = ["--gateway", "http://a", "--token-file", str(tmp_path / "token")]
    assert main(["doctor", *arguments]) == 2
    said = capsys.readouterr().err
    assert "--token-file: must be a JWT" in said
    assert "secret-secret" not in said


def test_missing_decision_id_names_the_kinds_that_make_none() -> None:
    """Without `--kind` it is reported for them, too."""
    kinds = {kind for kind, made in DIFFERENCES.items() if not made.has_decision_ids}
    assert len(kinds) > 1
    meaning = HOLES["decision-id"].meaning
    assert {kind for kind in kinds if kind not in meaning} == set()
