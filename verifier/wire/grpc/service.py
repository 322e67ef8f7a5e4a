"""`envoy.service.auth.v3.Authorization/Check`: a message in, a message out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from shared.log import event
from verifier.check.denials import Denied, DenyReason
from verifier.check.forward_auth import HeaderList
from verifier.check.gate import Gate
from verifier.wire.grpc.questions import ENVOY_ROUTE, FaultyRequestError, read_check
from verifier.wire.grpc.responses import REFUSAL, encode_answer, encode_fault

_LOG: Final = logging.getLogger(__name__)
#: The service that Envoy asks, and its method.
SERVICE: Final = "envoy.service.auth.v3.Authorization"
METHOD: Final = "Check"


class Authorization:
    """Answers checks by the gate.

    Args:
        gate: answers; call this object in the gate's thread.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def check(self, message: bytes) -> bytes:
        """Return the CheckResponse for a message of a trusted peer; never raise."""
        sent: HeaderList = ()
        try:
            try:
                request = read_check(message)
            except Denied as denied:
                answer = self._gate.refuse(denied.reason, ENVOY_ROUTE)
            else:
                sent = request.headers
                answer = self._gate.answer(request)
            return encode_answer(answer, sent)
        except FaultyRequestError as fault:
            return encode_fault(fault.status)
        except Exception as error:
            return self._note_fault(error)

    def refuse_peer(self) -> bytes:
        """Return the CheckResponse for a peer that is not trusted (R1)."""
        try:
            answer = self._gate.refuse(DenyReason.PEER_UNTRUSTED, ENVOY_ROUTE)
            return encode_answer(answer)
        except Exception as error:
            return self._note_fault(error)

    def _note_fault(self, error: Exception) -> bytes:
        # The type alone: the text of an error may hold a part of the token.
        event(_LOG, logging.ERROR, "grpc.internal_error", type=type(error).__name__)
        return REFUSAL


def trust_peer_names(
    is_trusted: Callable[[str], bool], *, is_unix: bool
) -> Callable[[str], bool]:
    """Return a function that returns whether grpcio's name of a peer is a gateway's.

    Args:
        is_trusted: returns whether an address is a gateway of ours.
        is_unix: the server listens on a unix socket, whose peers are trusted: its mode
            limits who they are (R1). Otherwise no unix peer is trusted, because any
            program may use the socket of `probe`.
    """

    @lru_cache(maxsize=4_096)
    def is_gateway(peer: str) -> bool:
        family, _, rest = peer.partition(":")
        if family in ("unix", "unix-abstract"):
            return is_unix
        if family not in ("ipv4", "ipv6"):
            return False
        host, _, port = unquote(rest).rpartition(":")
        try:
            return bool(port) and is_trusted(host.strip("[]"))
        except ValueError:
            # An address that cannot be read is not trusted.
            return False

    return is_gateway
