"""Is this member well? The checks behind /health, /livez and /readyz, as etcd makes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from kvstore.errors import EtcdError
from kvstore.gateways.http.facade import Node
from kvstore.metrics import Metrics
from kvstore.pb import rpc_pb2

__all__ = ("LIVE_CHECKS", "READY_CHECKS", "CheckResult", "Health", "HealthChecks")

LIVE_CHECKS = ("serializable_read",)
"""A member that passes need not be restarted."""
READY_CHECKS = ("data_corruption", "serializable_read", "linearizable_read", "non_learner")
"""A member that passes may be sent clients."""

_ALARM_NAMES: Mapping[int, str] = {
    rpc_pb2.AlarmType.NOSPACE: "NOSPACE",
    rpc_pb2.AlarmType.CORRUPT: "CORRUPT",
}
_PROBE_KEY = b"health"


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of /health; the reason is empty when all is well."""

    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check's outcome; `failure` is empty when it passed."""

    name: str
    failure: str
    excluded: bool = False

    @property
    def line(self) -> str:
        if self.excluded:
            return f"[+]{self.name} excluded: ok"
        if self.failure:
            return f"[-]{self.name} failed: {self.failure}"
        return f"[+]{self.name} ok"


class HealthChecks:
    """Runs checks on one member and counts their outcomes. `timeout_s` bounds each read."""

    def __init__(self, node: Node, metrics: Metrics, timeout_s: float) -> None:
        self._node = node
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._checks: Mapping[str, Callable[[], Awaitable[str]]] = {
            "data_corruption": self._data_corruption,
            "serializable_read": self._serializable_read,
            "linearizable_read": self._linearizable_read,
            "non_learner": self._non_learner,
        }

    async def health(self, exclude: Collection[str], serializable: bool) -> Health:
        """Alarms (but for the excluded), then the leader, then a read. `serializable`: local."""
        health = await self._health(exclude, serializable)
        if health.ok:
            self._metrics.health_successes += 1
        else:
            self._metrics.health_failures += 1
        return health

    async def _health(self, exclude: Collection[str], serializable: bool) -> Health:
        for _, alarm in self._node.alarms():
            name = _ALARM_NAMES.get(alarm, "UNKNOWN")
            if name not in exclude:
                return Health(False, f"ALARM {name}")
        if not serializable and not self._node.leader_id:
            return Health(False, "RAFT NO LEADER")
        failure = await self._read(serializable=serializable)
        if failure:
            return Health(False, f"RANGE ERROR:{failure}")
        return Health(True, "")

    async def run(
        self, kind: str, names: Sequence[str], exclude: Collection[str] = ()
    ) -> list[CheckResult]:
        """The named checks, one after the other; `kind` (livez, readyz) labels the counts."""
        results: list[CheckResult] = []
        for name in names:
            if name in exclude:
                results.append(CheckResult(name, "", excluded=True))
                continue
            failure = await self._checks[name]()
            results.append(CheckResult(name, failure))
            outcome = "error" if failure else "success"
            self._metrics.health_check.labels(kind, name).set(0 if failure else 1)
            self._metrics.health_checks.labels(kind, name, outcome).inc()
        return results

    async def _data_corruption(self) -> str:
        for _, alarm in self._node.alarms():
            if alarm == rpc_pb2.AlarmType.CORRUPT:
                return "alarm activated: CORRUPT"
        return ""

    async def _serializable_read(self) -> str:
        return await self._read(serializable=True)

    async def _linearizable_read(self) -> str:
        return await self._read(serializable=False)

    async def _non_learner(self) -> str:
        return "not supported for learner" if self._node.is_learner else ""

    async def _read(self, *, serializable: bool) -> str:
        """Reads a key that need not exist; returns what went wrong, in words."""
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def done(_answer: object, error: EtcdError | None) -> None:
            if not outcome.done():
                outcome.set_result(error.message if error else "")

        request = rpc_pb2.RangeRequest(
            key=_PROBE_KEY, limit=1, keys_only=True, serializable=serializable
        )
        try:
            self._node.range(request, done)
            return await asyncio.wait_for(outcome, self._timeout_s)
        except EtcdError as error:
            return error.message
        except TimeoutError:
            return "context deadline exceeded"
