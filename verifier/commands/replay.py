"""`python -m verifier policy replay`: what a proposed policy file would change.

The log is read line by line, so memory does not grow with it. Nothing of a line is
printed but method, host and path of a few examples, escaped.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import IO, Any, Final, cast

from verifier.check.policy import Policy
from verifier.commands.issuers_argument import add_issuers
from verifier.policies.access_log import LogLineError, read_lines, read_request
from verifier.policies.replay import DISAGREES, Change, Replay, Row

NAME: Final = "replay"
HELP: Final = "show what a new policy file would change for an access log"
#: The name of a log that stands for standard input.
_STANDARD_INPUT: Final = "-"
_GZIP: Final = b"\x1f\x8b"
#: Lines between two movements of the progress bar.
_STEP: Final = 500
_EPILOG: Final = dedent("""\
    Example:
      python -m verifier policy replay new.toml --against policies.toml \\
          --log /var/log/nginx/gatehouse.log --log /var/log/nginx/gatehouse.log.1.gz

    Each line of a log is a JSON object. docs/policies.md has the lines to copy into the
    configuration of nginx or Envoy. A log needs no token and no query.

    For each rule that decides a request it prints
      newly refused        they passed, and would be refused
      newly allowed        they were refused, and would pass
      allowed differently  they pass, but another X-Auth-Decision reaches the application
      cannot tell          it depends on something that no log has: claims, ages, the
                           token of a request that was refused. The word is the reason
                           for which they may be refused; old_file_disagrees: --against
                           does not decide what the log says

    The exit status is 0 when every line was replayed and nothing changes, 1 when
    something changes, cannot be decided or was not read, and 2 for a file that cannot
    be used or a log without a request.
    """)


class ReplayError(Exception):
    """A log cannot be used; the message names it."""


def add_parser(acts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `policy`."""
    act = acts.add_parser(
        NAME,
        help=HELP,
        description=f"{HELP.capitalize()}.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    act.add_argument("file", metavar="NEW", type=Path, help="the proposed policies")
    act.add_argument(
        "--against",
        metavar="OLD",
        type=Path,
        required=True,
        help="the policies that were in force when the log was written",
    )
    act.add_argument(
        "--log",
        metavar="LOG",
        action="append",
        required=True,
        help="an access log, also compressed with gzip; - for standard input; may be "
        "repeated",
    )
    act.add_argument(
        "--policy",
        metavar="NAME",
        default="",
        help="the policy of requests whose line names none",
    )
    add_issuers(act)
    act.add_argument(
        "--json", action="store_true", help="print one JSON object, for programs"
    )


@dataclass
class Lines:
    """The lines of the logs, beside those that were replayed.

    Attributes:
        unread: how many could not be read, by reason.
        first_unread: the log, number and reason of the first of them; None for none.
        unasked: requests about which the gate did not answer.
    """

    unread: Counter[str] = field(default_factory=Counter)
    first_unread: tuple[str, int, str] | None = None
    unasked: int = 0

    def refuse(self, log: str, number: int, reason: str) -> None:
        """Count a line that could not be read."""
        self.unread[reason] += 1
        if self.first_unread is None:
            self.first_unread = (log, number, reason)


def replay(
    old: Mapping[str, Policy], new: Mapping[str, Policy], options: argparse.Namespace
) -> int:
    """Replay the logs and print the report; return the exit status.

    Raises:
        ReplayError: when a log cannot be read, or has no request.
    """
    work, lines = Replay(old, new, int(time.time())), Lines()
    for log in options.log:
        _read_log(log, options.policy, work, lines)
    if not work.requests:
        first = lines.first_unread
        reason = f"{first[0]}: line {first[1]} {first[2]}" if first else "it is empty"
        raise ReplayError(f"no request could be replayed: {reason}")
    if options.json:
        print(json.dumps(_as_json(work, lines)))
    else:
        print("\n".join(_as_text(work, lines)))
    return 1 if lines.unread or any(work.totals().values()) else 0


def _read_log(log: str, policy: str, work: Replay, lines: Lines) -> None:
    try:
        with _open(log) as (stream, raw):
            for number, line in enumerate(_followed(stream, raw, log), 1):
                if line == b"":
                    continue
                try:
                    request = read_request(line, policy)
                except LogLineError as error:
                    lines.refuse(log, number, str(error))
                    continue
                if request is None:
                    lines.unasked += 1
                else:
                    work.add(request)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ReplayError(f"{log}: is damaged gzip, or is cut off") from None
    except OSError as error:
        raise ReplayError(f"{log}: {error.strerror or error}") from None


@contextmanager
def _open(log: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Yield the log's lines, and the file that they come from."""
    if log == _STANDARD_INPUT:
        yield sys.stdin.buffer, sys.stdin.buffer
        return
    with open(log, "rb") as raw:
        if raw.peek(2)[:2] != _GZIP:
            yield raw, raw
            return
        with gzip.open(raw) as lines:
            yield cast(IO[bytes], lines), raw


def _followed(stream: IO[bytes], raw: IO[bytes], log: str) -> Iterator[bytes | None]:
    """Yield the lines, and show on a terminal how much of the file was read."""
    # A serving verifier need not load it.
    from tqdm import tqdm

    path = Path(log)
    size = path.stat().st_size if log != _STANDARD_INPUT and path.is_file() else None
    # `disable=None`: silent when standard error is no terminal.
    with tqdm(
        total=size, unit="B", unit_scale=True, disable=None, file=sys.stderr, desc=log
    ) as bar:
        for number, line in enumerate(read_lines(stream)):
            if size is not None and number % _STEP == 0:
                bar.update(raw.tell() - bar.n)
            yield line


def _as_text(work: Replay, lines: Lines) -> Iterator[str]:
    policy = None
    for row in work.rows:
        if row.name.policy != policy:
            policy = row.name.policy
            yield f"policy {policy}" if policy else "policies that are in neither file"
        yield f"  {_title(row)}: {_count(row.before, 'request')} before, {row.after} after"
        for change, words in row.changes.items():
            listed = ", ".join(f"{word} {n}" for word, n in words.most_common())
            yield f"    {_spell(change)}: {words.total()} ({listed})"
            for example in row.examples[change]:
                yield f"      {example}"
    changes = [f"{count} {_spell(change)}" for change, count in work.totals().items()]
    yield f"{_count(work.requests, 'request')} replayed: {', '.join(changes)}"
    disagreeing = _count_disagreeing(work.rows)
    if disagreeing:
        yield (
            f"{disagreeing} of them the gate did not answer as --against decides: the log "
            "is from another policy file, or the gateway names another policy"
        )
    if lines.unasked:
        yield f"{_count(lines.unasked, 'request')} had no answer of the gate"
    if lines.first_unread is not None:
        log, number, reason = lines.first_unread
        yield (
            f"{_count(lines.unread.total(), 'line')} could not be read; the first is "
            f"line {number} of {log}: it {reason}"
        )


def _title(row: Row) -> str:
    name = row.name
    if name.note:
        return name.note
    words = [*name.methods, *name.hosts, name.path]
    if not row.old_number or not row.new_number:
        file = "NEW" if row.new_number else "OLD"
        number = f"rules[{row.new_number or row.old_number}] of {file}"
    elif row.old_number != row.new_number:
        number = f"rules[{row.new_number}], before rules[{row.old_number}],"
    else:
        number = f"rules[{row.new_number}]"
    return f"{number} {' '.join(words)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _spell(change: Change) -> str:
    return change.value.replace("_", " ")


def _count_disagreeing(rows: Sequence[Row]) -> int:
    words = [row.changes.get(Change.CANNOT_TELL, Counter()) for row in rows]
    return sum(counts[DISAGREES] for counts in words)


def _as_json(work: Replay, lines: Lines) -> dict[str, Any]:
    first = lines.first_unread
    return {
        "requests": work.requests,
        **{change.value: count for change, count in work.totals().items()},
        "rules": [_describe(row) for row in work.rows],
        "not_asked": lines.unasked,
        "unread_lines": dict(lines.unread),
        "first_unread_line": (
            None
            if first is None
            else dict(zip(("log", "line", "reason"), first, strict=True))
        ),
    }


def _describe(row: Row) -> dict[str, Any]:
    name = row.name
    return {
        "policy": name.policy or None,
        "rule": row.new_number or None,
        "rule_before": row.old_number or None,
        "path": name.path or None,
        "methods": list(name.methods),
        "hosts": list(name.hosts),
        "note": name.note or None,
        "requests_before": row.before,
        "requests_after": row.after,
        **{change.value: dict(row.changes.get(change, Counter())) for change in Change},
        "examples": {
            change.value: examples for change, examples in row.examples.items()
        },
    }
