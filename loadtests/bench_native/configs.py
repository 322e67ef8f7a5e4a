"""Envoy's configurations, from those that are shipped, and what they are compared with.

Listener and header filters are the shipped ones in all of them. Envoy answers by
itself, so no application has a share in the cost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.json_format import MessageToDict

from deploy.gateway_programs.program import CONFIGS
from loadtests.bench.passes import AUDIENCE
from loadtests.bench.servers import BenchError
from shared.claims import LONGEST_ACCESS_TTL
from shared.jose.jwk import RsaPublicJwk
from verifier.native.envoy.names import INTERNAL
from verifier.native.envoy.token_filters import jwt_filter
from verifier.native.terms import NativeTerms

_ANSWER = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
_JWT = "envoy.filters.http.jwt_authn"
_TYPES = "type.googleapis.com/envoy.extensions.filters.http"
_OURS = "gatehouse."


def native_config(folder: Path, port: int) -> Path:
    """Write the shipped configuration of Envoy beside `native`; return its path.

    Its sockets are `envoy-xds.sock` and `envoy-admin.sock` in the folder.
    """
    config = _native(folder, port)
    return _write(folder, config)


def unchecked_config(folder: Path, port: int) -> Path:
    """Write the same without any check."""
    config = _without_ours(folder, port)
    return _write(folder, config)


def jwt_config(
    folder: Path, port: int, issuer: str, keys: Sequence[RsaPublicJwk], *, is_bare: bool
) -> Path:
    """Write the same with Envoy's `jwt_authn` alone, as `native` sets it.

    Args:
        folder: for it.
        port: where Envoy listens.
        issuer: of the tokens.
        keys: may have signed.
        is_bare: also without the header that notes the time for our filters.
    """
    config = _without_ours(folder, port)
    filters = _filters(config)
    filters.insert(1, {"name": _JWT, "typed_config": _jwt(issuer, keys)})
    if is_bare:
        mutations = filters[0]["typed_config"]["mutations"]["request_mutations"]
        mutations[:] = [each for each in mutations if "append" not in each]
    return _write(folder, config)


def asking_config(folder: Path, port: int, socket: Path) -> Path:
    """Write the shipped configuration that asks a verifier on a unix socket."""
    config = _read("envoy")
    _listen(config, port)
    for cluster in config["static_resources"]["clusters"]:
        if cluster["name"] == "gatehouse_verifier":
            endpoint = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
            (place,) = cluster["load_assignment"]["endpoints"]
            place["lb_endpoints"] = [endpoint]
            break
    else:
        raise BenchError("deploy/gateways/envoy: no cluster gatehouse_verifier")
    return _write(folder, config)


def _native(folder: Path, port: int) -> dict[str, Any]:
    config = _read("envoy-native", {"/run/gatehouse/": f"{folder}/"})
    _listen(config, port)
    return config


def _without_ours(folder: Path, port: int) -> dict[str, Any]:
    config = _native(folder, port)
    del config["dynamic_resources"]
    filters = _filters(config)
    ours = [each for each in filters if "config_discovery" in each]
    if not all(each["name"].startswith(_OURS) for each in ours) or len(ours) != 3:
        raise BenchError("deploy/gateways/envoy-native: not three filters of ours")
    filters[:] = [each for each in filters if each not in ours]
    return config


def plain_terms(issuer: str) -> NativeTerms:
    """Return the terms of a policy that asks for a good token alone."""
    return NativeTerms(
        "default", issuer, AUDIENCE, 5, LONGEST_ACCESS_TTL, (), (), (), (), ()
    )


def _jwt(issuer: str, keys: Sequence[RsaPublicJwk]) -> dict[str, Any]:
    """Return the filter that `native` writes, without the claims that ours read."""
    made = jwt_filter(plain_terms(issuer), keys, "peer")
    config: dict[str, Any] = MessageToDict(made, preserving_proto_field_name=True)
    for provider in config["providers"].values():
        provider["claim_to_headers"] = [
            each
            for each in provider["claim_to_headers"]
            if each["header_name"] not in INTERNAL
        ]
    return {"@type": f"{_TYPES}.jwt_authn.v3.JwtAuthentication", **config}


def _read(name: str, texts: dict[str, str] | None = None) -> dict[str, Any]:
    text = (CONFIGS / name / "envoy.yaml").read_text()
    for written, put in (texts or {}).items():
        text = text.replace(written, put)
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def _listen(config: dict[str, Any], port: int) -> None:
    """Listen at that port, and answer there."""
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"]["port_value"] = port
    (host,) = _manager(config)["route_config"]["virtual_hosts"]
    host["routes"] = _ANSWER


def _manager(config: dict[str, Any]) -> dict[str, Any]:
    (listener,) = config["static_resources"]["listeners"]
    (manager,) = listener["filter_chains"][0]["filters"]
    found: dict[str, Any] = manager["typed_config"]
    return found


def _filters(config: dict[str, Any]) -> list[dict[str, Any]]:
    filters: list[dict[str, Any]] = _manager(config)["http_filters"]
    return filters


def _write(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "envoy.json"
    path.write_text(json.dumps(config))
    return path
