"""The machine under a simulated member: virtual disk, threads that are events, drawn chance."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kvstore.node.threads import Report
from kvstore.storage.layout import Layout
from kvstore.storage.store import TableSpec
from tests.sim.disk import DiskSession, ProcessDied
from tests.sim.store import SimStoreEngine
from tests.sim.world import US

if TYPE_CHECKING:
    from tests.sim.process import Process

__all__ = ("SimHost", "SimWorker")

T = TypeVar("T")

_HANDOVER_NS = (2 * US, 60 * US)
"""From the loop to a thread, and back."""


class _Held:
    """A data directory that belongs to one process because nobody else knows of it."""

    def release(self) -> None:
        """Nobody waits for it."""


class SimHost:
    """What `kvstore.node.host.Host` asks for, for one incarnation of a process."""

    def __init__(self, process: Process, session: DiskSession) -> None:
        self._process = process
        self._session = session
        self._engine = SimStoreEngine(session)
        self._chance = process.world.prng.fork(f"host {process.name} {process.incarnation}")

    def disk(self, *, sync: bool) -> DiskSession:
        assert sync, "a simulated member always syncs"
        return self._session

    def lock(self, layout: Layout) -> _Held:
        return _Held()

    def boot_id(self) -> str:
        return f"{self._process.name} boot {self._process.disk.boots}"

    def open_store(self, path: Path, tables: Sequence[TableSpec], *, quota_bytes: int) -> Any:
        return self._engine.open(path, tables, quota_bytes=quota_bytes)

    def worker(self, name: str) -> SimWorker:
        return SimWorker(self._process, name)

    def wall_s(self) -> float:
        return self._process.clock.wall_s()

    def below(self, bound: int) -> int:
        return self._chance.below(bound)


class SimWorker:
    """A thread as events of the world: one job at a time, each at one instant.

    The job begins a moment after it was handed over; its report comes when the disk time that it
    took is over. A crash finds it before, at any disk operation within, or after.
    """

    def __init__(self, process: Process, name: str) -> None:
        self._process = process
        self._incarnation = process.incarnation
        self._name = name
        self._chance = process.world.prng.fork(f"{process.name} {process.incarnation} {name}")
        self._jobs: deque[tuple[Callable[[], Any], Report]] = deque()
        self._busy = False

    def submit(self, job: Callable[[], Any], report: Report) -> None:
        """Runs `job` after those before it; `report(value, error)` is called on the loop."""
        self._jobs.append((job, report))
        if not self._busy:
            self._busy = True
            self._process.later(self._chance.between(*_HANDOVER_NS), self._work)

    def _work(self) -> None:
        process = self._process
        disk = process.disk
        job, report = self._jobs.popleft()
        before_ns = disk.spent_ns
        value: Any = None
        error: BaseException | None = None
        process.world.acting = process
        try:
            value = job()
        except ProcessDied:
            return
        except BaseException as raised:  # reported, as a thread does
            error = raised
        finally:
            process.world.acting = None
        if process.incarnation != self._incarnation or not process.alive:
            return
        took_ns = self._chance.between(*_HANDOVER_NS)
        if error is None:
            took_ns += process.disk_ns(disk.spent_ns - before_ns, self._chance)
        process.later(took_ns, self._report, report, value, error)

    def _report(self, report: Report, value: Any, error: BaseException | None) -> None:
        self._process.loop.call_soon(report, value, error)
        if self._jobs:
            self._process.later(self._chance.between(*_HANDOVER_NS), self._work)
        else:
            self._busy = False

    async def run(self, job: Callable[[], T]) -> T:
        """Runs `job` and returns what it returns; a cancelled caller does not stop the job."""
        future = self._process.loop.create_future()

        def report(value: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

        self.submit(job, report)
        result: T = await future
        return result

    async def close(self) -> None:
        """Ends the thread once everything before is done."""
        await self.run(lambda: None)
