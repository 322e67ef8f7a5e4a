"""ETag and If-Match: no change overwrites another one unseen (RFC 9110, section 13).

The tag is a digest of the representation, so it changes with everything that a reader
can see.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from issuer.errors import (
    InvalidRequestError,
    PreconditionFailedError,
    PreconditionRequiredError,
)
from shared.jose import base64url

_TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e]*")')
_ANYTHING: Final = "*"
_DIGEST_BYTES: Final = 16
_Answer = TypeVar("_Answer", bound=BaseModel)

#: Declares the ETag of a route's answer, for `responses`.
ETAG_HEADER: Final[dict[str, Any]] = {
    "ETag": {
        "description": "Names this state: send it as If-Match to change it.",
        "schema": {"type": "string"},
        "example": '"kQ8N0sI5kqfcXvYqZ5bC6g"',
    }
}


class IfMatch:
    """The states that a change is meant for.

    Args:
        tags: their entity tags; None accepts any state.
    """

    def __init__(self, tags: frozenset[str] | None) -> None:
        self._tags = tags

    def require(self, tag: str) -> None:
        """Return when the present state is one of them.

        Args:
            tag: of the present state.

        Raises:
            PreconditionFailedError: when it is another one.
        """
        if self._tags is not None and tag not in self._tags:
            raise PreconditionFailedError


def build_etag(answer: BaseModel) -> str:
    """Return the strong entity tag of a representation."""
    digest = hashlib.sha256(answer.model_dump_json().encode()).digest()
    return f'"{base64url.encode(digest[:_DIGEST_BYTES])}"'


def tag_answer(response: Response, answer: _Answer) -> _Answer:
    """Return the answer, and set `ETag` to its entity tag."""
    response.headers["ETag"] = build_etag(answer)
    return answer


def read_if_match(request: Request) -> IfMatch:
    """Return what the request's `If-Match` names.

    A weak tag (`W/"..."`) matches nothing: RFC 9110, section 13.1.1, compares strongly.

    Raises:
        PreconditionRequiredError: without `If-Match`.
        InvalidRequestError: when it is malformed (requirement R5).
    """
    given = request.headers.getlist("If-Match")
    if not given:
        raise PreconditionRequiredError
    return _parse(",".join(given))


def read_optional_if_match(request: Request) -> IfMatch:
    """Return the states in the request's `If-Match`; without it any state.

    Raises:
        InvalidRequestError: when it is malformed.
    """
    given = request.headers.getlist("If-Match")
    return _parse(",".join(given)) if given else IfMatch(None)


def _parse(text: str) -> IfMatch:
    if text.strip() == _ANYTHING:
        return IfMatch(None)
    tags = set()
    # Our tags have no comma; a foreign tag with one is refused, not misread.
    for part in filter(None, map(str.strip, text.split(","))):
        match = _TAG.fullmatch(part)
        if match is None:
            rule = 'must be * or a list of entity tags such as "abc"'
            raise InvalidRequestError.of_field("If-Match", rule)
        if not match[1]:
            tags.add(match[2])
    return IfMatch(frozenset(tags))


def if_match_parameter(*, is_required: bool) -> dict[str, Any]:
    """Return the header's description for `openapi_extra`."""
    wish = "The ETag of what is to be changed; `*`: whatever it is by now."
    return {
        "name": "If-Match",
        "in": "header",
        "required": is_required,
        "description": wish,
        "schema": {"type": "string"},
        "example": '"kQ8N0sI5kqfcXvYqZ5bC6g"',
    }
