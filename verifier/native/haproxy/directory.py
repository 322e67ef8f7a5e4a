"""The directory from which HAProxy reads keys, maps and the rules of policies.

HAProxy loads a key only where its configuration names the file, and only when it
starts. So the configuration lists the files, and HAProxy is reloaded for a new one. The
maps are empty files: what a worker has in them it was sent, and without a window it
lets nothing pass.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.claims import ALGORITHM
from shared.jose.verification_keys import VerificationKey
from verifier.native.haproxy.sole_writer import DIRECTORY_MODE
from verifier.native.haproxy.token_rules import (
    KEY_BITS,
    SIGNATURES,
    SIGNATURES_TABLE,
    MapFiles,
    policy_section,
)
from verifier.native.terms import NativeTerms

#: The generated part of HAProxy's configuration.
CONFIGURATION: Final = "gatehouse.cfg"
#: Its environment variable with what a worker was started with.
MARK: Final = "GATEHOUSE_NATIVE"
#: Another one with the keys that it has loaded: the beginnings of their fingerprints.
LOADED: Final = "GATEHOUSE_NATIVE_KEYS"
#: Files of keys that are listed at most.
MAX_KEYS: Final = 100
#: Hexadecimal digits. A line of HAProxy's configuration has 2,047 characters at most.
_KEY_DIGITS: Final = 16
_FILE_MODE: Final = 0o640
#: Configurations whose marks are kept. A worker with an older one is left alone.
_MAX_MARKS: Final = 100
#: HAProxy's configuration and commands take a path as a word.
_PATH: Final = re.compile(r"/[A-Za-z0-9_./+=-]*")


class HaproxyDirectory:
    """Writes the files; each is whole at any time.

    Args:
        path: of the directory. Its parent must exist.

    Raises:
        ValueError: the path has a character that HAProxy's configuration cannot.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        if not _PATH.fullmatch(str(self.path)):
            raise ValueError(
                f"{self.path}: HAProxy needs a path of letters, digits and '_./+=-'"
            )
        self._keys = self.path / "keys"
        self.maps = MapFiles(
            self.path / "window.acl",
            *(
                self.path / f"{name}.map"
                for name in ("headers", "sessions", "tokens", "minimums")
            ),
        )
        self._rules = ""
        #: the marks of the newest configurations of this process
        self._written: dict[str, None] = {}
        #: names of the key files in the configuration
        self._listed: set[str] = set()

    @property
    def rules(self) -> str:
        """A name for these rules, of letters and digits."""
        return _digest(self._rules)

    @property
    def mark(self) -> str:
        """What a worker shows that was started with the present configuration."""
        # The word for what a worker says of its keys: one that does not is reloaded.
        return f"{self.rules}.{_digest(LOADED, *sorted(self._listed))}"

    def has_present_rules(self, mark: str) -> bool:
        """Return whether a worker that shows this mark decides by the present rules."""
        return _rules_in(mark) == self.rules

    def has_our_rules(self, mark: str) -> bool:
        """Return whether this process wrote its rules, now or before.

        They read the maps as this process writes them. Rules of another release may
        not.
        """
        return any(_rules_in(mark) == _rules_in(other) for other in self._written)

    def prepare(
        self, keys: Iterable[VerificationKey], terms: Mapping[str, NativeTerms]
    ) -> None:
        """Write everything that HAProxy needs for a start; it then lets nothing pass.

        The maps are files without entries. Keys listed before stay, so that HAProxy can
        start with them while we know none.

        Args:
            keys: of our issuer.
            terms: of the policies, by name.

        Raises:
            InexpressibleError: HAProxy cannot check one of the policies.
            OSError: it cannot be written.
        """
        for path in (self.path, self._keys):
            path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        for path in self.maps:
            _write(path, b"")
        self._listed = self._listed_before()
        self.update(keys, terms)

    def update(
        self, keys: Iterable[VerificationKey], terms: Mapping[str, NativeTerms]
    ) -> bool:
        """Return whether HAProxy needs a reload: a key was missing, or terms changed.

        Then the configuration lists these keys and no others.

        Raises:
            InexpressibleError: HAProxy cannot check one of the policies.
            OSError: it cannot be written.
        """
        names = sorted(terms)
        rules = "\n\n".join(policy_section(terms[n], self.maps) for n in names)
        wanted = {_file_name(key): key for key in usable_keys(keys)[:MAX_KEYS]}
        has_keys = wanted.keys() <= self._listed
        if has_keys and rules == self._rules:
            return False
        for name, key in wanted.items():
            _write(self._keys / name, _pem(key))
        if not has_keys or (self._rules and wanted):
            self._listed = set(wanted)
        # Else HAProxy may run with these keys, and more: it needs no reload for them.
        self._rules = rules
        self._write_configuration()
        self._written.pop(self.mark, None)
        self._written[self.mark] = None
        if len(self._written) > _MAX_MARKS:
            del self._written[next(iter(self._written))]
        return True

    def key_path(self, key: VerificationKey) -> Path:
        """Return the path of a key's file, which no other key ever has."""
        return self._keys / _file_name(key)

    def _listed_before(self) -> set[str]:
        """Return the names of key files that the configuration on disk lists."""
        try:
            text = (self.path / CONFIGURATION).read_text()
        except FileNotFoundError:
            return set()
        names = {path.name for path in self._keys.glob("*.pem")}
        return {name for name in names if f"{self._keys / name})" in text}

    def _write_configuration(self) -> None:
        paths = [self._keys / name for name in sorted(self._listed)]
        text = _configuration(self.mark, paths, self._rules)
        _write(self.path / CONFIGURATION, text.encode())
        # A worker reads a key when it starts. These are not listed any more.
        for path in self._keys.glob("*.pem"):
            if path.name not in self._listed:
                path.unlink(missing_ok=True)


def usable_keys(keys: Iterable[VerificationKey]) -> list[VerificationKey]:
    """Return those of our keys whose signatures the rules can read."""
    return [
        key
        for key in keys
        if isinstance(key.public_key, RSAPublicKey)
        and key.public_key.key_size in KEY_BITS
    ]


def not_loaded(loaded: str, keys: Iterable[VerificationKey]) -> list[str]:
    """Return the ids of those of our keys that a worker lacks.

    Args:
        loaded: what it says of its keys (`LOADED`); empty when it says nothing, as one
            that was started by a release before: then it is not known.
        keys: of our issuer.
    """
    if not loaded:
        return []
    there = set(loaded.split(","))
    return [
        k.kid for k in usable_keys(keys) if _file_name(k)[:_KEY_DIGITS] not in there
    ]


def _configuration(mark: str, keys: Sequence[Path], rules: str) -> str:
    loads = "\n".join(
        f"    http-request set-var(txn.gh_key) str(x),jwt_verify({ALGORITHM},{path})"
        for path in keys
    )
    return f"""\
# Written by Gatehouse, again and again: change nothing here. A frontend takes the rules
# of a policy with "frontend NAME from gatehouse-POLICY".

global
    setenv {MARK} {mark}
    setenv {LOADED} {",".join(path.name[:_KEY_DIGITS] for path in keys) or "-"}

{rules}

# Never used: HAProxy loads a key only where its path is written.
defaults gatehouse-keys
    mode http
    timeout connect 1s
    timeout server 1s
backend gatehouse-keys from gatehouse-keys
{loads}

# Digests of tokens whose signature was good.
backend {SIGNATURES} from gatehouse-keys
    {SIGNATURES_TABLE}

# For sections that follow and name none.
defaults
    mode http
"""


def _file_name(key: VerificationKey) -> str:
    return f"{key.fingerprint}.pem"


def _pem(key: VerificationKey) -> bytes:
    return key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _rules_in(mark: str) -> str:
    return mark.partition(".")[0]


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as file:
            os.fchmod(file.fileno(), _FILE_MODE)
            file.write(content)
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
