"""Envoy, whose one listener speaks HTTP/1.1, HTTP/2 and gRPC."""

from __future__ import annotations

import os
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.support.gateway_kinds.kind import GatewayKind, divide_times, replace_once
from tests.support.policy_page import blocks


def _shorten_timeouts(folder: Path) -> None:
    config = folder / "envoy.yaml"
    config.write_text(divide_times(config.read_text()))


def _show_request_id(folder: Path) -> None:
    name = "stat_prefix: gateway"
    shown = f"{name}\n          always_set_request_id_in_response: true"
    replace_once(folder / "envoy.yaml", name, shown)


def _add_log(folder: Path) -> None:
    config = folder / "envoy.yaml"
    (added,) = blocks("The log of Envoy", "yaml")
    found = re.search(r"^( +)stat_prefix: gateway\n", config.read_text(), re.M)
    assert found
    replace_once(config, found[0], found[0] + textwrap.indent(added, found[1]))
    log = str(folder / "gatehouse.log")
    replace_once(config, "/var/log/envoy/gatehouse.log", log)


ENVOY: Final = GatewayKind(
    process_sign=f"{os.sep}envoy ",
    shorten_timeouts=_shorten_timeouts,
    show_request_id=_show_request_id,
    passes_by_prefix=True,
    writes_canonical_paths=True,
    grpc_door="gateway",
    add_log=_add_log,
)
#: The same, asking over gRPC.
ENVOY_GRPC: Final = replace(ENVOY, check_door="grpc_verifier")
