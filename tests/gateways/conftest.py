"""Real gateways before a real verifier, issuer and application, once per session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.gateway_programs import registry
from tests.support.gateway_kinds.table import KINDS
from tests.support.installed_gateways import require
from tests.support.processes import ProcessFactory
from tests.support.raw_http import bearer
from tests.support.stack import GatewayUnderTest, Login, Stack

HERE = Path(__file__).parent


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what a kind of gateway cannot show, for the reasons that it states."""
    is_matrix = bool(config.getoption("--gateway-matrix", default=None))
    left_out = {item for item in items if is_left_out(item, is_matrix=is_matrix)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def is_left_out(item: pytest.Item, *, is_matrix: bool) -> bool:
    if item.path.parent != HERE or not isinstance(item, pytest.Function):
        return False
    callspec = getattr(item, "callspec", None)
    values = callspec.params.values() if callspec is not None else ()
    kinds = [KINDS[v] for v in values if isinstance(v, str) and v in KINDS]
    names = {item.path.stem, item.originalname}
    if not is_matrix and any(item.path.stem in kind.in_matrix_only for kind in kinds):
        return True
    return any(not names.isdisjoint(kind.left_out) for kind in kinds)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Issuer, verifier and demo application; gateways join when first asked for."""
    folder: Path = tmp_path_factory.mktemp("stack")
    factory = ProcessFactory(folder)
    try:
        # The refusals of all scenarios come within seconds; a later test looks for the
        # line of one.
        yield Stack.start(folder, factory, VERIFIER_REFUSAL_LOG_RATE="1000")
    finally:
        factory.stop_all()


@pytest.fixture(scope="session", params=registry.NAMES)
def gateway(request: pytest.FixtureRequest, stack: Stack) -> GatewayUnderTest:
    """One real gateway after the other, on the very config of deploy/gateways."""
    return running(str(request.param), stack)


@pytest.fixture(scope="session")
def envoy(stack: Stack) -> GatewayUnderTest:
    """Envoy, for features that only Envoy has."""
    return running("envoy", stack)


def running(name: str, stack: Stack) -> GatewayUnderTest:
    require(name)
    return stack.start_gateway(name)


@pytest.fixture(scope="module")
def session_login(stack: Stack) -> Login:
    """A login that no test ends; its access token outlives a module, not the suite."""
    return stack.log_in()


@pytest.fixture
def token(session_login: Login) -> tuple[str, str]:
    """The header line of a live token."""
    return bearer(session_login.access_token)


@pytest.fixture
def streams(gateway: GatewayUnderTest, stack: Stack) -> GatewayUnderTest:
    """The same gateway on the same config, before an application with streams."""
    app = stack.start_stream_app()
    return stack.start_gateway(gateway.name, "streams", app=app)


@pytest.fixture
def hurried(gateway: GatewayUnderTest, stack: Stack) -> GatewayUnderTest:
    """The same, with time-outs made shorter."""
    app = stack.start_stream_app()
    edit = gateway.kind.shorten_timeouts
    return stack.start_gateway(gateway.name, "hurried", app=app, edit=edit)
