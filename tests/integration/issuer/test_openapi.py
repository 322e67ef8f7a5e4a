"""Every route answers as in the OpenAPI document, for any request (schemathesis).

The seed is fixed, so that CI has the same result each time. `make proof` tries more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.api_server import ApiServer
from tests.support.issuer_harness import FEED_TOKEN, create_app, make_settings
from tests.support.processes import ProcessFactory
from tests.support.proofs import examples

pytestmark = [pytest.mark.processes, pytest.mark.proof]

_CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
#: Tokens made anew, per route, when the call ended the caller's own.
_MOST_TOKENS = 3
_DOCUMENT = create_app(make_settings("sqlite+aiosqlite:///unused")).openapi()
_SCHEMA = schemathesis.openapi.from_dict(_DOCUMENT)
_ROUTES = [
    (path, method) for path, routes in _DOCUMENT["paths"].items() for method in routes
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    folder = tmp_path_factory.mktemp("api")
    factory = ProcessFactory(folder)
    yield ApiServer.start(folder, factory)
    factory.stop_all()


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Client:
    return Client(server)


class Client:
    """Sends generated requests: with the credential the route takes, and without."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._token = server.make_administrator()
        self._left = 0

    def begin(self) -> None:
        """Begin with another route."""
        self._left = _MOST_TOKENS

    def check(self, case: Case) -> None:
        is_feed = case.path.startswith("/revocations") and case.method == "GET"
        token = FEED_TOKEN if is_feed else self._token
        for headers in ({"Authorization": f"Bearer {token}"}, {}):
            answer = case.call(base_url=self._server.url, headers=headers, timeout=40)
            case.validate_response(answer, checks=_CHECKS)
            if headers and answer.status_code == 401 and not is_feed and self._left:
                self._left -= 1
                self._token = self._server.make_administrator()


@pytest.mark.parametrize(("path", "method"), _ROUTES, ids=lambda part: str(part))
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_500_and_no_undocumented_answer(
    client: Client,
    path: str,
    method: str,
    mode: GenerationMode,
    request: pytest.FixtureRequest,
) -> None:
    """R35: NaN, lone surrogates, NUL and other bad input get 4xx."""
    operation = _SCHEMA[path][method]
    client.begin()

    @seed(1)
    @settings(
        max_examples=examples(2),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case) -> None:
        if isinstance(case.query, dict) and "wait" in case.query:
            case.query["wait"] = 0  # a long poll is held on purpose
        client.check(case)

    # Where nothing is taken, nothing can be wrong with it.
    takes_nothing = mode is GenerationMode.NEGATIVE and not _takes_input(path, method)
    with pytest.raises(Unsatisfiable) if takes_nothing else nullcontext():
        check()


def _takes_input(path: str, method: str) -> bool:
    operation = _DOCUMENT["paths"][path][method]
    places = {parameter["in"] for parameter in operation.get("parameters", ())}
    # A credential can be wrong, too.
    return bool(places - {"header"} or operation.keys() & {"requestBody", "security"})


def test_the_document_promises_no_status_that_would_be_a_fault() -> None:
    for path, routes in _DOCUMENT["paths"].items():
        for method, operation in routes.items():
            answers = operation["responses"]
            assert not answers.keys() & {"500", "422", "default"}, (path, method)
