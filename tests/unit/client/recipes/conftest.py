"""A server in this process, and clients of both kinds: each test runs with either."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from kvstore.client import Client
from tests.support.bridge import BridgedClient
from tests.unit.api.conftest import Local

MakeClient = Callable[[], Any]
Spawn = Callable[..., Future[Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[Local]:
    local = Local("http2")
    yield local
    local.close()


@pytest.fixture(params=["blocking", "asyncio"])
def make_client(request: pytest.FixtureRequest, server: Local) -> Iterator[MakeClient]:
    """Makes clients, which are closed at the end."""
    made: list[Any] = []

    def make() -> Any:
        kind: Any = Client if request.param == "blocking" else BridgedClient
        made.append(kind(server.target))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def client(make_client: MakeClient) -> Any:
    return make_client()


@pytest.fixture
def other(make_client: MakeClient) -> Any:
    """Another client, as another process would be."""
    return make_client()


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"r-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts calls in threads; all must have ended with the test."""
    with ThreadPoolExecutor(32) as pool:
        yield pool.submit
