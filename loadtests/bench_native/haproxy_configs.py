"""HAProxy's configurations, from the shipped one, and what they are compared with.

Frontend and header rules are the shipped ones in all of them. HAProxy answers by
itself, so no application has a share in the cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from deploy.gateway_programs.program import CONFIGS
from loadtests.bench.passes import AUDIENCE
from loadtests.bench.servers import BenchError
from loadtests.bench_native.configs import plain_terms
from shared.claims import ALGORITHM
from shared.jose.jwk import RsaPublicJwk
from shared.token_form import encode_header
from verifier.check.trust import key_set
from verifier.native.haproxy.directory import CONFIGURATION, HaproxyDirectory

_FROM: Final = " from gatehouse-default"
_THREADS: Final = "    nbthread 4\n"
_APPLICATION: Final = (
    "    use_backend gatehouse_grpc_app if { req.hdr(content-type) -m beg "
    "application/grpc }\n    default_backend gatehouse_app\n"
)
#: What our rules use for the window and for revocations alone, and how many they are.
_OURS: Final = ("window.acl", "gh_minimum", "sessions.map", "tokens.map")
_OUR_RULES: Final = 4
#: The same of those that remember which signatures were good.
_REMEMBERING: Final = ("txn.gh_signed", "sc-set-gpt0")
_REMEMBERING_RULES: Final = 4
_KNOWN: Final = "{ var(txn.gh_known) -m int 1 } or "

#: As HAProxy's own documentation uses `jwt_verify`, with an audience and our identity
#: headers besides. It reads claims by its JSON queries, more loosely than our rules.
_DOCUMENTED: Final = """\
defaults gatehouse-default
    mode http
    http-request del-header ^x[^a-z0-9]auth([^a-z0-9]|$) -m reg
    http-request set-var(txn.token) http_auth_bearer
    http-request deny deny_status 401 unless {{ var(txn.token) -m found }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_header_query('$.alg') -m str {algorithm} }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.iss') -m str {issuer} }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.aud') -m str {audience} }}
    http-request set-var(txn.now) date()
    http-request set-var(txn.exp) var(txn.token),jwt_payload_query('$.exp','int')
    http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_verify("{algorithm}","{key}") 1 }}
{identity}
"""
_IDENTITY: Final = (
    ("Subject", "sub"),
    ("User", "username"),
    ("Client", "client_id"),
    ("Scope", "scope"),
    ("Roles", "roles"),
    ("Session", "sid"),
)


def native_haproxy(folder: Path, port: int, *, threads: int) -> list[Path]:
    """Write the shipped configuration of HAProxy beside `native`.

    Args:
        folder: for it; `native` writes `haproxy` in it.
        port: where HAProxy listens.
        threads: of its worker.

    Returns:
        The files in the order in which HAProxy reads them.
    """
    path = folder / "haproxy.cfg"
    path.write_text(_shipped(port, threads))
    return [folder / "haproxy" / CONFIGURATION, path]


def unchecked_haproxy(folder: Path, port: int) -> list[Path]:
    """Write the same without any check, with one thread."""
    path = folder / "haproxy.cfg"
    path.write_text(_replaced(_shipped(port, 1), _FROM, ""))
    return [path]


def jwt_haproxy(
    folder: Path, port: int, issuer: str, keys: Sequence[RsaPublicJwk]
) -> list[Path]:
    """Write the same with the rules of `native` that check a token, and no others.

    Args:
        folder: for it.
        port: where HAProxy listens.
        issuer: of the tokens.
        keys: may have signed.

    Raises:
        BenchError: the rules are others than this module knows.
    """
    paths = native_haproxy(folder, port, threads=1)
    trusted = key_set(keys).keys.values()
    directory = HaproxyDirectory(folder / "haproxy")
    directory.prepare(trusted, {"default": plain_terms(issuer)})
    rules = _without(paths[0].read_text(), _OURS, _OUR_RULES)
    paths[0].write_text(_forgetful(rules))
    directory.maps.headers.write_text(
        "".join(f"{encode_header(k.kid)} {directory.key_path(k)}\n" for k in trusted)
    )
    return paths


def documented_haproxy(folder: Path, port: int, issuer: str, pem: bytes) -> list[Path]:
    """Write the same with `jwt_verify` as HAProxy's documentation has it.

    Args:
        folder: for it.
        port: where HAProxy listens.
        issuer: of the tokens.
        pem: the key that signs.
    """
    paths = native_haproxy(folder, port, threads=1)
    paths[0].parent.mkdir()
    key = folder / "key.pem"
    key.write_bytes(pem)
    rules = _DOCUMENTED.format(
        algorithm=ALGORITHM,
        issuer=issuer,
        audience=AUDIENCE,
        key=key,
        identity="\n".join(_identity_rules()),
    )
    paths[0].write_text(f"{rules}\ndefaults\n    mode http\n")
    return paths


def forget_signatures(folder: Path) -> None:
    """Have HAProxy look at each signature every time, from its next reload on.

    Args:
        folder: has what `native` wrote.
    """
    path = folder / "haproxy" / CONFIGURATION
    path.write_text(_forgetful(path.read_text()))


def _forgetful(rules: str) -> str:
    return _without(_replaced(rules, _KNOWN, ""), _REMEMBERING, _REMEMBERING_RULES)


def _without(rules: str, names: Sequence[str], count: int) -> str:
    """Return the rules without those that name one of these.

    Raises:
        BenchError: they are not as many as this module knows.
    """
    lines = rules.splitlines(keepends=True)
    kept = [line for line in lines if not any(name in line for name in names)]
    if len(lines) - len(kept) != count:
        raise BenchError(f"HAProxy's rules: not {count} with {', '.join(names)}")
    return "".join(kept)


def _identity_rules() -> Iterable[str]:
    for header, claim in _IDENTITY:
        value = f"%[var(txn.token),jwt_payload_query('$.{claim}')]"
        yield f"    http-request add-header X-Auth-{header} {value}"
    yield "    http-request add-header X-Auth-Decision allow"


def _shipped(port: int, threads: int) -> str:
    """Return the shipped configuration, which listens there and answers by itself."""
    text = (CONFIGS / "haproxy-native" / "haproxy.cfg").read_text()
    for written, put in (
        ("    bind 127.0.0.1:8080\n", f"    bind 127.0.0.1:{port}\n"),
        (_THREADS, f"    nbthread {threads}\n"),
        (_APPLICATION, "    http-request return status 200\n"),
    ):
        text = _replaced(text, written, put)
    return text


def _replaced(text: str, written: str, put: str) -> str:
    """Return the text with another in one place.

    Raises:
        BenchError: it is not there.
    """
    if text.count(written) != 1:
        raise BenchError(f"deploy/gateways/haproxy-native: not once: {written.strip()}")
    return text.replace(written, put)
