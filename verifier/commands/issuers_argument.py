"""Reads the issuers file that a command's argument names (docs/issuers/README.md)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from shared.configuration.bounded_file import UnreadableFileError, read_text
from shared.configuration.issuers_file import (
    IssuersFileError,
    OtherIssuer,
    parse_issuers,
)
from verifier.check.policy import IssuerTerms
from verifier.policies.other_issuers import terms_of


class NamedIssuersError(ValueError):
    """The file cannot be used; the message names it and the field."""


def add_issuers(parser: argparse.ArgumentParser) -> None:
    """Add `--issuers` to a command that reads policies."""
    parser.add_argument(
        "--issuers",
        metavar="FILE",
        type=Path,
        help="the issuers file, where policies name other issuers",
    )


def read_terms(file: Path | None) -> tuple[IssuerTerms, ...]:
    """Return what the tokens of each issuer of a file must be; empty without a file.

    Raises:
        NamedIssuersError: the file cannot be used.
    """
    if file is None:
        return ()
    return tuple(map(terms_of, read_issuers(file).values()))


def read_issuers(file: Path) -> Mapping[str, OtherIssuer]:
    """Return the issuers of a file by name.

    Raises:
        NamedIssuersError: the file cannot be used.
    """
    try:
        return parse_issuers(read_text(file, may_be_pipe=True))
    except FileNotFoundError:
        raise NamedIssuersError(f"{file}: is not there") from None
    except (UnreadableFileError, IssuersFileError) as error:
        raise NamedIssuersError(f"{file}: {error}") from None
