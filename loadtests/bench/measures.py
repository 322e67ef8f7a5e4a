"""The measures, and the ratios between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: The request as nginx sends it with deploy/gateways/nginx/gatehouse.conf.
CLIENT_HEADERS = {"Host": "shop.example", "User-Agent": "bench", "Accept": "*/*"}
CHECK_HEADERS = {
    "Host": "gatehouse_verifier",
    "X-Original-Method": "GET",
    "X-Original-URI": "/orders/1017?page=2",
}
CHECK, CLIENT = "/verify/nginx", "/orders/1017?page=2"

Shown = Literal["good", "garbage", "bad signature"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to measure.

    Attributes:
        name: for the command line and JSON.
        title: for people.
        setup: the server that is asked, see `setups.SETUPS`.
        target: path and query of the request.
        shown: which credentials it is shown; anything but good ones must be refused.
        is_warmed: whether it has a cache that must be filled first.
    """

    name: str
    title: str
    setup: str
    target: str = CHECK
    shown: Shown = "good"
    is_warmed: bool = False

    @property
    def wants_refusals(self) -> bool:
        """Whether every answer has to be a refusal."""
        return self.shown != "good"

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers beside Authorization."""
        return CHECK_HEADERS if self.target == CHECK else CLIENT_HEADERS


#: In the order of a round: measures that are compared are close together.
MEASURES = (
    Measure("nginx", "nginx return 200", "nginx"),
    Measure("warm", "ours, warm", "verifier", is_warmed=True),
    Measure("garbage", "ours, refusing garbage", "verifier", shown="garbage"),
    Measure(
        "bad-signature",
        "ours, the same bad signature",
        "verifier",
        shown="bad signature",
    ),
    Measure(
        "warm-none-revoked",
        "ours, warm, no revocations",
        "verifier-none-revoked",
        is_warmed=True,
    ),
    Measure(
        "warm-many-revoked",
        "ours, warm, 1,000,000 revocations",
        "verifier-many-revoked",
        is_warmed=True,
    ),
    Measure("cold", "ours, cold", "verifier-cold"),
    Measure("haproxy", "HAProxy jwt_verify", "haproxy"),
    Measure("envoy-cached", "Envoy jwt_authn, cache", "envoy-cached", is_warmed=True),
    Measure("envoy", "Envoy jwt_authn, no cache", "envoy"),
    Measure(
        "envoy-gate",
        "Envoy ext_authz to ours",
        "envoy+verifier",
        CLIENT,
        is_warmed=True,
    ),
    Measure(
        "envoy-gate-unix",
        "Envoy ext_authz to ours, unix socket",
        "envoy+verifier-unix",
        CLIENT,
        is_warmed=True,
    ),
    Measure("tutorial", "FastAPI + PyJWT, uvicorn", "tutorial"),
    Measure(
        "gate",
        "nginx auth_request to ours",
        "nginx+verifier",
        CLIENT,
        is_warmed=True,
    ),
    Measure(
        "gate-unix",
        "nginx auth_request to ours, unix socket",
        "nginx+verifier-unix",
        CLIENT,
        is_warmed=True,
    ),
    Measure("gate-nginx", "nginx auth_request to nginx", "nginx+nginx", CLIENT),
    Measure("gate-inside", "nginx auth_request to itself", "nginx+nginx", "/inside"),
)


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio (or a size) with its required and its desired bound.

    Attributes:
        title: for people.
        over: the measure, or memory figure, above the line.
        under: the one below; empty for a size in MB.
        quantity: the compared quantity of the measures.
        must: the bound; None for a ratio that is only shown.
        aim: the wish; None with it.
        at_least: whether more is better.
    """

    title: str
    over: str
    under: str
    quantity: Literal["cpu_us", "rate", "memory"]
    must: float | None = None
    aim: float | None = None
    at_least: bool = False

    def is_within(self, value: float, bound: float | None) -> bool:
        """Return whether a value keeps to a bound; to one that is None, every value."""
        if bound is None:
            return True
        return value >= bound if self.at_least else value <= bound


GOALS = (
    Goal("warm check / nginx return 200", "warm", "nginx", "cpu_us", 1.15, 1.0),
    Goal("warm check / HAProxy jwt_verify", "warm", "haproxy", "cpu_us", 0.42, 0.30),
    Goal(
        "warm check / Envoy jwt_authn with cache",
        "warm",
        "envoy-cached",
        "cpu_us",
        0.60,
        0.40,
    ),
    Goal("cold check / HAProxy jwt_verify", "cold", "haproxy", "cpu_us", 1.25, 1.0),
    Goal(
        "refusal without signature check / warm check",
        "garbage",
        "warm",
        "cpu_us",
        1.2,
        1.0,
    ),
    Goal(
        "the same bad signature / warm check",
        "bad-signature",
        "warm",
        "cpu_us",
        1.5,
        1.1,
    ),
    Goal(
        "nginx protected by ours / by nginx's own 200, rate",
        "gate",
        "gate-nginx",
        "rate",
        0.93,
        0.97,
        at_least=True,
    ),
    Goal(
        "nginx protected by ours, unix socket / TCP",
        "gate-unix",
        "gate",
        "cpu_us",
        0.85,
        0.80,
    ),
    Goal(
        "Envoy protected by ours, unix socket / TCP",
        "envoy-gate-unix",
        "envoy-gate",
        "cpu_us",
    ),
    Goal(
        "Envoy protected by ours / Envoy jwt_authn, no cache",
        "envoy-gate",
        "envoy",
        "cpu_us",
    ),
    Goal(
        "Envoy protected by ours, unix socket / Envoy jwt_authn, no cache",
        "envoy-gate-unix",
        "envoy",
        "cpu_us",
    ),
    Goal(
        "Envoy protected by ours / Envoy jwt_authn with cache",
        "envoy-gate",
        "envoy-cached",
        "cpu_us",
    ),
    Goal(
        "Envoy protected by ours, unix socket / Envoy jwt_authn with cache",
        "envoy-gate-unix",
        "envoy-cached",
        "cpu_us",
    ),
    Goal("resident memory of an idle worker, MB", "idle worker", "", "memory", 70, 50),
    Goal(
        "memory added by 1,000,000 revocations, MB",
        "1,000,000 revocations",
        "",
        "memory",
        100,
        20,
    ),
    Goal(
        "warm with 1,000,000 revocations / with none",
        "warm-many-revoked",
        "warm-none-revoked",
        "cpu_us",
        1.05,
        1.0,
    ),
)
