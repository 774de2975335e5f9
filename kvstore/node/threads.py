"""One thread that does blocking work in order and reports on the event loop.

A member has three: one writes the WAL and nothing else, so that no copy ever delays an fsync;
one makes and reads snapshot files; one puts large answers together. (The loop's default executor
carries nothing that matters: a library's blocked job there must not stop a write.)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

__all__ = ("Report", "ThreadWorker", "Worker")

T = TypeVar("T")
Report = Callable[[Any, BaseException | None], None]


class Worker(Protocol):
    """A thread with a queue; callers bound what they put in (one write, one copy)."""

    def submit(self, job: Callable[[], Any], report: Report) -> None:
        """Runs `job` after those before it; `report(value, error)` is called on the loop."""

    async def run(self, job: Callable[[], T]) -> T:
        """Runs `job` and returns what it returns; a cancelled caller does not stop the job."""

    async def close(self) -> None:
        """Ends the thread once everything before is done."""


class ThreadWorker:
    """A real thread, named in the process list."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Report] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Any], report: Report) -> None:
        self._jobs.put((job, report))

    async def run(self, job: Callable[[], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()

        def report(value: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

        self.submit(job, report)
        return await future

    async def close(self) -> None:
        ended = self._loop.create_future()
        self.submit(lambda: None, lambda _value, _error: ended.set_result(None))
        await ended
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, report = item
            value: Any = None
            error: BaseException | None = None
            try:
                value = job()
            except BaseException as raised:  # reported, never swallowed: the loop decides
                error = raised
            try:
                self._loop.call_soon_threadsafe(report, value, error)
            except RuntimeError:
                return
            del item, job, report, value, error  # may be large, and the next job far away
