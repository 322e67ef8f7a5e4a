"""Compile the modules that every check uses, with mypyc: the same source, a fifth
faster.

Run `python -m deploy.compile DIRECTORY`. The directory gets the packages `shared` and
`verifier`, and beside each module of `list_modules` its compiled form, which Python
prefers.
The source is read, tested and type-checked as before; the compiled form also checks the
types of its arguments (docs/decisions/0009-compiled-gate.md).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import Final

PACKAGES: Final = ("shared", "verifier")
_SOURCE: Final = Path(__file__).resolve().parents[1]
#: Outside of `check`: the hot modules of the wire, and their imports from `shared`.
_OTHERS: Final = (
    "shared/claims.py",
    "shared/feed.py",
    "shared/identity_headers.py",
    "shared/jose/algorithms.py",
    "shared/jose/base64url.py",
    "shared/jose/jwk.py",
    "shared/jose/jws.py",
    "shared/jose/strict_json.py",
    "shared/jose/verification_keys.py",
    "verifier/operators/decision_log.py",
    "verifier/wire/budgets.py",
    "verifier/wire/check_times.py",
    "verifier/wire/connections.py",
    "verifier/wire/heads.py",
    "verifier/wire/protocol.py",
    "verifier/wire/public_port.py",
    "verifier/wire/reading.py",
    "verifier/wire/states.py",
)
#: The compiled modules are one library, and nothing else uses its functions. So they
#: call each other, and Python, without a detour through the linker's tables: a check
#: takes 3 to 5 % less time.
_COMPILER_OPTIONS: Final = (
    "-fvisibility=hidden",
    "-fno-semantic-interposition",
    "-fno-plt",
)
#: A refusal is an exception. Each compiled function that it passes makes a code object,
#: a frame and a traceback, which nothing reads: a seventh of the cost of refusing
#: garbage. So the compiled functions of these folders are in no traceback.
_REFUSING: Final = ("shared/jose", "verifier/check")
_TRACEBACK: Final = re.compile(
    rf'CPy_AddTraceback\("(?:{"|".join(_REFUSING)})/[^;]*\);'
)


class CannotCompileError(Exception):
    """A tool is missing; the message names it and how to install it."""


def list_modules(source: Path = _SOURCE) -> list[str]:
    """Return the paths of the modules to compile, relative to `source`.

    Raises:
        CannotCompileError: when the packages are not there.
    """
    check = sorted((source / "verifier/check").rglob("*.py"))
    if not check:
        raise CannotCompileError(f"there is no verifier/check in {source}")
    names = [str(path.relative_to(source)) for path in check]
    return [*(name for name in names if not name.endswith("__init__.py")), *_OTHERS]


def compile_into(directory: Path, source: Path = _SOURCE) -> None:
    """Copy the packages into the directory and compile `list_modules` there.

    Args:
        directory: created if it does not exist; may be `source` itself.
        source: the folder of the packages.

    Raises:
        CannotCompileError: the C compiler, Python's headers or mypy are missing.
    """
    _check_tools()
    modules = list_modules(source)
    directory.mkdir(parents=True, exist_ok=True)
    if not directory.samefile(source):
        for package in PACKAGES:
            shutil.rmtree(directory / package, ignore_errors=True)
            shutil.copytree(
                source / package,
                directory / package,
                ignore=shutil.ignore_patterns("__pycache__", "*.so"),
            )
    before = Path.cwd()
    # mypyc names modules by their paths from this folder; setuptools builds into it.
    os.chdir(directory)
    try:
        _build(modules)
    finally:
        os.chdir(before)


def _check_tools() -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler):
        raise CannotCompileError(
            f"a C compiler is needed ({compiler}): Debian package gcc"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        raise CannotCompileError(
            f"Python's headers are needed ({header}): Debian package python3-dev"
        )


def _build(modules: Sequence[str]) -> None:
    try:
        from mypyc.build import mypycify
        from setuptools import Distribution
        from setuptools.command.build_ext import build_ext
    except ImportError as error:
        raise CannotCompileError(
            f"{error.name} is needed: sh requirements/install {sys.executable} "
            "requirements/compile.lock"
        ) from None
    with tempfile.TemporaryDirectory(prefix="gatehouse-compile-") as folder:
        extensions = mypycify(
            [
                "--config-file=",
                f"--cache-dir={folder}/mypy",
                "--ignore-missing-imports",
                *modules,
            ],
            target_dir=folder,
            group_name="gatehouse",
        )
        for extension in extensions:
            _drop_tracebacks(extension.sources)
            given = extension.extra_compile_args
            extension.extra_compile_args = [*given, *_COMPILER_OPTIONS]
        command = build_ext(
            Distribution({"name": "gatehouse", "ext_modules": extensions})
        )
        command.inplace = True
        command.build_temp = folder
        command.build_lib = folder
        command.ensure_finalized()
        command.run()


def _drop_tracebacks(sources: Sequence[str]) -> None:
    """Take the calls that make tracebacks out of the C code of `_REFUSING`."""
    for source in map(Path, sources):
        if source.name.startswith("__native"):
            code = source.read_text()
            source.write_text(_TRACEBACK.sub("", code))


def main(arguments: list[str] | None = None) -> int:
    """Compile; return the exit status: 0, or 1 when something is missing."""
    options = parser().parse_args(arguments)
    try:
        count = len(list_modules(options.source))
        print(f"compiling {count} modules, about half a minute", file=sys.stderr)
        compile_into(options.directory, options.source)
    except CannotCompileError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"compiled into {options.directory}", file=sys.stderr)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(
        prog="python -m deploy.compile",
        description="Compile the verifier's modules that every check passes through.",
        epilog=dedent("""\
            A verifier runs from there when the directory comes first on its path:
                python -m deploy.compile /opt/gatehouse/lib
                cd / && PYTHONPATH=/opt/gatehouse/lib python -m verifier
            /status shows which one runs ("compiled"). Compiled for one version of
            Python and one kind of processor: another needs its own.
            """),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("directory", type=Path, help="where to; made when not there")
    made.add_argument(
        "--source",
        type=Path,
        default=_SOURCE,
        metavar="DIR",
        help="where the packages are (default: this repository)",
    )
    return made


if __name__ == "__main__":
    raise SystemExit(main())
