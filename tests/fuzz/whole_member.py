"""Target: a real member of one, with its log and its store, under calls of every method."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prometheus_client import generate_latest

from kvstore.api.call import MethodTable
from kvstore.api.services.registration import build_api
from kvstore.errors import EtcdError
from kvstore.gateways.http.collectors import HealthCollector, NodeCollector
from kvstore.gateways.http.health import LIVE_CHECKS, READY_CHECKS, HealthChecks
from kvstore.machine import CommandKind
from kvstore.metrics import Metrics
from kvstore.node.node import Node
from kvstore.pb import rpc_pb2
from tests.fuzz.grpc_methods import TARGETS as METHODS
from tests.fuzz.grpc_methods import requests, serve
from tests.fuzz.protobuf import WORDS
from tests.fuzz.registry import Feed, Refused, Target
from tests.unit.node.nodes import Nodes

__all__ = ("TARGETS",)

_WITHOUT = ("MemberAdd", "MemberRemove", "MemberPromote", "MoveLeader", "Defragment")
"""They end a cluster of one, or take long."""
_PATHS = tuple(
    path for path in (target.name.split()[1] for target in METHODS) if not path.endswith(_WITHOUT)
)
_LOOK_EVERY = 25
_PATIENCE_S = 0.03
"""How long a lock, a campaign or a watch is waited for; anything else has to end by itself."""
_WAITS = ("Lock", "Campaign", "Observe", "Watch", "Leader")


@asynccontextmanager
async def _member(directory: Path) -> AsyncIterator[Node]:
    nodes = Nodes(directory, unsafe_no_fsync=True)
    try:
        (node,) = await nodes.start_all("n1")
        yield node
    finally:
        await nodes.stop_all()


class _Watched:
    """The member, and what must go on working whatever it was asked."""

    def __init__(self, node: Node) -> None:
        self.table: MethodTable = build_api(node).table
        self._node = node
        self._metrics = Metrics()
        self._checks = HealthChecks(node, self._metrics, timeout_s=2.0)
        for collector in (NodeCollector(node), HealthCollector(self._metrics)):
            self._metrics.registry.register(collector)

    async def look(self) -> None:
        """Status, health and metrics; then alarms are cleared, since they refuse all writes."""
        status = self.table.get("/etcdserverpb.Maintenance/Status")
        assert status is not None
        await serve(status, b"", lambda: asyncio.sleep(2))
        await self._checks.run("livez", LIVE_CHECKS)
        await self._checks.run("readyz", READY_CHECKS)
        generate_latest(self._metrics.registry)
        for member_id, alarm in self._node.alarms():
            request = rpc_pb2.AlarmRequest(memberID=member_id)
            request.action = rpc_pb2.AlarmRequest.DEACTIVATE
            request.alarm = alarm  # type: ignore[assignment]
            await self._node.submit(CommandKind.ALARM, request.SerializeToString())
        assert not self._node.alarms()
        put = rpc_pb2.PutRequest(key=b"alive").SerializeToString()
        await self._node.submit(CommandKind.PUT, put)


@contextmanager
def _whole_member() -> Iterator[Feed]:
    """The first byte of an input chooses the method, the rest is the request."""
    with TemporaryDirectory() as directory, asyncio.Runner() as runner:
        member = _member(Path(directory))
        node = runner.run(member.__aenter__())
        watched, taken = _Watched(node), 0

        async def once(data: bytes) -> None:
            method = watched.table.get(_PATHS[data[0] % len(_PATHS)])
            assert method is not None
            patience_s = _PATIENCE_S if method.name in _WAITS else 10
            async with asyncio.timeout(5):
                await serve(method, data[1:], lambda: asyncio.sleep(patience_s))

        def feed(data: bytes) -> None:
            nonlocal taken
            if not data:
                raise Refused("empty")
            taken += 1
            if taken % _LOOK_EVERY == 0:
                runner.run(watched.look())
            runner.run(once(data))

        try:
            yield feed
            runner.run(watched.look())
        finally:
            runner.run(member.__aexit__(None, None, None))


def _seeds() -> list[bytes]:
    alarm = rpc_pb2.AlarmRequest(memberID=5)
    alarm.action = rpc_pb2.AlarmRequest.ACTIVATE
    alarm.alarm = 9  # type: ignore[assignment]
    given: dict[str, Any] = {**requests(), "/etcdserverpb.Maintenance/Alarm": [alarm]}
    return [
        bytes((number,)) + (each if isinstance(each, bytes) else each.SerializeToString())
        for number, path in enumerate(_PATHS)
        for each in given.get(path, (b"",))
    ]


_MENDERS = {target.name.split()[1]: target.mend for target in METHODS}


def _mend(data: bytes) -> bytes:
    if not data:
        return data
    mend = _MENDERS[_PATHS[data[0] % len(_PATHS)]]
    assert mend is not None
    return data[:1] + mend(data[1:])


TARGETS = (
    Target(
        "whole member",
        _whole_member,
        (EtcdError, Refused),
        _seeds,
        WORDS,
        mend=_mend,
        label=lambda error: error.code.name if isinstance(error, EtcdError) else "empty",
        memory_mib=64,
        cost=10,
    ),
)
