"""The headers with which a verifier names itself in requests for the feed."""

from __future__ import annotations

import re
import uuid
from typing import Final, NamedTuple

from starlette.datastructures import Headers

from issuer.errors import InvalidRequestError
from issuer.feed.followers import Departure, Follower
from shared.feed import (
    FOLLOWER_APPLIED_HEADER,
    FOLLOWER_HEADER,
    FOLLOWER_ON_STALE_ALLOW,
    FOLLOWER_ON_STALE_HEADER,
    FOLLOWER_REPLACES_HEADER,
    FOLLOWER_STALENESS_HEADER,
    MAX_REPLACED_FOLLOWERS,
)

_SECONDS: Final = re.compile(r"[1-9][0-9]{0,8}")
_POSITION: Final = re.compile(r"[0-9]{1,18}")


class Introduction(NamedTuple):
    """The follower, and the ended processes whose disk copy it has taken over."""

    follower: Follower
    replaces: tuple[str, ...]


def read_introduction(headers: Headers, max_staleness: int) -> Introduction | None:
    """Return the follower; None for an anonymous reader, which gets no promise.

    Args:
        headers: of the request.
        max_staleness: the greatest staleness that a follower may claim, seconds.

    Raises:
        InvalidRequestError: naming the header that is not right.
    """
    follower = _read_one(headers, FOLLOWER_HEADER)
    staleness = _read_one(headers, FOLLOWER_STALENESS_HEADER)
    on_stale = _read_one(headers, FOLLOWER_ON_STALE_HEADER)
    replaces = _read_replaces(headers)
    if on_stale not in {None, FOLLOWER_ON_STALE_ALLOW}:
        raise refuse(FOLLOWER_ON_STALE_HEADER, "must be `allow` when it is there")
    if staleness is not None and not _SECONDS.fullmatch(staleness):
        raise refuse(FOLLOWER_STALENESS_HEADER, "must be a number of seconds, from 1")
    if follower is None:
        return None
    if not is_uuid(follower):
        raise refuse(FOLLOWER_HEADER, "must be one UUID")
    if staleness is None:
        rule = f"is required with {FOLLOWER_HEADER}, in seconds"
        raise refuse(FOLLOWER_STALENESS_HEADER, rule)
    if int(staleness) > max_staleness:
        rule = f"must not exceed ISSUER_MAX_FOLLOWER_STALENESS, {max_staleness} s here"
        raise refuse(FOLLOWER_STALENESS_HEADER, rule)
    return Introduction(
        Follower(follower, int(staleness), on_stale is not None), replaces
    )


def read_applied(headers: Headers, after: int) -> int:
    """Return the position up to which the follower has applied everything.

    It is what the follower asks after, unless it says that it is less: what it has read
    may not yet be in force in the gateways that it writes into.

    Args:
        headers: of the request.
        after: the position asked after.

    Raises:
        InvalidRequestError: naming the header, when it is not right.
    """
    applied = _read_one(headers, FOLLOWER_APPLIED_HEADER)
    if applied is None:
        return after
    if not _POSITION.fullmatch(applied) or int(applied) > after:
        rule = "must be a whole number from 0, `after` at most"
        raise refuse(FOLLOWER_APPLIED_HEADER, rule)
    return int(applied)


def read_departure(headers: Headers) -> Departure:
    """Return the follower that leaves: it can only end its own lease.

    Raises:
        InvalidRequestError: naming the header that is not right.
    """
    follower = _read_one(headers, FOLLOWER_HEADER)
    replaces = _read_replaces(headers)
    if follower is None or not is_uuid(follower):
        raise refuse(FOLLOWER_HEADER, "must be one UUID, of the one that says goodbye")
    return Departure(follower, replaces)


def is_uuid(text: str) -> bool:
    """Return whether this is a UUID in canonical form."""
    try:
        # uuid.UUID also accepts braces and urn:uuid:.
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def refuse(field: str, rule: str) -> InvalidRequestError:
    """Return the error that names one field and the rule it breaks."""
    return InvalidRequestError.of_field(field, rule)


def _read_one(headers: Headers, name: str) -> str | None:
    given = headers.getlist(name)
    if len(given) > 1:
        raise refuse(name, "must not be repeated")
    return given[0] if given else None


def _read_replaces(headers: Headers) -> tuple[str, ...]:
    given = _read_one(headers, FOLLOWER_REPLACES_HEADER)
    ids = [part.strip() for part in given.split(",")] if given else []
    if len(ids) > MAX_REPLACED_FOLLOWERS or not all(map(is_uuid, ids)):
        rule = f"must be {MAX_REPLACED_FOLLOWERS} UUIDs at most, with commas between"
        raise refuse(FOLLOWER_REPLACES_HEADER, rule)
    return tuple(ids)
