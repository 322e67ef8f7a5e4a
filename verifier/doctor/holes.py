"""The holes that a gateway's config can have, one entry each.

`remedies` has the lines that close them.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Hole(NamedTuple):
    """One kind of fault of a gateway's config.

    Attributes:
        title: what is wrong, one sentence.
        meaning: what an attacker or a user gets from it.
    """

    title: str
    meaning: str


HOLES: Final[dict[str, Hole]] = {
    "open": Hole(
        "Requests pass without a valid token.",
        "The gateway does not ask the verifier, does not obey its answer, or asks another "
        "program that runs at the verifier's address.",
    ),
    "open-path": Hole(
        "Another spelling of a protected path passes without a token.",
        "The gateway checks by the path as it is written; the application, or a later "
        "part of the gateway, reads the same path in another way.",
    ),
    "open-method": Hole(
        "Requests of one method pass without a token.",
        "A program that does not look at the method serves them as any other.",
    ),
    "open-upgrade": Hole(
        "WebSocket handshakes pass without a token.",
        "The whole conversation that follows is not checked.",
    ),
    "fail-open": Hole(
        "Requests pass while no verifier answers.",
        "Stopping or overloading the verifier opens the application.",
    ),
    "unavailable": Hole(
        "While no verifier answers, clients do not get 503 with Retry-After.",
        "On 401 clients discard a good token, and on 500 they do not try again.",
    ),
    "identity": Hole(
        "A client can write its own identity headers.",
        "The application takes the client for anyone it names.",
    ),
    "identity-alias": Hole(
        "A client can write its own identity with another spelling of the header.",
        "WSGI, CGI and PHP read X_Auth_User and X-Auth-User as one name.",
    ),
    "foreign-identity": Hole(
        "Identity headers of other products reach the application from the client.",
        "Many frameworks trust Remote-User, X-Forwarded-User or X-Auth-Request-User.",
    ),
    "identity-lost": Hole(
        "The verified identity does not arrive exactly once.",
        "The application sees no user, or one that two readers take for different "
        "ones.",
    ),
    "forwarding": Hole(
        "What the client writes about its address, host or path is passed on.",
        "Applications log it, trust it, or route by it instead of the checked path.",
    ),
    "changed": Hole(
        "The application gets another request than the one that was checked.",
        "A policy decided about one path or method, and another is served.",
    ),
    "token-shared": Hole(
        "The access token reaches the application.",
        "Every program that has the token, or its log, can use it elsewhere.",
    ),
    "upgrade": Hole(
        "An upgrade to HTTP/2 without TLS (h2c) is passed on.",
        "Further requests on that connection reach the application unchecked.",
    ),
    "tunnel": Hole(
        "A CONNECT is passed on.",
        "After it, bytes of the client reach the application unchecked.",
    ),
    "refused": Hole(
        "Requests that must pass are refused.",
        "Users of the application get errors.",
    ),
    "refusal": Hole(
        "A refusal does not arrive as the verifier wrote it.",
        "Clients cannot tell a bad token from a fault, so they do not log in again.",
    ),
    "decision-id": Hole(
        "Refusals have no X-Auth-Decision-Id.",
        "Operators cannot look up why a request was refused (policy explain). It is no "
        "hole where the gateway checks tokens by itself: say so with --kind "
        "envoy-native or haproxy-native.",
    ),
}
