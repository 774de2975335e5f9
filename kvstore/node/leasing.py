"""When leases end: the deadlines that only the leader keeps.

A lease's existence is replicated (the machine has it); its remaining time is not. The leader
counts it down and, when it is over, proposes the expiry to the log. Renewals change one number
here and nothing in the log. A new leader cannot know when leases were last renewed, so it gives
each its full time again plus one election timeout, which covers a renewal that the old leader
answered just before it learned of its end.

Somebody on top of the member (the service registry) may hold leases back: a held lease is not
expired, and may be renewed, for as long as `held` says so. `expiring` takes that back: the holder
is about to end the leases by a command of its own.

The heap holds one record per lease. A renewal only moves the deadline in the table; the
record in the heap is early then, and is put back with the true deadline when it surfaces.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kvstore.errors import NOT_PRIMARY_LESSOR, EtcdError
from kvstore.node.limits import (
    LEASE_EXPIRIES_PER_S,
    LEASE_EXPIRY_RETRY_S,
    LEASE_HOLD_CHECK_S,
    MAX_LEASE_BATCH,
    MAX_LEASES_LOOKED_AT,
)
from kvstore.node.proposals import Done

__all__ = ("Lessor", "minimum_ttl_s")

_HEAP_SLACK = 1_024
"""Records of revoked leases that the heap may hold before it is rebuilt."""


def minimum_ttl_s(election_ticks: int, tick_ms: int) -> int:
    """The shortest lease: one and a half election timeouts, in whole seconds (etcd: 2)."""
    return math.ceil((3 * election_ticks // 2) * tick_ms / 1000)


class Lessor:
    """Deadlines of all leases while this member leads; empty while it does not.

    Times are seconds of the member's clock. `exists` asks the machine whether a lease is
    still there, so that a revocation needs no notice beyond `revoked`.
    """

    def __init__(self, exists: Callable[[int], bool], election_timeout_s: float) -> None:
        self._exists = exists
        self._extension_s = election_timeout_s
        self._primary = False
        self._ttls: dict[int, int] = {}
        self._deadlines: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []
        self._expiring: dict[int, float] = {}
        self._waiting: dict[int, list[Done]] = {}
        self._allowance = 0.0
        self._last_due = 0.0
        self.on_renewed: Callable[[Sequence[int], float], None] | None = None
        """Told of leases that were renewed here, and when."""
        self.held: Callable[[int], bool] | None = None
        """Asked when a lease's time is over; while it says True the lease goes on."""

    @property
    def primary(self) -> bool:
        """True while this member keeps the deadlines."""
        return self._primary

    def __len__(self) -> int:
        return len(self._deadlines)

    def promote(self, leases: Iterable[tuple[int, int]], now: float) -> None:
        """This member leads: every (lease id, TTL in seconds) gets its full time and a bit."""
        self.demote()
        self._primary = True
        self._last_due = now
        for lease_id, ttl_s in leases:
            self._ttls[lease_id] = ttl_s
            self._deadlines[lease_id] = now + ttl_s + self._extension_s
        self._rebuild()

    def _rebuild(self) -> None:
        """One record per lease again: revoked leases leave theirs behind until it surfaces."""
        self._heap = [(deadline, lease_id) for lease_id, deadline in self._deadlines.items()]
        heapq.heapify(self._heap)

    def demote(self) -> None:
        """This member leads no more: it forgets all deadlines and fails renewals that wait."""
        self._primary = False
        waiting, self._waiting = self._waiting, {}
        self._ttls.clear()
        self._deadlines.clear()
        self._heap.clear()
        self._expiring.clear()
        for dones in waiting.values():
            for done in dones:
                done(None, NOT_PRIMARY_LESSOR)

    def granted(self, lease_id: int, ttl_s: int, now: float, *, inherited: bool = False) -> None:
        """A grant was applied; `inherited` when an earlier leader had proposed it."""
        if not self._primary:
            return
        known = lease_id in self._deadlines
        deadline = now + ttl_s + (self._extension_s if inherited else 0.0)
        self._ttls[lease_id] = ttl_s
        self._deadlines[lease_id] = deadline
        if not known:
            heapq.heappush(self._heap, (deadline, lease_id))
            if len(self._heap) > 2 * len(self._deadlines) + _HEAP_SLACK:
                self._rebuild()

    def revoked(self, lease_id: int) -> None:
        """The lease is gone; a renewal that waited for that learns it (TTL 0)."""
        self._ttls.pop(lease_id, None)
        self._deadlines.pop(lease_id, None)
        self._expiring.pop(lease_id, None)
        for done in self._waiting.pop(lease_id, ()):
            done(0, None)

    def renew(self, lease_id: int, now: float, done: Done) -> None:
        """Gives the lease its full time again and answers its TTL; 0 when there is no such lease.

        A lease whose time is over but whose keys are still there is answered once they are gone.
        """
        if not self._primary:
            done(None, NOT_PRIMARY_LESSOR)
            return
        ttl_s = self._ttls.get(lease_id)
        if ttl_s is None or not self._exists(lease_id):
            done(0, None)
            return
        if self._is_over(lease_id, now):
            self._waiting.setdefault(lease_id, []).append(done)
            return
        self._deadlines[lease_id] = now + ttl_s
        if self.on_renewed is not None:
            self.on_renewed((lease_id,), now)
        done(ttl_s, None)

    def renew_many(self, lease_ids: Sequence[int], now: float, done: Done) -> None:
        """`renew` of many with one answer: the list of their TTLs.

        Where one of them is just ending, the answer waits for that.
        """
        if not self._primary:
            done(None, NOT_PRIMARY_LESSOR)
            return
        ttls = [0] * len(lease_ids)
        renewed: list[int] = []
        ending: list[int] = []
        table, deadlines = self._ttls, self._deadlines
        for place, lease_id in enumerate(lease_ids):
            ttl_s = table.get(lease_id)
            if ttl_s is None or not self._exists(lease_id):
                continue
            if self._is_over(lease_id, now):
                ending.append(lease_id)
                continue
            deadlines[lease_id] = now + ttl_s
            ttls[place] = ttl_s
            renewed.append(lease_id)
        if renewed and self.on_renewed is not None:
            self.on_renewed(renewed, now)
        if not ending:
            done(ttls, None)
            return
        missing = len(ending)
        failure: EtcdError | None = None

        def ended(_ttl: Any, error: EtcdError | None) -> None:
            nonlocal missing, failure
            missing -= 1
            failure = failure or error
            if not missing:
                done(None if failure else ttls, failure)

        for lease_id in ending:
            self._waiting.setdefault(lease_id, []).append(ended)

    def _is_over(self, lease_id: int, now: float) -> bool:
        """Whether it is too late to renew a lease."""
        if lease_id in self._expiring:
            return True
        if self._deadlines[lease_id] > now:
            return False
        return self.held is None or not self.held(lease_id)

    def expiring(self, lease_ids: Iterable[int], now: float) -> None:
        """The holder of these leases ends them now: it is too late to renew them."""
        for lease_id in lease_ids:
            if lease_id in self._deadlines:
                self._expiring[lease_id] = now + LEASE_EXPIRY_RETRY_S

    def remaining_s(self, lease_id: int, now: float) -> float | None:
        """Seconds until the lease ends, never below 0; None when it is not known here."""
        deadline = self._deadlines.get(lease_id)
        return None if deadline is None else max(0.0, deadline - now)

    def due(self, now: float) -> list[int]:
        """Leases whose expiry should be proposed now; called every tick.

        At most LEASE_EXPIRIES_PER_S over time and MAX_LEASE_BATCH at once, so that a mass
        expiry leaves room for other writes. An expiry that was not applied comes up again.
        """
        elapsed = now - self._last_due
        self._last_due = now
        self._allowance = min(
            float(MAX_LEASE_BATCH), self._allowance + elapsed * LEASE_EXPIRIES_PER_S
        )
        batch: list[int] = []
        looked_at = 0
        while self._heap and self._heap[0][0] <= now and len(batch) < int(self._allowance):
            if looked_at == MAX_LEASES_LOOKED_AT:
                break
            looked_at += 1
            _, lease_id = heapq.heappop(self._heap)
            deadline = self._deadlines.get(lease_id)
            if deadline is None:
                continue
            if not self._exists(lease_id):
                self.revoked(lease_id)
                continue
            again_at = self._expiring.get(lease_id, deadline)
            if again_at > now:
                heapq.heappush(self._heap, (again_at, lease_id))
                continue
            if self.held is not None and self.held(lease_id):
                heapq.heappush(self._heap, (now + LEASE_HOLD_CHECK_S, lease_id))
                continue
            self._expiring[lease_id] = now + LEASE_EXPIRY_RETRY_S
            heapq.heappush(self._heap, (now + LEASE_EXPIRY_RETRY_S, lease_id))
            batch.append(lease_id)
        self._allowance -= len(batch)
        return batch
