"""The verifier with an empty handler of gRPC.

`python -m loadtests.bench_grpc.empty_verifier` runs it. Everything else is as always:
the server, its bounds, the other ports and tasks. So what the other verifier costs more
is the check itself.
"""

from __future__ import annotations

import sys
from typing import Any, cast

from loadtests.bench_grpc.handlers import ANSWER
from verifier.__main__ import main
from verifier.check.gate import Gate
from verifier.wire.grpc import server


class EmptyHandler:
    """In place of `Authorization`."""

    def __init__(self, _gate: Gate) -> None:
        """Need no gate."""

    def check(self, _message: bytes) -> bytes:
        """Answer without a look at the message."""
        return ANSWER


if __name__ == "__main__":
    cast(Any, server).Authorization = EmptyHandler
    sys.exit(main())
