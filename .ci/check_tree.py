"""Refuses files that name a package registry's host or a path of one machine.

Such a name works for whoever wrote it and for nobody else. The hosts are those that
this machine's own pip and apt are set up with, so none has to be written here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

#: Where one machine keeps people's files; what the tests make themselves is no such
#: path.
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:home|root|work|farm|tmp|Users)/(?!gatehouse|tests?\b)[A-Za-z]"
)


#: Prints pip's default registry. Run in a process of its own: where distutils was
#: imported before, an import of pip's modules is a warning of setuptools, in tests an
#: error.
_DEFAULT_REGISTRY = (
    "from pip._internal.models.index import PyPI; "
    "print(PyPI.url, 'https://' + PyPI.file_storage_domain)"
)


def main() -> int:
    """Print every offending line and return 1, or return 0."""
    names = re.compile(
        "|".join([*map(re.escape, registry_hosts()), re.escape(os.getcwd())])
    )
    found = list(offences(tracked_files(), (names, MACHINE_PATH)))
    for offence in found:
        print(f"names a registry or a path of one machine: {offence}")
    return 1 if found else 0


def offences(
    files: Iterable[Path], patterns: Iterable[re.Pattern[str]]
) -> Iterator[str]:
    """Yield `file:line: text` for each line that one of the patterns finds."""
    for file in files:
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if any(pattern.search(line) for pattern in patterns):
                yield f"{file}:{number}: {line.strip()}"


def tracked_files() -> list[Path]:
    """Return the files that git has or would take, without those deleted."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.split("\0") if name and Path(name).is_file()]


def registry_hosts() -> set[str]:
    """Return the host names of the package registries known on this machine."""
    told = [run_python("-m", "pip", "config", "list")]
    told += [run_python("-c", _DEFAULT_REGISTRY)]
    told += [value for name, value in os.environ.items() if "INDEX_URL" in name]
    apt = Path("/etc/apt")
    lists = [apt / "sources.list", *apt.glob("sources.list.d/*")]
    told += [file.read_text() for file in lists if file.is_file()]
    urls = re.findall(r"https?://[^\s'\"]+", "\n".join(told))
    hosts = {urlsplit(url).hostname for url in urls}
    return {host for host in hosts if host and host not in {"localhost", "127.0.0.1"}}


def run_python(*arguments: str) -> str:
    """Return what this Python prints when it is run with `arguments`."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
