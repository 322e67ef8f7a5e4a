"""A package index in a directory, which offers stubs for the names of a lock file.

Each locked package is there in its locked version and in a newer one, both with the
dependencies of the real package. So an installer that resolves takes the newer release,
or fails, where one that installs the lock does not.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: Newer than any release of anything that is locked.
NEWER = "99999.0"
#: The stubs' own requirements: newer releases always, locked ones for an extra.
UNLOCKED = "gatehouse-test-unlocked"

_ENTRY = re.compile(r"^[a-z0-9].*?(?=^[a-z0-9]|\Z)", re.MULTILINE | re.DOTALL)
_HASHES = re.compile(r"( \\\n    --hash=sha256:[0-9a-f]{64})+")


@dataclass(frozen=True, slots=True)
class Pin:
    """One entry of a lock file.

    Attributes:
        requirement: name, extras, `==` version and marker.
        text: the entry as it is in the file, with hashes and comments.
    """

    requirement: Requirement
    text: str

    @property
    def name(self) -> str:
        """The package's name in its normal form."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The locked version."""
        return str(self.requirement.specifier).removeprefix("==")

    @property
    def applies(self) -> bool:
        """Whether this Python on this machine needs it."""
        marker = self.requirement.marker
        return marker is None or marker.evaluate()


def read_lock(text: str) -> list[Pin]:
    """Return the entries of a lock file.

    Raises:
        InvalidRequirement: when it has a line that is none.
    """
    return [
        Pin(Requirement(entry.partition(" \\\n")[0].strip()), entry)
        for entry in _ENTRY.findall(text)
    ]


class StubIndex:
    """An index in a directory.

    Attributes:
        url: the value for pip's `--index-url`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.url = directory.as_uri()

    def add_locked(self, pin: Pin, contents: Mapping[str, bytes] | None = None) -> str:
        """Offer the locked version and a newer one; return the first one's SHA-256.

        Args:
            pin: the package to offer.
            contents: the files of the locked version; a stub has none.
        """
        needs = _real_dependencies(pin.name)
        # An installer that reads an extra's dependencies finds names that no lock has.
        for extra in sorted(pin.requirement.extras):
            needs.append(f'{UNLOCKED} ; extra == "{extra}"')
        locked = self.add(pin.name, pin.version, needs, contents or {})
        self.add(pin.name, NEWER, [*needs, UNLOCKED], {})
        return locked

    def add(
        self,
        name: str,
        version: str,
        needs: Iterable[str],
        contents: Mapping[str, bytes],
    ) -> str:
        """Offer one wheel, unless it is offered already, and return its SHA-256."""
        folder = self._directory / name
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        if not file.exists():
            _write_wheel(file, name, version, needs, contents)
            page = folder / "index.html"
            shown = page.read_text() if page.exists() else "<!DOCTYPE html>\n"
            page.write_text(f'{shown}<a href="{file.name}">{file.name}</a>\n')
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def relock(
        self, text: str, contents: Mapping[str, Mapping[str, bytes]] | None = None
    ) -> str:
        """Offer all that a lock names; return the lock with the stubs' hashes.

        Args:
            text: the lock file's.
            contents: files by package, for those that are to be more than a stub.
        """
        for pin in read_lock(text):
            digest = self.add_locked(pin, (contents or {}).get(pin.name))
            hashed = _HASHES.sub(f" \\\\\n    --hash=sha256:{digest}", pin.text)
            text = text.replace(pin.text, hashed)
        return text


def _real_dependencies(name: str) -> list[str]:
    """Return the real package's requirements, as the environment has them."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        # For another platform or an older Python.
        return []


def _write_wheel(
    file: Path,
    name: str,
    version: str,
    needs: Iterable[str],
    contents: Mapping[str, bytes],
) -> None:
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    extras = sorted(set(re.findall(r"""extra\s*==\s*["']([^"']+)""", " ".join(needs))))
    lines = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Provides-Extra: {extra}" for extra in extras),
        *(f"Requires-Dist: {need}" for need in needs),
    ]
    files = dict(contents) | {
        f"{info}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: stub\n"
        b"Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(file, "w") as wheel:
        for path, data in files.items():
            wheel.writestr(path, data)
        record = f"{info}/RECORD"
        wheel.writestr(record, _record(files, record))


def _record(files: Mapping[str, bytes], own: str) -> str:
    rows: Sequence[str] = [
        f"{path},sha256={_urlsafe(data)},{len(data)}" for path, data in files.items()
    ]
    return "\n".join([*rows, f"{own},,", ""])


def _urlsafe(data: bytes) -> str:
    digest = hashlib.sha256(data).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
