"""True time, the queue of everything that will happen, the trace, and those who watch.

Events of one instant happen in an order that the seed shuffles. The trace is one line per event;
its running SHA-256 is what two runs of one seed are compared by, the lines themselves are kept
only when asked for.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from kvstore.storage.errors import StorageError
from tests.sim.chronicle import Chronicle
from tests.sim.disk import ProcessDied
from tests.sim.observer import Invariant, Violated
from tests.sim.prng import Prng

if TYPE_CHECKING:
    from tests.sim.params import Params
    from tests.sim.process import Process

__all__ = ("MS", "SECOND", "TICK", "US", "World")

US: Final = 1_000
MS: Final = 1_000_000
SECOND: Final = 1_000_000_000
TICK: Final = 10 * MS
"""What campaigns count by: ten milliseconds of true time."""

_MASK: Final = (1 << 64) - 1
_LINES_HASHED_AT: Final = 512
_HOOKS: Final = (
    "stepped",
    "changed",
    "sent",
    "received",
    "applied",
    "installed",
    "started",
    "stopped",
    "invoked",
    "completed",
    "watched",
    "lease_event",
    "registry_asked",
    "registry_told",
    "registry_read",
    "registry_watched",
    "registry_past",
    "phase_ended",
)


class World:
    """Everything there is during one seed."""

    def __init__(self, params: Params, *, keep_log: bool = False) -> None:
        self.params = params
        self.prng = Prng(params.seed)
        self.now_ns = 0
        self.processes: dict[str, Process] = {}
        self.acting: Process | None = None
        """Whose code runs at this instant, on its loop or in one of its threads."""
        self.chronicle = Chronicle(self)
        self.violation: Violated | None = None
        self.fired: Counter[str] = Counter()
        """How often each kind of fault really happened."""
        self.lines: list[str] | None = [] if keep_log else None
        self._heap: list[tuple[int, int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._mix = self.prng.fork("ties").next64() | 1
        self._digest = hashlib.sha256()
        self._unhashed: list[str] = []
        self._hooks: dict[str, list[Callable[..., None]]] = {name: [] for name in _HOOKS}

    # ---- time ------------------------------------------------------------------------------

    def at(self, time_ns: int, event: Callable[..., None], *args: Any) -> None:
        """Calls `event(*args)` at this time; a time in the past is now."""
        self._count += 1
        # A linear congruential step is enough to shuffle what happens at the same instant.
        self._mix = mix = (self._mix * 6364136223846793005 + 1442695040888963407) & _MASK
        when = time_ns if time_ns > self.now_ns else self.now_ns
        heapq.heappush(self._heap, (when, mix >> 40, self._count, event, args))

    def after(self, delay_ns: int, event: Callable[..., None], *args: Any) -> None:
        """Calls `event(*args)` after this long."""
        self.at(self.now_ns + delay_ns, event, *args)

    def run(self, until_ns: int, stop: Callable[[], bool] | None = None) -> None:
        """Lets everything happen that is due up to then; ends early when `stop` says so, or when
        a promise is broken. `stop` is asked after every event."""
        heap = self._heap
        while heap and heap[0][0] <= until_ns:
            self.now_ns, _, _, event, args = heapq.heappop(heap)
            event(*args)
            if self.violation is not None:
                return
            if stop is not None and stop():
                return
        self.now_ns = max(self.now_ns, until_ns)

    @property
    def events(self) -> int:
        """How many events there have been, those still to come included."""
        return self._count

    @property
    def tick(self) -> int:
        """Ticks of true time that have passed."""
        return self.now_ns // TICK

    # ---- trace -----------------------------------------------------------------------------

    def log(self, line: str) -> None:
        """One event, one line."""
        stamped = f"{self.now_ns} {line}"
        unhashed = self._unhashed
        unhashed.append(stamped)
        if self.lines is not None:
            self.lines.append(stamped)
        if len(unhashed) >= _LINES_HASHED_AT:
            self._hash()

    def _hash(self) -> None:
        self._digest.update("\n".join(self._unhashed).encode())
        self._digest.update(b"\n")
        self._unhashed.clear()

    def trace_sha256(self) -> str:
        """The digest of the trace so far."""
        self._hash()
        return self._digest.copy().hexdigest()

    def fire(self, kind: str, times: int = 1) -> None:
        """A fault of this kind has really happened."""
        self.fired[kind] += times

    # ---- those who watch -------------------------------------------------------------------

    def watch(self, invariants: Iterable[Invariant]) -> None:
        """Shows everything to these from now on, each only what it has asked for."""
        for invariant in invariants:
            for name in _HOOKS:
                if getattr(type(invariant), name) is not getattr(Invariant, name):
                    self._hooks[name].append(getattr(invariant, name))

    def hooks(self, name: str) -> list[Callable[..., None]]:
        """Who wants to see this; the list grows with `watch`."""
        return self._hooks[name]

    def show(self, name: str, *what: Any) -> None:
        """Calls a hook of all invariants; the first that objects ends the seed.

        Nothing is raised here: much of this is called from within the product, which would
        handle the exception as one of its own.
        """
        for hook in self._hooks[name]:
            try:
                hook(*what)
            except Violated as violated:
                self.violate(violated)
                return
            except (StorageError, ProcessDied):
                continue  # What it looked at is damaged, or gone: there is nothing to be seen.

    def violate(self, violated: Violated) -> None:
        """A promise was broken; the first one counts."""
        if self.violation is None:
            self.violation = violated
            self.log(f"violated {violated}")
