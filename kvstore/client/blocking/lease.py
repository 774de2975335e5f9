"""Leases for threads: one thread per client keeps all of its leases alive."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from kvstore.client import operations
from kvstore.client.call import Effect
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import KvError, LeaseNotFoundError
from kvstore.client.keepalive import KeepAliveSchedule
from kvstore.client.values import LeaseTimes

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("Keeper", "Lease")

logger = logging.getLogger("kvstore.client")


class Lease:
    """A lease that is renewed in the background until it is revoked, released, or lost.

    As a context manager it revokes the lease at the end, which deletes its keys.
    """

    def __init__(self, client: Client, lease_id: int, ttl_s: int, sent: float) -> None:
        self._client = client
        self.id = lease_id
        self.ttl_s = ttl_s
        self._lost = threading.Event()
        self._watchers: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._expires = sent + ttl_s

    @property
    def lost(self) -> bool:
        """The lease ended without our doing: it expired, or somebody revoked it."""
        return self._lost.is_set()

    def wait_lost(self, timeout: float | None = None) -> bool:
        """Block until the lease is lost; False when `timeout` seconds passed before."""
        return self._lost.wait(timeout)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` (in the keep-alive thread, so briefly) when the lease is lost."""
        with self._lock:
            if not self.lost:
                self._watchers.append(callback)
                return
        callback()

    def off_lost(self, callback: Callable[[], None]) -> None:
        """Forget a callback given to `on_lost`."""
        with self._lock:
            if callback in self._watchers:
                self._watchers.remove(callback)

    def remaining_s(self) -> float:
        """Seconds that the lease surely lives on if no renewal succeeds any more; 0 when lost."""
        if self.lost:
            return 0.0
        expires = self._client._keeper.expires(self.id) or self._expires
        return max(expires - self._client._clock(), 0.0)

    def refresh(self) -> int:
        """Renew now; the TTL in seconds. Raises LeaseNotFoundError when the lease is gone."""
        sent = self._client._clock()
        ttl_s = self._client.keep_alive_once(self.id).ttl_s
        if not self._client._keeper.renewed(self.id, ttl_s, sent) or ttl_s <= 0:
            self.release()
            self._set_lost()
            raise LeaseNotFoundError(f"lease {self.id:x} has ended")
        self._expires = sent + ttl_s
        return ttl_s

    def time_to_live(self, *, keys: bool = False) -> LeaseTimes:
        """What the server says is left of it."""
        return self._client.lease_time_to_live(self.id, keys=keys)

    def release(self) -> None:
        """Stop renewing; the lease ends by itself after its TTL."""
        if sys.is_finalizing():
            return  # nobody renews any more; the thread is dead, perhaps with a lock in its hands
        self._client._keeper.drop(self.id)

    def revoke(self) -> None:
        """End the lease now and delete its keys; ending it twice is fine."""
        self.release()
        # Twice does no harm here, where the second refusal is ignored.
        call = operations.lease_revoke(self.id)._replace(effect=Effect.REPEATABLE)
        try:
            self._client.call(call)
        except LeaseNotFoundError:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.revoke()

    def _set_lost(self) -> None:
        with self._lock:
            if self.lost:
                return
            self._lost.set()
            watchers, self._watchers = self._watchers, []
        for callback in watchers:
            try:
                callback()
            except Exception:
                logger.exception("an on_lost callback of lease %x failed", self.id)


class Keeper:
    """The keep-alive thread of a client; it runs while there is a lease to keep."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._schedule = KeepAliveSchedule()
        self._leases: dict[int, Lease] = {}
        self._answers: deque[tuple[int, float, Endpoint, Any]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, lease: Lease, sent: float) -> None:
        """Keep `lease` alive; it was granted by a request sent at `sent`."""
        with self._changed:
            self._schedule.add(lease.id, lease.ttl_s, sent)
            self._leases[lease.id] = lease
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="kvstore-keepalive", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def drop(self, lease_id: int) -> None:
        with self._changed:
            self._schedule.drop(lease_id)
            self._leases.pop(lease_id, None)
            self._changed.notify_all()

    def expires(self, lease_id: int) -> float | None:
        with self._changed:
            return self._schedule.expires(lease_id)

    def renewed(self, lease_id: int, ttl_s: int, sent: float) -> bool:
        with self._changed:
            return self._schedule.renewed(lease_id, ttl_s, sent)

    def close(self) -> None:
        """Stop renewing everything; the leases end by themselves."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        clock = self._client._clock
        while True:
            with self._changed:
                due, lost = self._next(clock)
                if due is None:
                    self._thread = None
                    return
            for lease in lost:
                lease._set_lost()
            for lease_id, timeout_s in due:
                self._send(lease_id, timeout_s)

    def _next(
        self, clock: Callable[[], float]
    ) -> tuple[list[tuple[int, float]] | None, list[Lease]]:
        """Wait for work: renewals to send and leases that are lost; None = nothing is left."""
        while not self._closed and (len(self._schedule) or self._answers):
            gone = self._read_answers() + self._schedule.expired(clock())
            lost = [lease for each in gone if (lease := self._leases.pop(each, None))]
            due = self._schedule.take_due(clock())
            if lost or due:
                return due, lost
            wake = self._schedule.next_wake()
            self._changed.wait(None if wake is None else max(wake - clock(), 0.0))
        return None, []

    def _read_answers(self) -> list[int]:
        gone = []
        while self._answers:
            lease_id, sent, endpoint, future = self._answers.popleft()
            try:
                ttl_s = future.result().TTL
            except grpc.RpcError as failure:
                call = operations.keep_alive_once(lease_id)
                error = self._client._failure(failure, endpoint, call.effect)
                logger.debug("renewal of lease %x failed: %s", lease_id, error)
                self._schedule.failed(lease_id, self._client._clock())
            except grpc.FutureCancelledError:
                self._schedule.failed(lease_id, self._client._clock())
            else:
                if not self._schedule.renewed(lease_id, ttl_s, sent):
                    gone.append(lease_id)
        return gone

    def _send(self, lease_id: int, timeout_s: float) -> None:
        client = self._client
        call = operations.keep_alive_once(lease_id)
        endpoint = client._rotation.current
        sent = client._clock()
        try:
            future = client._unary(endpoint, call.method).future(
                call.request, timeout=timeout_s, metadata=client._metadata
            )
        except (KvError, ValueError):  # closed meanwhile
            return

        def answered(done: Any) -> None:
            with self._changed:
                self._answers.append((lease_id, sent, endpoint, done))
                self._changed.notify_all()

        future.add_done_callback(answered)
