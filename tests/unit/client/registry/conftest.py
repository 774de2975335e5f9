"""A registry in memory for each test, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvstore.client import Client
from tests.support.fake_registry import FakeRegistry


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    registry = FakeRegistry()
    yield registry
    registry.stop()


@pytest.fixture
def client(fake: FakeRegistry) -> Iterator[Client]:
    with Client(fake.endpoint) as client:
        yield client
