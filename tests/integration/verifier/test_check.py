"""`python -m verifier check` finds each fault, says what to do, and changes nothing."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from shared.checking.examination import Check, examine
from shared.checking.findings import MAX_FINDINGS, Findings, Level
from tests.support.certificates import Authority
from tests.support.checked import CheckDesk
from tests.support.issuer_over_http import WallClock, served
from tests.support.issuer_simulator import FEED_TOKEN, IssuerSimulator
from tests.support.processes import free_port
from tests.support.raw_http import send
from tests.support.tokens import AUDIENCE, ISSUER
from verifier.checking.issuer import compare_clocks
from verifier.commands.main import main
from verifier.sync.fetch import Fetched


class SkewedClock(WallClock):
    """The clock of another machine; `ahead` in seconds."""

    ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead


@pytest.fixture(scope="module")
def issuer() -> Iterator[tuple[IssuerSimulator, SkewedClock, str]]:
    clock = SkewedClock()
    with served(IssuerSimulator(clock)) as (simulator, url):
        yield simulator, clock, url


@pytest.fixture
def desk(
    issuer: tuple[IssuerSimulator, SkewedClock, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> CheckDesk:
    monkeypatch.chdir(tmp_path)
    _, _, url = issuer
    env = {
        "VERIFIER_ISSUER_URL": ISSUER,
        "VERIFIER_AUDIENCE": AUDIENCE,
        "VERIFIER_FEED_TOKEN": FEED_TOKEN,
        "VERIFIER_JWKS_URL": f"{url}/.well-known/jwks.json",
        "VERIFIER_FEED_URL": f"{url}/revocations",
        "VERIFIER_BIND": f"127.0.0.1:{free_port()}",
        "VERIFIER_ADMIN_BIND": f"127.0.0.1:{free_port()}",
        "VERIFIER_STATE_DIR": str(tmp_path / "state"),
        "VERIFIER_MAX_CONNECTIONS": "100",
    }
    return CheckDesk(main, env, monkeypatch, capsys)


def test_nothing_is_found_where_nothing_is_wrong(
    desk: CheckDesk, issuer: tuple[IssuerSimulator, SkewedClock, str], tmp_path: Path
) -> None:
    """No follower is left behind, for which a revocation would wait."""
    checked = desk.check("--strict")
    assert (checked.status, checked.bad()) == (0, {})
    assert checked.levels("issuer.clock") == ["ok"]
    assert "policy default: /verify/<dialect>/p/default" in checked.text
    assert list(tmp_path.iterdir()) == []
    assert FEED_TOKEN not in checked.text
    assert issuer[0].goodbyes == []


def test_every_wrong_setting_is_named_at_once(desk: CheckDesk) -> None:
    checked = desk.check(
        VERIFIER_LEEWAI="5",
        VERIFIER_WORKERS="many",
        VERIFIER_FEED_TOKEN="hush",
        VERIFIER_AUDIENCE="",
    )
    assert checked.status == 1
    found = {f["concerns"]: f["found"] + f["remedy"] for f in checked.findings}
    assert set(found) == {
        "VERIFIER_LEEWAI",
        "VERIFIER_WORKERS",
        "VERIFIER_FEED_TOKEN",
        "VERIFIER_AUDIENCE",
    }
    assert "did you mean VERIFIER_LEEWAY" in found["VERIFIER_LEEWAI"]
    assert "hush" not in checked.text


def test_a_missing_setting_is_described(desk: CheckDesk) -> None:
    del desk.env["VERIFIER_ISSUER_URL"]
    (finding,) = desk.check().findings
    assert (finding["concerns"], finding["found"]) == (
        "VERIFIER_ISSUER_URL",
        "is not set",
    )
    assert finding["remedy"].startswith("The issuer's URL, exactly the `iss`")


@pytest.mark.parametrize(
    ("mode", "level"), [(0o600, "ok"), (0o644, "warning"), (0o666, "error")]
)
def test_others_may_not_read_or_change_a_secret(
    desk: CheckDesk, tmp_path: Path, mode: int, level: str
) -> None:
    path = tmp_path / "token"
    path.write_text(FEED_TOKEN)
    path.chmod(mode)
    del desk.env["VERIFIER_FEED_TOKEN"]
    checked = desk.check("--offline", VERIFIER_FEED_TOKEN_FILE=str(path))
    levels = {f["concerns"]: f["level"] for f in checked.findings}
    assert levels["VERIFIER_FEED_TOKEN_FILE"] == level
    assert checked.status == (level == "error")


@pytest.mark.parametrize(
    ("days", "level"), [((-9, 400), "ok"), ((-9, 10), "warning"), ((-9, -1), "error")]
)
def test_an_authority_that_ends_is_found(
    desk: CheckDesk, tmp_path: Path, days: tuple[int, int], level: str
) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(Authority().sign("ca", days=days).certificate)
    checked = desk.check("--offline", VERIFIER_CA_FILE=str(path))
    assert checked.levels("files.certificate") == [level]


def test_files_that_cannot_be_used_are_found(desk: CheckDesk, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "ca.pem").write_bytes(b"text")
    (tmp_path / "gatehouse-verifier").symlink_to(tmp_path / "elsewhere")
    bad = desk.check(
        "--offline",
        VERIFIER_CA_FILE=str(tmp_path / "ca.pem"),
        VERIFIER_POLICY_FILE=str(pipe),
        VERIFIER_STATE_DIR=str(tmp_path),
    ).bad()
    assert "is not PEM" in bad["files.authorities"]
    assert bad["settings"] == f"VERIFIER_POLICY_FILE: {pipe} is not a regular file"
    assert "is a link or a file" in bad["copies.directory"]


@pytest.mark.parametrize("path", ["/proc/x", "/dev/null", "/dev/null/x"])
def test_a_state_directory_that_cannot_be_made_is_found(
    desk: CheckDesk, path: str
) -> None:
    """By access(2), root may write nearly everywhere; here it cannot."""
    checked = desk.check("--offline", VERIFIER_STATE_DIR=path)
    assert checked.levels("copies.directory") == ["error"]
    assert "Errno" not in checked.text


def test_an_old_copy_and_a_missing_directory_are_warnings(
    desk: CheckDesk, tmp_path: Path
) -> None:
    own = tmp_path / "state" / "gatehouse-verifier"
    own.mkdir(parents=True)
    copy = own / "a.copy"
    copy.touch()
    assert desk.check("--offline").levels("copies.age") == ["ok"]
    two_days_ago = time.time() - 172_800
    os.utime(copy, (two_days_ago, two_days_ago))
    assert desk.check("--offline").levels("copies.age") == ["warning"]
    checked = desk.check("--offline", VERIFIER_STATE_DIR="")
    assert checked.bad()["copies.directory"].startswith(
        "VERIFIER_STATE_DIR: is not set"
    )
    assert checked.status == 0
    assert desk.check("--offline", "--strict", VERIFIER_STATE_DIR="").status == 1


def test_rules_without_effect_are_shown(desk: CheckDesk, tmp_path: Path) -> None:
    policies = tmp_path / "p.toml"
    policies.write_text(
        "[[policies.shop.rules]]\n"
        'path = "/admin/**"\n'
        'required_scopes = ["admin"]\n'
        "[[policies.shop.rules]]\n"
        'path = "/**"\n'
        "public = true\n"
    )
    checked = desk.check("--offline", VERIFIER_POLICY_FILE=str(policies))
    assert "warning" in checked.levels("policies"), checked
    assert "policy shop" in checked.text


def test_gateways_that_are_not_trusted_are_found(desk: CheckDesk) -> None:
    port = free_port()
    bad = desk.check("--offline", VERIFIER_BIND=f"0.0.0.0:{port}").bad()
    assert "none of them is trusted" in bad["peers.trusted"]
    wide = desk.check("--offline", VERIFIER_TRUSTED_PEERS="10.0.0.0/8").bad()
    assert "16777216 addresses" in wide["peers.wide"]


def test_a_port_of_another_program_is_found(desk: CheckDesk, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        bad = desk.check("--offline", VERIFIER_BIND=bind).bad()
    assert "another program listens there" in bad["ports.bind"]
    away = desk.check("--offline", VERIFIER_BIND=f"unix:{tmp_path}/no/x.sock").bad()
    assert "there is no such directory" in away["ports.bind"]


def test_every_user_could_listen_in_an_open_directory(
    desk: CheckDesk, tmp_path: Path
) -> None:
    shared = tmp_path / "run"
    shared.mkdir()
    shared.chmod(0o777)
    bind = f"unix:{shared}/v.sock"
    assert "ports.directory" in desk.check("--offline", VERIFIER_BIND=bind).bad()
    shared.chmod(0o750)
    checked = desk.check("--offline", VERIFIER_BIND=bind)
    assert checked.bad() == {}
    assert list(shared.iterdir()) == []


def test_too_few_descriptors_are_found(desk: CheckDesk) -> None:
    bad = desk.check("--offline", VERIFIER_MAX_CONNECTIONS="1000000").bad()
    assert "open files" in bad["limits.descriptors"]


def test_an_issuer_that_is_away_is_found(desk: CheckDesk) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    checked = desk.check(
        VERIFIER_JWKS_URL=f"{away}/.well-known/jwks.json",
        VERIFIER_FEED_URL=f"{away}/revocations",
    )
    assert checked.status == 1
    assert set(checked.bad()) == {"issuer.keys", "issuer.feed"}
    assert "issuer.keys" not in desk.check("--offline").text


def test_a_feed_token_that_is_refused_is_found(desk: CheckDesk) -> None:
    wrong = "w" * 40
    checked = desk.check(VERIFIER_FEED_TOKEN=wrong)
    assert "refuses it (401)" in checked.bad()["issuer.feed_token"]
    assert wrong not in checked.text


def test_another_issuers_feed_is_found(desk: CheckDesk) -> None:
    bad = desk.check(VERIFIER_ISSUER_URL="https://other.test").bad()
    assert set(bad) == {"issuer.name"}
    assert ISSUER in bad["issuer.name"]


def test_answers_that_are_none_are_found(
    desk: CheckDesk, issuer: tuple[IssuerSimulator, SkewedClock, str]
) -> None:
    simulator, _, url = issuer

    def lie(answer: Fetched) -> Fetched:
        return answer._replace(body=orjson.dumps({"hello": "world"}))

    simulator.lie = lie
    try:
        assert set(desk.check().bad()) == {"issuer.keys", "issuer.feed"}
    finally:
        simulator.lie = None
    bad = desk.check(VERIFIER_JWKS_URL=f"{url}/nothing").bad()
    assert set(bad) == {"issuer.keys"}


@pytest.mark.parametrize(
    ("ahead", "level"), [(0, "ok"), (4, "warning"), (90, "error"), (-90, "error")]
)
def test_clocks_that_differ_are_found(
    desk: CheckDesk,
    issuer: tuple[IssuerSimulator, SkewedClock, str],
    ahead: int,
    level: str,
) -> None:
    clock = issuer[1]
    clock.ahead = ahead
    try:
        assert desk.check().levels("issuer.clock") == [level]
    finally:
        clock.ahead = 0


def test_a_slow_answer_hides_no_difference_and_makes_none() -> None:
    """Half the time of the question is the error of the estimate."""
    findings = Findings()
    compare_clocks(5, 1_008.0, 1_000.0, 1_010.0, findings)
    compare_clocks(5, 1_020.0, 1_000.0, 1_010.0, findings)
    assert [finding.level for finding in findings] == [Level.OK, Level.ERROR]
    assert "(+-5.000 s), and 5 s are allowed" in next(iter(findings)).found


def test_tls_of_another_authority_is_found(desk: CheckDesk, tmp_path: Path) -> None:
    right, other = Authority("right"), Authority("other")
    path = tmp_path / "ca.pem"
    path.write_bytes(other.certificate)
    side: ssl.SSLContext = right.serve("127.0.0.1")
    with served(tls=lambda: side) as (_, url):
        changes = {
            "VERIFIER_JWKS_URL": f"{url}/.well-known/jwks.json",
            "VERIFIER_FEED_URL": f"{url}/revocations",
            "VERIFIER_CA_FILE": str(path),
        }
        bad = desk.check(**changes).bad()
        path.write_bytes(right.certificate)
        good = desk.check(**changes)
    assert "authorit" in bad["issuer.keys"]
    assert good.levels("issuer.keys") == good.levels("issuer.feed") == ["ok"]


def test_an_issuer_that_never_answers_is_left_in_time(
    desk: CheckDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter would wait for the thread, so the process ends at once."""
    left: list[int] = []
    monkeypatch.setattr("shared.checking.run.leave", left.append)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        before = time.monotonic()
        checked = desk.check("--timeout", "0.6", VERIFIER_JWKS_URL=f"{url}/keys")
        took = time.monotonic() - before
    assert took < 5
    assert checked.levels("issuer.timeout") == ["error"]
    assert left == [1]


def test_a_check_that_fails_hides_no_other_and_shows_no_value() -> None:
    def fail(_findings: Findings) -> None:
        raise ValueError(FEED_TOKEN)

    checks = [
        Check("one", "ONE", fail),
        Check("two", "TWO", lambda found: found.ok("two", "TWO", "is there")),
    ]
    findings = examine(checks, 5.0).findings
    assert [finding.check for finding in findings] == ["one.failed", "two"]
    assert FEED_TOKEN not in str(findings)


def test_findings_have_a_bound() -> None:
    findings = Findings()
    for _ in range(2 * MAX_FINDINGS):
        findings.ok("a", "A", "b")
    assert len(list(findings)) == MAX_FINDINGS
    assert list(findings)[-1].level is Level.ERROR


def test_people_read_columns_without_colours_in_a_pipe(desk: CheckDesk) -> None:
    status, text = desk.run("check", "--offline", VERIFIER_STATE_DIR="")
    lines = text.splitlines()
    assert status == 0
    assert lines[-1].startswith("ok: ")
    assert "\x1b" not in text
    rows = [line for line in lines[:-1] if not line.startswith(" ")]
    assert {line.split()[0] for line in rows} <= {"ok", "warning", "error"}
    assert len({line.index(line.split()[1]) for line in rows}) == 1
    quiet = desk.run("check", "--offline", "--quiet", VERIFIER_STATE_DIR="")[1]
    assert quiet.startswith("warning VERIFIER_STATE_DIR")


@pytest.mark.parametrize(
    ("runs", "levels"),
    [("verifier", ["ok", "ok"]), ("issuer", ["ok", "error"]), ("", ["ok", "error"])],
)
def test_only_our_own_running_program_may_have_its_ports(
    desk: CheckDesk, runs: str, levels: list[str]
) -> None:
    """An issuer on the verifier's operators' port would keep it from a start."""
    from tests.integration.test_health_command import Operators, listening

    class Metrics(Operators):
        def do_GET(self) -> None:
            if self.path != "/metrics" or not runs:
                return super().do_GET()
            body = f"# TYPE gatehouse_{runs}_build_info gauge\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return None

    with listening(socket.AF_INET, ("127.0.0.1", 0), Metrics) as port:
        assert send(port, "GET", "/healthz").status == 200
        checked = desk.check("--offline", VERIFIER_ADMIN_BIND=f"127.0.0.1:{port}")
    assert checked.levels("ports.bind") == levels
    assert ("and the program runs" in checked.text) == (runs == "verifier")
