"""`python -m verifier policy explain`: why a request passes or not.

By a policy file it needs no settings and no server. With `--url` a running verifier
explains it, which knows its keys and revocations.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any, Final
from urllib.parse import urlsplit

from shared.claims import is_identifier
from shared.configuration.bounded_file import UnreadableFileError, read_text
from shared.jose.verification_keys import JwksError
from verifier.check.policy import DEFAULT_POLICY, PolicyError
from verifier.commands.issuers_argument import (
    NamedIssuersError,
    add_issuers,
    read_terms,
)
from verifier.commands.token_file import TokenFileError, read_token
from verifier.policies.described_decision import name_rule
from verifier.policies.described_request import DescribedRequestError
from verifier.policies.explanation import CheckOutcome
from verifier.policies.meanings import find_meaning
from verifier.policies.offline import Expected, explain_offline
from verifier.reloading.policy_file import require_text

NAME: Final = "explain"
HELP: Final = "explain why a request passes or not, check by check"
_EPILOG: Final = dedent("""\
    Explain a refusal by its id, the X-Auth-Decision-Id of the answer:
      policy explain --url http://127.0.0.1:9100 --decision-id 0c5e9d7f1b2a4386
    Ask a running verifier about a request; it knows keys and revocations:
      policy explain --url http://127.0.0.1:9100 --token-file token.txt \\
          --policy shop --host shop.example.com --path /orders/7
    Ask a policy file, with the issuer's keys as curl saves them:
      curl -o jwks.json https://auth.example.com/.well-known/jwks.json
      policy explain policies.toml --token-file token.txt --jwks jwks.json \\
          --policy shop --host shop.example.com --path /orders/7
    A file that names other issuers needs --issuers issuers.toml as well, and --jwks has
    the keys of the token's own issuer. Give it --issuer, too: without it a token whose
    `iss` is in no entry of the file is judged as one of our own.
    Without --jwks the signature is not checked. Without --token-file the request has no
    token. A token is never printed.

    The status is 0 when the request passes and 1 when it is refused. It is 2 when the
    question cannot be answered, and 3 when the request passes if the signature, which
    was not checked, is good.
    """)
_URL_HINT: Final = "use the operators' port, VERIFIER_ADMIN_BIND"
#: Outcomes of checks that were not made: `_print_checks` counts them.
_COUNTED: Final = (CheckOutcome.NOT_NEEDED.value, CheckOutcome.NOT_REACHED.value)
#: Seconds for each step of one question.
_TIMEOUT: Final = 10.0
#: Bytes of an answer that are read.
_MAX_ANSWER: Final = 1_048_576


class ExplainError(Exception):
    """Nothing can be said; the message names the argument, and repeats no secret."""


def add_parser(acts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of `policy`."""
    parser = acts.add_parser(
        NAME,
        help=HELP,
        description="Explain why a request passes or not, check by check.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="the policies, TOML")
    add = parser.add_argument
    add("--url", help="ask a running verifier: http://HOST:PORT of its operators' port")
    add("--decision-id", metavar="ID", help="explain this decision; needs --url")
    add("--token-file", metavar="FILE", help="the access token; - for standard input")
    add("--policy", default=DEFAULT_POLICY, help="the policy (default: %(default)s)")
    add("--method", default="GET", help="the client's method (default: %(default)s)")
    add("--host", default="", help="the host of the URL, needed where rules name hosts")
    add("--path", default="/", help="its path and query (default: %(default)s)")
    add(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header of the client, for example Origin; may be repeated",
    )
    add("--jwks", metavar="FILE", help="the keys of the token's issuer, a saved JWKS")
    add_issuers(parser)
    add("--issuer", default="", help="VERIFIER_ISSUER_URL; default: not checked")
    add("--audience", default="", help="VERIFIER_AUDIENCE; default: not checked")
    add("--json", action="store_true", help="print one JSON object, for programs")


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    try:
        _check_arguments(options)
        said = _ask(options) if options.url else _explain(options)
    except (ExplainError, NamedIssuersError, TokenFileError) as error:
        if options.json:
            print(json.dumps({"error": str(error)}))
        else:
            print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(said))
    else:
        _print(said)
    if said["decision"] != "allow":
        return 1
    return 0 if said.get("signature_checked", True) else 3


def _check_arguments(options: argparse.Namespace) -> None:
    if bool(options.file) == bool(options.url):
        if options.decision_id and not options.file:
            raise ExplainError("--decision-id: needs --url http://HOST:PORT")
        raise ExplainError(
            "name a policy FILE, or --url http://HOST:PORT of a running verifier"
            + (", not both" if options.url else "")
        )
    if options.decision_id and not options.url:
        raise ExplainError("--decision-id: needs --url; a file knows no decisions")
    if options.decision_id and options.token_file:
        raise ExplainError("--decision-id: explains a decision that was made already")
    if options.url and (
        options.jwks or options.issuers or options.issuer or options.audience
    ):
        raise ExplainError(
            "--jwks, --issuers, --issuer and --audience: the verifier at --url has its "
            "own"
        )
    for name in ("issuer", "audience"):
        value = getattr(options, name)
        if value and not is_identifier(value):
            raise ExplainError(f"--{name}: must be text of 1..256 characters")


def _explain(options: argparse.Namespace) -> dict[str, Any]:
    expected = Expected(
        options.issuer,
        options.audience,
        _read(options.jwks, "--jwks").encode() if options.jwks else None,
        read_terms(options.issuers),
    )
    policies = _read(options.file, "FILE")
    now = int(time.time())
    try:
        require_text(policies)
        return explain_offline(policies, _describe(options), expected, now)
    except PolicyError as error:
        raise ExplainError(f"{options.file}: {error}") from None
    except JwksError as error:
        raise ExplainError(f"--jwks: {error}") from None
    except DescribedRequestError as error:
        raise ExplainError(str(error)) from None


def _describe(options: argparse.Namespace) -> dict[str, Any]:
    """Return the request as `/explain` takes it."""
    described: dict[str, Any] = {
        "policy": options.policy,
        "method": options.method,
        "host": options.host,
        "uri": options.path,
        "headers": {},
    }
    for line in options.header:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ExplainError("--header: must be 'NAME: VALUE'")
        if name.strip().lower() == "authorization":
            raise ExplainError("--header: a credential comes from --token-file")
        described["headers"].setdefault(name.strip(), []).append(value.strip())
    try:
        json.dumps(described, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ExplainError("the request: must be UTF-8") from None
    if options.token_file:
        described["token"] = read_token(options.token_file)
    return described


def _read(file: str, argument: str) -> str:
    try:
        return read_text(Path(file))
    except FileNotFoundError:
        raise ExplainError(f"{argument}: {file} is not there") from None
    except UnreadableFileError as error:
        raise ExplainError(f"{argument}: {file} {error}") from None


def _ask(options: argparse.Namespace) -> dict[str, Any]:
    """Let a running verifier explain."""
    asked = (
        {"decision_id": options.decision_id}
        if options.decision_id
        else _describe(options)
    )
    # No proxy of the environment: the token is for the verifier alone.
    connection = _connect(options.url)
    try:
        body = json.dumps(asked)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/explain", body, headers)
        answer = connection.getresponse()
        text = answer.read(_MAX_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ExplainError(f"--url: {options.url} does not answer: {reason}") from None
    finally:
        connection.close()
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict) or (answer.status == 200 and "checks" not in said):
        raise ExplainError(
            f"--url: answers {answer.status}, not as /explain of this version does; "
            f"{_URL_HINT}"
        )
    if answer.status != 200:
        detail = said.get("detail") or f"it has no /explain; {_URL_HINT}"
        raise ExplainError(f"--url: answers {answer.status}: {detail}")
    return said


def _connect(url: str) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ExplainError(f"--url: must be http://HOST:PORT; {_URL_HINT}") from None
    is_origin = parts.path in ("", "/") and not parts.query and not parts.fragment
    if parts.scheme != "http" or not parts.hostname or parts.username is not None:
        raise ExplainError(f"--url: must be http://HOST:PORT; {_URL_HINT}")
    if not is_origin:
        raise ExplainError("--url: must be http://HOST:PORT, without a path")
    return http.client.HTTPConnection(parts.hostname, port, timeout=_TIMEOUT)


def _print(said: dict[str, Any]) -> None:
    """Print the explanation as lines and a table."""
    reason = said["reason"] and f", {said['reason']}"
    print(f"{said['auth_decision'] or said['decision']}: {said['status']}{reason}")
    if said["shadow_reason"]:
        print(f"shadow mode: it would be refused, {said['shadow_reason']}")
    if meaning := find_meaning(said["reason"] or said["shadow_reason"]):
        print(f"meaning: {meaning}")
    if not said.get("signature_checked", True):
        print("not verified: the token may be anybody's; --jwks checks its signature")
    print(f"policy: {said['policy'] or '(none)'}{_rule_of(said)}")
    if issuer := said.get("issuer"):
        iss = said.get("claims", {}).get("iss", "")
        print(f"issuer: {issuer}{f', {iss}' if iss else ''}")
    if said["kid"]:
        print(f"key: {said['kid']}")
    if said.get("challenge"):
        print(f"client sees: WWW-Authenticate: {said['challenge']}")
    if feed := said.get("feed"):
        print(
            f"feed: position {feed['position']}, fresh for {feed['fresh_for']} s more"
        )
    print()
    _print_checks(said["checks"])


def _print_checks(checks: list[dict[str, str]]) -> None:
    """Print a line for each check that was made, and count the others."""
    shown = [row for row in checks if row["outcome"] not in _COUNTED]
    width = max(len(row["check"]) for row in checks)
    for row in shown:
        line = f"{row['check']:{width}}  {row['outcome']:12}  {row.get('reason', '')}"
        print(line.rstrip())
    for outcome in _COUNTED:
        number = sum(row["outcome"] == outcome for row in checks)
        if number:
            print(f"{'other checks':{width}}  {outcome:12}  {number}; --json has them")


def _rule_of(said: dict[str, Any]) -> str:
    rule = said["rule"]
    if rule is None:
        return ""
    if "path" not in rule:
        return f", rule {rule['number']} of an earlier file"
    return f", {name_rule(rule)}"
