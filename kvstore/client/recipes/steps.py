"""What a recipe is made of: programs, the steps they yield, and what ends their waiting.

A `Program` is a generator that yields steps, is sent each answer, gets a failed step's error
thrown in, and returns the result. It knows neither threads nor an event loop; the two clients
carry programs out (`blocking/running.py`, `aio/running.py`), so every recipe is written once.

A wait never says what happened: the program looks at the store again. So it makes no difference
whether a watch saw the event, or found that its history was compacted meanwhile.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from kvstore.client.call import Unary
from kvstore.client.errors import KvError, LeaseLostError
from kvstore.client.keys import prefix_end
from kvstore.client.requests import watch_request
from kvstore.client.values import WatchFilter
from kvstore.pb import rpc_pb2 as pb

__all__ = (
    "UNLIMITED",
    "Bell",
    "Bounded",
    "Grant",
    "HeldLease",
    "Idle",
    "LeaseStop",
    "Limits",
    "Program",
    "Revoke",
    "Step",
    "Stop",
    "WaitChange",
    "WaitDeleted",
    "deadline_of",
    "ensuring",
    "within",
)

T = TypeVar("T")


class HeldLease(Protocol):
    """What recipes need of a lease of either client."""

    id: int

    @property
    def lost(self) -> bool: ...

    def on_lost(self, callback: Callable[[], None]) -> None: ...

    def off_lost(self, callback: Callable[[], None]) -> None: ...


class WaitDeleted(NamedTuple):
    """Wait until `key` is deleted at `revision` or later (or its history is gone: look again)."""

    key: bytes
    revision: int

    def request(self) -> pb.WatchCreateRequest:
        return watch_request(self.key, start_revision=self.revision, filters=(WatchFilter.NO_PUT,))


class WaitChange(NamedTuple):
    """Wait for a change in [key, range_end) at `revision` or later, `filters` left out."""

    key: bytes
    revision: int
    range_end: bytes = b""
    filters: tuple[WatchFilter, ...] = ()

    def request(self) -> pb.WatchCreateRequest:
        return watch_request(
            self.key,
            range_end=self.range_end,
            start_revision=self.revision,
            filters=self.filters,
        )

    @classmethod
    def under(
        cls, prefix: bytes, revision: int, filters: tuple[WatchFilter, ...] = ()
    ) -> WaitChange:
        """Any key that starts with `prefix`."""
        return cls(prefix, revision, prefix_end(prefix), filters)


class Idle(NamedTuple):
    """Wait for nothing but the limits: a deadline, or a stop."""


class Grant(NamedTuple):
    """A new lease that is kept alive; the answer is the client's own lease object."""

    ttl_s: int


class Revoke(NamedTuple):
    """End a lease and delete its keys."""

    lease: HeldLease


class Stop(Protocol):
    """Something that ends waiting before its time."""

    def reason(self) -> KvError | None:
        """Why waiting must end; None = it need not."""

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call `callback` once there is a reason (perhaps from another thread, perhaps now)."""

    def unsubscribe(self, callback: Callable[[], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """When steps have to end: LockTimeoutError at `deadline`, or the reason of a stop."""

    deadline: float = math.inf
    """A moment of the client's clock."""
    stops: tuple[Stop, ...] = ()

    def reason(self) -> KvError | None:
        """The first stop's reason, if any has one."""
        return next((why for stop in self.stops if (why := stop.reason()) is not None), None)

    def joined(self, other: Limits) -> Limits:
        """Both at once."""
        return Limits(min(self.deadline, other.deadline), self.stops + other.stops)


UNLIMITED = Limits()


class Bounded(NamedTuple):
    """A step under limits."""

    step: Step
    limits: Limits


Step: TypeAlias = Unary[Any] | WaitDeleted | WaitChange | Idle | Grant | Revoke | Bounded
Program: TypeAlias = Generator[Step, Any, T]


def deadline_of(now: float, timeout: float | None) -> float:
    """The moment `timeout` seconds from `now`; no timeout = never."""
    return math.inf if timeout is None else now + timeout


def within(program: Program[T], limits: Limits) -> Program[T]:
    """`program` with each of its steps under `limits`."""
    try:
        step = next(program)
        while True:
            try:
                answer = yield Bounded(step, limits)
            except GeneratorExit:
                program.close()
                raise
            except BaseException as error:
                step = program.throw(error)
            else:
                step = program.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


def ensuring(program: Program[T], cleanup: Callable[[], Program[None]]) -> Program[T]:
    """`program`, then `cleanup` whatever became of it.

    A `finally` that yields would do, but for a program that is abandoned half-way (its process
    ends): nobody is left to carry the cleanup out, and leases see to it instead.
    """
    try:
        result = yield from program
    except GeneratorExit:
        raise
    except BaseException:
        yield from cleanup()
        raise
    yield from cleanup()
    return result


class LeaseStop:
    """Waiting ends when a lease is lost: what it held may belong to somebody else by now."""

    def __init__(self, lease: HeldLease) -> None:
        self._lease = lease

    def reason(self) -> KvError | None:
        if self._lease.lost:
            return LeaseLostError(f"lease {self._lease.id:x} was lost while waiting")
        return None

    def subscribe(self, callback: Callable[[], None]) -> None:
        self._lease.on_lost(callback)

    def unsubscribe(self, callback: Callable[[], None]) -> None:
        self._lease.off_lost(callback)


class Bell:
    """Waiting ends when somebody rings; may be rung from any thread, and reset."""

    def __init__(self, reason: Callable[[], KvError]) -> None:
        self._make = reason
        self._lock = threading.Lock()
        self._rung = False
        self._callbacks: list[Callable[[], None]] = []

    def ring(self) -> None:
        """End every wait that this bell limits."""
        with self._lock:
            self._rung = True
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def reset(self) -> None:
        """Waiting is possible again."""
        with self._lock:
            self._rung = False

    def reason(self) -> KvError | None:
        return self._make() if self._rung else None

    def subscribe(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._callbacks.append(callback)
            rung = self._rung
        if rung:
            callback()

    def unsubscribe(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
