"""Reads the access token that `--token-file` names. It is never repeated."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from shared.configuration.bounded_file import UnreadableFileError, read_text

#: Characters of a token that are read; the gate takes fewer.
MAX_TOKEN: Final = 65_536


class TokenFileError(ValueError):
    """There is no token; the message names the argument and has the rule."""


def read_token(file: str) -> str:
    """Return a token without white space around it.

    Args:
        file: its path; `-` for standard input.

    Raises:
        TokenFileError: the file cannot be read, or has something else.
    """
    text = _read_input() if file == "-" else _read_file(file)
    token = text.strip()
    if not token or len(text) > MAX_TOKEN:
        raise TokenFileError(f"--token-file: must have 1 to {MAX_TOKEN} characters")
    if token.lower().startswith(("bearer ", "authorization:", "{")):
        raise TokenFileError(
            "--token-file: must have the token alone, no header or JSON"
        )
    return token


def _read_input() -> str:
    try:
        return sys.stdin.read(MAX_TOKEN + 1)
    except UnicodeDecodeError:
        raise TokenFileError("--token-file: is not UTF-8") from None


def _read_file(file: str) -> str:
    try:
        return read_text(Path(file))
    except FileNotFoundError:
        raise TokenFileError(f"--token-file: {file} is not there") from None
    except UnreadableFileError as error:
        raise TokenFileError(f"--token-file: {file} {error}") from None
