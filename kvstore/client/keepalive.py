"""When which lease is to be renewed, and when it must be counted as lost. Pure: time is passed in.

A lease is lost when the server says so (TTL 0), or when its TTL has passed since the last renewal
that succeeded was *sent*: the server's own clock started no earlier, so nobody holds on to a lock
that another one may own by now. A lost lease never comes back.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.client.limits import (
    KEEP_ALIVE_FRACTION,
    KEEP_ALIVE_PARALLEL,
    KEEP_ALIVE_RETRY_S,
    KEEP_ALIVE_TIMEOUT_MAX_S,
    KEEP_ALIVE_TIMEOUT_MIN_S,
)

__all__ = ("KeepAliveSchedule",)


@dataclass(slots=True)
class _Entry:
    ttl_s: int
    due: float
    expires: float


class KeepAliveSchedule:
    """The leases of one client that are kept alive."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, lease_id: int, ttl_s: int, sent: float) -> None:
        """Keep `lease_id` alive; it was granted or renewed by a request sent at `sent`."""
        self._entries[lease_id] = _Entry(ttl_s, sent + ttl_s / KEEP_ALIVE_FRACTION, sent + ttl_s)

    def drop(self, lease_id: int) -> None:
        """Keep it alive no longer."""
        self._entries.pop(lease_id, None)

    def expires(self, lease_id: int) -> float | None:
        """When the lease ends if no renewal succeeds any more; None = not kept."""
        entry = self._entries.get(lease_id)
        return None if entry is None else entry.expires

    def take_due(self, now: float) -> list[tuple[int, float]]:
        """(lease, deadline in seconds) of each renewal to send now, most urgent first.

        What was taken is not due again before its deadline.
        """
        ready = [(e.expires, i) for i, e in self._entries.items() if e.due <= now]
        ready.sort()
        taken = []
        for _, lease_id in ready[:KEEP_ALIVE_PARALLEL]:
            entry = self._entries[lease_id]
            timeout_s = min(entry.ttl_s / KEEP_ALIVE_FRACTION, KEEP_ALIVE_TIMEOUT_MAX_S)
            timeout_s = max(timeout_s, KEEP_ALIVE_TIMEOUT_MIN_S)
            entry.due = now + timeout_s + KEEP_ALIVE_RETRY_S
            taken.append((lease_id, timeout_s))
        return taken

    def renewed(self, lease_id: int, ttl_s: int, sent: float) -> bool:
        """An answer came to a renewal sent at `sent`; False = the lease is gone."""
        if lease_id not in self._entries:
            return True
        if ttl_s <= 0:
            del self._entries[lease_id]
            return False
        self.add(lease_id, ttl_s, sent)
        return True

    def failed(self, lease_id: int, now: float) -> None:
        """A renewal failed; try again soon."""
        entry = self._entries.get(lease_id)
        if entry is not None:
            entry.due = now + KEEP_ALIVE_RETRY_S

    def expired(self, now: float) -> list[int]:
        """Leases whose time ran out without contact; they are dropped."""
        gone = [lease_id for lease_id, e in self._entries.items() if e.expires <= now]
        for lease_id in gone:
            del self._entries[lease_id]
        return gone

    def next_wake(self) -> float | None:
        """When `due` or `expired` may have something; None = nothing to keep."""
        return min((min(e.due, e.expires) for e in self._entries.values()), default=None)
