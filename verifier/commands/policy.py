"""`python -m verifier policy`: what a policy file says, before it is in force.

It needs no settings and no server, so it runs where the file is written and in CI.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from shared.claims import OWN_ISSUER
from shared.configuration.bounded_file import UnreadableFileError, read_text
from verifier.check.policy import IssuerTerms, Policy, PolicyError, TokenPolicy
from verifier.commands import explain, replay
from verifier.commands.issuers_argument import (
    NamedIssuersError,
    add_issuers,
    read_terms,
)
from verifier.policies.cases import Case, CaseRunner, Decided, parse_cases
from verifier.policies.described_decision import describe_rule, name_rule
from verifier.policies.document import parse_policies
from verifier.policies.meanings import find_meaning
from verifier.policies.warnings import find_warnings
from verifier.reloading.policy_file import require_text

NAME: Final = "policy"
#: Issuer and audience do not matter for a file: the tokens of cases name the same. They
#: are names that no one can own (RFC 6761, section 6.4), so a file that names its own
#: audience differs from one that has the verifier's.
_ISSUER: Final = "https://issuer.invalid"
_AUDIENCE: Final = "https://audience.invalid"
_DESCRIPTION: Final = """\
Check, test, compare and explain policies (docs/policies.md). No settings and no server
are needed. `policy ACT --help` has an example."""
#: Behind the help of `check` and `test`.
_EPILOGS: Final = {
    "check": """\
Example:
  python -m verifier policy check policies.toml

A file that passes can be put in force: VERIFIER_POLICY_FILE names it, and a running
verifier reads it when it changes. The status is 0 when all is well, 1 for warnings, and
2 for a file that cannot be used.
""",
    "test": """\
Example:
  python -m verifier policy test cases.toml

A file of cases names the policy file and has a table for each request:
  policies = "policies.toml"

  [[cases]]
  name = "a reader reads an order"
  policy = "shop"
  host = "shop.example.com"        # needed where rules name hosts
  path = "/orders/7"
  token = { scope = "orders:read" }
  expect = "allow"                 # or a reason such as "scope_insufficient"

With tokens of other issuers, `issuers = "issuers.toml"` stands beside `policies`, and
`issuer = "NAME"` in a case. docs/policies.md has all fields. The status is 0 when every
case passes, 1 when one fails, and 2 for a file that cannot be used.
""",
}


class _FileError(Exception):
    """A file cannot be used; the message names it and the field."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the program's parser."""
    parser = commands.add_parser(
        NAME,
        help="check, test, compare or explain policies",
        description=_DESCRIPTION,
    )
    acts = parser.add_subparsers(dest="act", metavar="ACT", required=True)
    for name, text, file in (
        ("check", "check a policy file, and warn of rules without effect", "policies"),
        ("test", "decide the cases of a file as the gate would, and compare", "cases"),
    ):
        act = acts.add_parser(
            name,
            help=text,
            description=f"{text.capitalize()}.",
            epilog=_EPILOGS[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        act.add_argument("file", metavar="FILE", type=Path, help=f"the {file}, TOML")
        add_issuers(act)
        act.add_argument(
            "--json", action="store_true", help="print one JSON object, for programs"
        )
    replay.add_parser(acts)
    explain.add_parser(acts)


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    if options.act == explain.NAME:
        return explain.run(options)
    try:
        if options.act == "test":
            return _test(options)
        issuers = read_terms(options.issuers)
        if options.act == "check":
            return _check(options, issuers)
        old, new = (
            _read_policies(file, issuers) for file in (options.against, options.file)
        )
        return replay.replay(old, new, options)
    except (_FileError, NamedIssuersError, replay.ReplayError) as error:
        if options.json:
            print(json.dumps({"error": str(error)}))
        else:
            print(error, file=sys.stderr)
        return 2


def _check(options: argparse.Namespace, issuers: Iterable[IssuerTerms]) -> int:
    policies = _read_policies(options.file, issuers)
    warnings = list(find_warnings(policies))
    if options.json:
        print(json.dumps({"policies": sorted(policies), "warnings": warnings}))
    else:
        for name, policy in policies.items():
            rules = len(policy.rules)
            mode = ", in shadow mode" if policy.is_shadow else ""
            mode += _accepted(policy)
            print(f"policy {name}: {rules} rule{'' if rules == 1 else 's'}{mode}")
        for warning in warnings:
            print(f"warning: {warning}")
    return 1 if warnings else 0


def _accepted(policy: Policy) -> str:
    """Return the issuers of a policy, unless it is ours alone."""
    names = [terms.name for terms in policy.token.issuers]
    return "" if names == [OWN_ISSUER] else f", issuers {', '.join(names)}"


def _test(options: argparse.Namespace) -> int:
    file: Path = options.file
    try:
        read = parse_cases(_read(file))
        # As in other files, a relative path counts from the file.
        named = file.parent / read.issuers if read.issuers else None
        issuers = read_terms(options.issuers or named)
        policies = _read_policies(file.parent / read.policies, issuers, read.own_issuer)
        runner = CaseRunner(policies, int(time.time()), issuers)
        decided = [(case, runner.decide(case)) for case in read.cases]
    except PolicyError as error:
        raise _FileError(f"{file}: {error}") from None
    failed = sum(case.expected != found.word for case, found in decided)
    if options.json:
        rows = [
            {
                "name": case.name,
                "expected": case.expected,
                "decided": found.word,
                "rule": None if found.rule is None else found.rule.number,
            }
            for case, found in decided
        ]
        print(json.dumps({"cases": rows, "failed": failed}))
    else:
        for case, found in decided:
            if case.expected != found.word:
                _print_failed(case, found)
        print(f"{len(decided) - failed} of {len(decided)} cases passed")
    return 1 if failed else 0


def _print_failed(case: Case, found: Decided) -> None:
    print(f"failed: {case.name}: expected {case.expected}, decided {found.word}")
    if found.rule is not None:
        print(f"  matches {name_rule(describe_rule(found.rule))}")
    if meaning := find_meaning(found.word):
        print(f"  {meaning}")


def _read_policies(
    file: Path, issuers: Iterable[IssuerTerms], own_issuer: str = ""
) -> Mapping[str, Policy]:
    try:
        text = _read(file)
        require_text(text)
        token = TokenPolicy.own(own_issuer or _ISSUER, _AUDIENCE)
        return parse_policies(text, token, issuers)
    except PolicyError as error:
        raise _FileError(f"{file}: {error}") from None


def _read(file: Path) -> str:
    try:
        # A shell's <(git show HEAD:policies.toml) is a pipe.
        return read_text(file, may_be_pipe=True)
    except FileNotFoundError:
        raise _FileError(f"{file}: is not there") from None
    except UnreadableFileError as error:
        raise _FileError(f"{file}: {error}") from None
