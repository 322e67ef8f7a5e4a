"""Moments on the command line: ISO 8601 with a time zone, or Unix seconds."""

from datetime import UTC, datetime

from issuer.errors import InvalidRequestError


def read_moment(option: str, text: str) -> int:
    """Return the Unix seconds of a moment.

    Args:
        option: the option's name, for the error.
        text: as typed.

    Raises:
        InvalidRequestError: when it is neither form, or has no time zone.
    """
    if text.isascii() and text.isdecimal() and len(text) <= 12:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        rule = "must be 2026-11-22T13:00:00Z or Unix seconds"
        raise InvalidRequestError.of_field(option, rule) from None
    if moment.tzinfo is None:
        rule = "must name its time zone, such as Z"
        raise InvalidRequestError.of_field(option, rule)
    return int(moment.astimezone(UTC).timestamp())
