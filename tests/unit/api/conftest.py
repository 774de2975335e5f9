"""Where the API tests find a server: in this process, over each transport.

`KVSTORE_API_TARGET=host:port` points the semantic suite at a running server instead.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import grpc
import pytest

from kvstore.api.services.registration import Api, build_api
from tests.unit.api.client import Client
from tests.unit.api.local_node import LocalNode
from tests.unit.api.serving import TRANSPORTS, UNLIMITED, Served

EXTERNAL = os.environ.get("KVSTORE_API_TARGET", "")


class Local(Served):
    """The whole API over a LocalNode."""

    node: LocalNode
    api: Api

    def __init__(self, kind: str, **changes: object) -> None:
        def build() -> object:
            self.node = LocalNode(**changes)
            self.node.start()
            self.api = build_api(self.node)
            return self.api.table

        super().__init__(kind, build)  # type: ignore[arg-type]

    def close(self) -> None:
        self.thread.call(self.node.stop)
        super().close()


@pytest.fixture(params=TRANSPORTS)
def kind(request: pytest.FixtureRequest) -> str:
    """A transport's name."""
    return str(request.param)


@pytest.fixture
def local(kind: str) -> Iterator[Local]:
    """A fresh server that the test may reach into."""
    server = Local(kind)
    yield server
    server.close()


@pytest.fixture
def wire(local: Local) -> Client:
    """A client of `local`."""
    return Client(local.channel)


@pytest.fixture(scope="session", params=["external"] if EXTERNAL else TRANSPORTS)
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that many tests share; each keeps to keys of its own."""
    if EXTERNAL:
        yield EXTERNAL
        return
    server = Local(str(request.param))
    yield server.target
    server.close()


@pytest.fixture
def client(target: str) -> Iterator[Client]:
    """A client of the shared server."""
    with grpc.insecure_channel(target, options=UNLIMITED) as channel:
        yield Client(channel)


@pytest.fixture
def base() -> bytes:
    """A key prefix of the test's own, ending in a slash."""
    return f"api-{uuid.uuid4().hex[:12]}/".encode()
