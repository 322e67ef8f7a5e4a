"""What tests must know of one kind of gateway, and how they change its config."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from verifier.doctor.differences import NONE, Differences

#: Long times are divided by this.
FACTOR: Final = 40

Edit = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class GatewayKind:
    """The facts in which gateways differ, and the edits that tests need.

    An edit gets the folder with the configs, before the gateway starts.

    Attributes:
        drops_empty_headers: an identity header without a value is absent.
        removes_by_prefix: every name that begins with `X-Auth-` is removed from the
            client's request, not only those that its config names.
        passes_by_prefix: every such name of the verifier's answer is passed on.
        writes_canonical_paths: a path has one form when it is checked and routed.
        passes_problems: a refused client gets the verifier's problem document.
        logs_all_refusals: its log for `replay` has what it refused by itself, and
            whether the client sent a credential.
        cancels_unread_uploads: over HTTP/2 it ends an upload that it refused with
            CANCEL after the answer, not with NO_ERROR (RFC 9113, section 8.1).
        waits_for_uploads: passes the application's answer on when the upload has ended,
            or answers 502 if the application has left by then.
        leaves_refused_uploads_open: a client of HTTP/2 may wait for the end of an
            upload that was refused, with the refusal in its hands.
        grpc_door: the field of `Addresses` for gRPC; empty if the gateway cannot.
        process_sign: a part of the command line of its main process.
        gives_request_ids: it makes an id for each request, for the verifier and the
            application.
        holds_early_answers: an answer without a body to an upload that the application
            does not read waits until the client sends more of the upload.
        can_ask_over_unix: it reaches a verifier on a unix socket.
        ready_path: a path of its inner listener that is 404 until it has read its
            config; empty if it listens only then.
        shorten_timeouts: see `hurried_gateways`.
        show_request_id: the answer has the gateway's id of the request, in
            `X-Shown-Id` or `X-Request-Id`.
        give_up_soon: shortens the time for which a verifier that is away is tried.
        switch_grpc_on: what ships switched off; nothing for most.
        add_log: adds the log of docs/policies.md, as `gatehouse.log` in the folder;
            None if the page has none.
        check_door: the field of `Addresses` that it asks; with `second_` before it,
            that of the second verifier.
        serve_tls: gives the listener TLS with a key and a certificate, for HTTP/2;
            None if the listener has HTTP/2 without TLS.
        left_out: tests of tests/gateways that cannot hold, by the name of the file or
            of the test, and why.
        in_matrix_only: files of tests/gateways, without `.py`, that run in `make
            gateway-matrix` and not in every test run.
        differences: what it does otherwise in the scenarios of `doctor`.
    """

    process_sign: str
    shorten_timeouts: Edit
    show_request_id: Edit
    drops_empty_headers: bool = False
    removes_by_prefix: bool = True
    passes_by_prefix: bool = False
    writes_canonical_paths: bool = False
    passes_problems: bool = True
    logs_all_refusals: bool = False
    gives_request_ids: bool = True
    holds_early_answers: bool = False
    can_ask_over_unix: bool = True
    ready_path: str = ""
    cancels_unread_uploads: bool = False
    waits_for_uploads: bool = False
    leaves_refused_uploads_open: bool = False
    grpc_door: str = ""
    give_up_soon: Edit = field(default=lambda folder: None)
    switch_grpc_on: Edit = field(default=lambda folder: None)
    add_log: Edit | None = None
    check_door: str = "verifier"
    serve_tls: Callable[[Path, Path, Path], None] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    in_matrix_only: frozenset[str] = frozenset()
    differences: Differences = NONE


def divide_times(text: str) -> str:
    """Divide every `1m`, `2h` or `60s` that ends a value."""
    return re.sub(r"\b(\d+)(s|m|h)\b(?=[ ;}\n,])", _shorten, text)


def _shorten(written: re.Match[str]) -> str:
    seconds = int(written[1]) * {"s": 1, "m": 60, "h": 3_600}[written[2]]
    # Times for the verifier and the head of a request stay: a busy machine.
    return written[0] if seconds < 60 else f"{seconds // FACTOR}s"


def replace_once(config: Path, written: str, wanted: str) -> None:
    """Replace a text that stands in the config exactly once."""
    text = config.read_text()
    assert text.count(written) == 1, (config.name, written, text.count(written))
    config.write_text(text.replace(written, wanted))
