"""`python -m verifier doctor`: finds known holes of a live gateway.

It needs no settings. It sends requests that a client could send, and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from textwrap import dedent, indent
from typing import Any, Final

from verifier.commands.token_file import TokenFileError, read_token
from verifier.doctor import echo
from verifier.doctor.differences import differences_of
from verifier.doctor.examination import (
    CannotExamineError,
    Examination,
    check_echo,
    count_scenarios,
    examine,
)
from verifier.doctor.holes import HOLES
from verifier.doctor.judge import Expectation, Finding, NotATokenError, read_identity
from verifier.doctor.probe import BadUrlError, Gateway
from verifier.doctor.remedies import KINDS, REMEDIES

NAME: Final = "doctor"
HELP: Final = "send probes through a live gateway and report known holes"
_PATH: Final = re.compile(r"/[!-~]*")
_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]*")
#: Probes of one hole that the text names.
_SHOWN_PROBES: Final = 3
_EPILOG: Final = dedent("""\
    Example, on the machine of the gateway, with your application stopped:
      python -m verifier doctor --gateway http://127.0.0.1:8080 \\
          --token-file token.txt --echo 127.0.0.1:8081

    --echo starts an application at the address where the gateway expects yours. It
    answers with the request that it received, so that doctor sees what your application
    would see. Leave it out if such an application runs already: for every request it
    answers {"method": ..., "path": ..., "headers": {...}}.

    The token must pass the policy of the path. Without --token-file only the requests
    that must be refused are sent. Then stop the verifier, and run it once more with
    --verifier-stopped: nothing may pass. A gateway that takes any program's 200 for an
    allow is found only if such a program runs at the verifier's address then, for
    example `python -m uvicorn verifier.doctor.echo:app --port 9000`.

    A gateway that checks tokens by itself is examined with --kind envoy-native or
    haproxy-native: it may do a few things otherwise (docs/native.md). Before
    --verifier-stopped, stop `native` and wait for VERIFIER_MAX_STALENESS: until then the
    gateway goes on.

    No probe changes anything, but the gateway's and the verifier's logs have a line for
    each. A token is never printed.

    The status is 0 when no hole is found, 1 when one is, and 2 when the gateway cannot
    be examined.
    """)


class _ArgumentError(Exception):
    """An argument cannot be used; the message names it."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        NAME,
        help=HELP,
        description="Send probes through a live gateway, and report known holes with "
        "the line of its config that closes each.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--gateway", required=True, metavar="URL", help="http://HOST:PORT, or https")
    add("--token-file", metavar="FILE", help="an access token; - for standard input")
    add("--echo", metavar="HOST:PORT", help="start the echo application there")
    add("--path", default="/orders", help="a protected path (default: %(default)s)")
    add(
        "--public",
        action="append",
        default=[],
        metavar="PATH",
        help="paths that begin so need no token; may be repeated",
    )
    add("--host", default="", help="another value for Host than that of the URL")
    add("--ca-file", default="", metavar="FILE", help="authorities for https, PEM")
    add(
        "--kind",
        choices=KINDS,
        help="the gateway, if its answers do not name it, or if it checks tokens itself",
    )
    add(
        "--verifier-stopped",
        action="store_true",
        help="no verifier runs: every request must be 503 with Retry-After",
    )
    add(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="for each probe (10)",
    )
    add("--json", action="store_true", help="print one JSON object, for programs")


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    try:
        gateway, expected = _read_arguments(options)
        with _echo(options.echo):
            examined = _examine(options, gateway, expected)
    except (_ArgumentError, TokenFileError, CannotExamineError) as error:
        if options.json:
            print(json.dumps({"error": str(error)}))
        else:
            print(error, file=sys.stderr)
        return 2
    kind = options.kind or examined.kind
    if options.json:
        print(json.dumps(_describe(examined, kind)))
    else:
        _print(examined, kind)
    return 1 if examined.findings else 0


def _read_arguments(options: argparse.Namespace) -> tuple[Gateway, Expectation]:
    for name, paths in (("path", [options.path]), ("public", options.public)):
        if not all(map(_PATH.fullmatch, paths)):
            raise _ArgumentError(f"--{name}: must begin with / and be visible ASCII")
    if not _HOST.fullmatch(options.host):
        raise _ArgumentError("--host: must be HOST or HOST:PORT")
    if not 0 < options.timeout <= 600:
        raise _ArgumentError("--timeout: must be seconds, above 0 and at most 600")
    try:
        gateway = Gateway.from_url(
            options.gateway,
            ca_file=options.ca_file,
            host_header=options.host,
            timeout=options.timeout,
        )
    except BadUrlError as error:
        raise _ArgumentError(f"--gateway: {error}") from None
    except OSError as error:
        raise _ArgumentError(f"--ca-file: {error.strerror or 'not PEM'}") from None
    token = read_token(options.token_file) if options.token_file else ""
    differences = differences_of(options.kind or "")
    try:
        identity = differences.identity(read_identity(token)) if token else {}
    except NotATokenError as error:
        raise _ArgumentError(f"--token-file: {error}") from None
    return gateway, Expectation(token, identity, options.path, differences)


@contextlib.contextmanager
def _echo(address: str | None) -> Iterator[None]:
    if not address:
        yield
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise _ArgumentError("--echo: must be HOST:PORT")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(echo.running(host.strip("[]"), int(port)))
        except OSError as error:
            raise _ArgumentError(
                f"--echo: {error.strerror}; stop the application that listens there"
            ) from None
        yield


def _examine(
    options: argparse.Namespace, gateway: Gateway, expected: Expectation
) -> Examination:
    if expected.token and not options.verifier_stopped:
        check_echo(gateway, expected)
    with _bar(count_scenarios(expected, options.public)) as on_probe:
        return examine(
            gateway,
            expected,
            is_verifier_stopped=options.verifier_stopped,
            public=options.public,
            on_probe=on_probe,
        )


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[], object]]:
    from tqdm import tqdm

    # A bar only on a terminal.
    with tqdm(total=total, unit="probe", disable=None, file=sys.stderr) as bar:
        yield bar.update


def _by_hole(findings: list[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for hole in HOLES:
        of_it = [finding for finding in findings if finding.hole == hole]
        if of_it:
            found[hole] = of_it
    return found


def _describe(examined: Examination, kind: str) -> dict[str, Any]:
    """Return the report: `gateway`, `probes`, `skipped`, `holes`."""
    return {
        "gateway": kind,
        "probes": examined.probes,
        "skipped": examined.skipped,
        "holes": [
            {
                "hole": hole,
                "title": HOLES[hole].title,
                "meaning": HOLES[hole].meaning,
                "lines": list(REMEDIES[kind][hole]) if kind else [],
                "probes": [
                    {"probe": finding.scenario, "seen": finding.detail}
                    for finding in findings
                ],
            }
            for hole, findings in _by_hole(examined.findings).items()
        ],
    }


def _print(examined: Examination, kind: str) -> None:
    for hole, findings in _by_hole(examined.findings).items():
        print(f"HOLE {hole}: {HOLES[hole].title}")
        print(f"  {HOLES[hole].meaning}")
        for finding in findings[:_SHOWN_PROBES]:
            print(f"  seen: {finding.scenario}: {finding.detail}")
        if len(findings) > _SHOWN_PROBES:
            print(f"  and in {len(findings) - _SHOWN_PROBES} more probes (--json)")
        if kind:
            print(f"  closed by, in the config of {kind}:")
            print(indent("\n".join(REMEDIES[kind][hole]), "      "))
        else:
            print(f"  for the line that closes it: --kind {'|'.join(KINDS)}")
        print()
    holes = len({finding.hole for finding in examined.findings})
    said = f"{holes} hole{'s' * (holes > 1)}" if holes else "no hole found"
    print(f"{kind or 'gateway'}: {examined.probes} probes, {said}")
    if examined.skipped:
        print(f"{examined.skipped} probes were not sent (no token, or --public)")
