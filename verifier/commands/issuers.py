"""`python -m verifier issuers`: whether tokens of other issuers would pass.

It needs no settings. It asks the issuers for what is public, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

from shared.checking.arguments import DEFAULT_TIMEOUT, read_timeout
from shared.checking.examination import Check, examine
from shared.checking.findings import Findings
from shared.checking.report import status_of, write_json, write_text
from shared.checking.run import finish
from shared.configuration.toml_fields import name_nearest
from shared.outgoing.authorities import Authorities, AuthoritiesError
from verifier.check.policy import KnownIssuer
from verifier.checking.other_issuers import ask_other_issuer
from verifier.checking.sample_token import Facts, check_sample, choose_issuer
from verifier.commands.issuers_argument import NamedIssuersError, read_issuers
from verifier.commands.token_file import TokenFileError, read_token
from verifier.policies.other_issuers import terms_of

NAME: Final = "issuers"
HELP: Final = "check other issuers: their keys, and a sample token"
_EPILOG: Final = dedent("""\
    Examples:
      python -m verifier issuers check issuers.toml
      python -m verifier issuers check issuers.toml --name keycloak \\
          --token-file token.txt

    For each issuer of the file it fetches the OpenID configuration, unless the file has
    jwks_url, and the keys. It explains which keys can be used, and why others cannot.
    A sample token is verified as the gate does, with the facts that the gate would send
    and the claims that have none. The token is never printed.

    docs/issuers/README.md has the fields of the file. The status is 0 when nothing is
    wrong, 1 when a finding has level error, and 2 for a file or an argument that cannot
    be used.
    """)


class _ArgumentError(Exception):
    """An argument cannot be used; the message names it."""


@dataclass
class _Sample:
    """The sample token.

    Attributes:
        token: the text.
        issuer: the name of the issuer that it is held against.
        facts: what it says; None until it was verified.
    """

    token: bytes
    issuer: str
    facts: Facts | None = field(default=None)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the program's parser."""
    parser = commands.add_parser(
        NAME, help=HELP, description="Other issuers, whose tokens policies may accept."
    )
    acts = parser.add_subparsers(dest="act", metavar="ACT", required=True)
    act = acts.add_parser(
        "check",
        help="fetch the keys of each issuer, and verify a sample token",
        description="Fetch the keys of each issuer, and verify a sample token.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = act.add_argument
    add("file", metavar="FILE", type=Path, help="the issuers, TOML")
    add("--name", default="", help="this issuer of the file only")
    add("--token-file", metavar="FILE", help="a sample token; - for standard input")
    add("--ca-file", default="", metavar="FILE", help="authorities for https, PEM")
    add("--json", action="store_true", help="print one JSON object, for programs")
    add(
        "--timeout",
        type=read_timeout,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="for all issuers together (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    try:
        issuers = _read_issuers(options.file, options.name)
        authorities = Authorities("--ca-file", options.ca_file)
        token = read_token(options.token_file).encode() if options.token_file else b""
    except AuthoritiesError as error:
        return _stop(f"--ca-file: {error}", options)
    except (_ArgumentError, NamedIssuersError, TokenFileError) as error:
        return _stop(str(error), options)
    return _examine(issuers, authorities, token, options)


def _stop(message: str, options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps({"error": message}))
    else:
        print(message, file=sys.stderr)
    return 2


def _read_issuers(file: Path, name: str) -> list[KnownIssuer]:
    others = read_issuers(file)
    if name and name not in others:
        raise _ArgumentError(
            f"--name: {file} has no issuer {name!r}{name_nearest(name, others)}"
        )
    chosen = [others[name]] if name else others.values()
    return [KnownIssuer(terms_of(other), other.jwks_url) for other in chosen]


def _examine(
    issuers: list[KnownIssuer],
    authorities: Authorities,
    token: bytes,
    options: argparse.Namespace,
) -> int:
    sample, findings = None, Findings()
    if token:
        chosen = choose_issuer(token, issuers, findings)
        sample = _Sample(token, chosen.terms.name) if chosen is not None else None
    checks = _follow(issuers, authorities, sample)
    examined = examine(checks, options.timeout)
    found = [*examined.findings, *findings]
    status = status_of(found, is_strict=False)
    facts = sample.facts if sample is not None else None
    if options.json:
        write_json("verifier", found, status, facts=_as_json(facts))
    else:
        write_text(found, is_quiet=False)
    return finish(examined, status)


def _as_json(facts: Facts | None) -> dict[str, Any] | None:
    return None if facts is None else facts._asdict()


def _follow(
    issuers: list[KnownIssuer], authorities: Authorities, sample: _Sample | None
) -> Iterator[Check]:
    """Yield a check for each issuer, and show the progress on a terminal."""
    from tqdm import tqdm

    # `disable=None`: silent when standard error is no terminal.
    for known in tqdm(issuers, unit="issuer", disable=None, file=sys.stderr):
        run_one = partial(_check_one, known, authorities, sample)
        yield Check("issuers", f"issuers.{known.terms.name}", run_one)


def _check_one(
    known: KnownIssuer,
    authorities: Authorities,
    sample: _Sample | None,
    findings: Findings,
) -> None:
    found = ask_other_issuer(known, authorities, findings)
    if found is not None and sample is not None and sample.issuer == known.terms.name:
        now = int(time.time())
        sample.facts = check_sample(sample.token, known.terms, found, now, findings)
