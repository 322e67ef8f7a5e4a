"""Pydantic's adapters of FastAPI's routes, made once for all applications of a run.

Hundreds of tests build an application of their own, each with the same routes. A sixth
of such a test's processor time was making the same adapters again. They do not change,
so an equal one serves all. Parameters, dependencies and routes are each application's
own.
"""

from __future__ import annotations

from typing import Any, get_args

from fastapi._compat import v2
from pydantic import ConfigDict, TypeAdapter

#: With the annotation, so that what its text names by an address stays alive.
_made: dict[object, tuple[object, TypeAdapter[Any]]] = {}


def _find(annotation: Any, *, config: ConfigDict | None = None) -> TypeAdapter[Any]:
    """Return the adapter of an annotation: its type, and all that is noted about it."""
    key = (get_args(annotation)[0], repr(annotation.__metadata__), repr(config))
    if key not in _made:
        _made[key] = (annotation, TypeAdapter(annotation, config=config))
    return _made[key][1]


def keep() -> None:
    """Let FastAPI take the adapters from here, in this process.

    Raises:
        AttributeError: when this FastAPI makes them in another place.
    """
    if v2.TypeAdapter is TypeAdapter:
        v2.TypeAdapter = _find  # type: ignore[misc,assignment]
