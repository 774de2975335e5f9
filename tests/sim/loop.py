"""An asyncio event loop without a clock, sockets or threads of its own: the world turns it.

One loop belongs to one incarnation of a process. It does what is ready when it is told to, in
the order in which it became ready; the time it shows is the process's clock. When the process
dies the loop is dead: nothing on it runs again, and whatever still tries to use it is ignored,
as after a SIGKILL.
"""

from __future__ import annotations

import asyncio
import heapq
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

__all__ = ("SimLoop",)

_CLOCK_GRAIN_S = 1e-9
_TASKS_SWEPT_AT = 256
_PATIENCE = 50


class SimLoop(asyncio.AbstractEventLoop):
    """The part of an event loop that servers use apart from I/O; see the module's text."""

    def __init__(
        self,
        clock: Callable[[], float],
        wanted: Callable[[], None],
        failed: Callable[[str, BaseException | None], None],
    ) -> None:
        """`clock()` in seconds; `wanted()` is called when there is something new to run or to
        wait for; `failed(what, error)` when something raised that nobody caught."""
        self.time = clock  # type: ignore[method-assign]
        self._wanted = wanted
        self._failed = failed
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._sweep_tasks_at = _TASKS_SWEPT_AT
        self._turning = False
        self.dead = False

    # ---- what the world does ---------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True when something is ready to run."""
        return bool(self._ready)

    def next_due(self) -> float | None:
        """When (on the process's clock) the next timer is due; None without one."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def run_once(self) -> bool:
        """One iteration: what is due and what is ready now; True if there was anything."""
        ready, timers = self._ready, self._timers
        if timers:
            now = self.time() + _CLOCK_GRAIN_S
            while timers and timers[0][0] <= now:
                handle = heapq.heappop(timers)[2]
                if not handle._cancelled:
                    ready.append(handle)
        count = len(ready)
        if not count:
            return False
        self._turning = True
        asyncio._set_running_loop(self)
        try:
            for _ in range(count):
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                try:
                    handle._context.run(handle._callback, *handle._args)
                except BaseException as error:
                    if not self.dead:
                        self._failed(f"in {handle!r}", error)
                if self.dead:
                    break
        finally:
            asyncio._set_running_loop(None)
            self._turning = False
        return True

    def die(self) -> None:
        """Nothing on this loop happens any more."""
        self.dead = True
        self._ready.clear()
        self._timers.clear()

    def bury(self) -> None:
        """Lets go of a dead loop's tasks without a word and without an effect on anybody."""
        assert self.dead, "only the dead are buried"
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if task.done():
                continue
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with warnings.catch_warnings():
                # What it was about to await has never begun.
                warnings.simplefilter("ignore", RuntimeWarning)
                for _ in range(_PATIENCE):  # each `finally` that awaits refuses once to end
                    try:
                        task.get_coro().close()
                    except BaseException:
                        continue
                    break

    # ---- asyncio's side --------------------------------------------------------------------

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.dead:
            self._ready.append(handle)
            if not self._turning:
                self._wanted()
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.dead:
            self._timers_made += 1
            heapq.heappush(self._timers, (when, self._timers_made, handle))
            if not self._turning:
                self._wanted()
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is left out when it comes up."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name or "task", context=context)
        if len(self._tasks) >= self._sweep_tasks_at:
            self._tasks = [each for each in self._tasks if not each.done()]
            self._sweep_tasks_at = 2 * len(self._tasks) + _TASKS_SWEPT_AT
        self._tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._turning

    def is_closed(self) -> bool:
        return self.dead

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            self._failed(str(context.get("message", "")), context.get("exception"))

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        raise RuntimeError("there are no threads in the simulator: use a Worker")
