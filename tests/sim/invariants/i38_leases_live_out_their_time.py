"""I38 (etcd's lessor): no lease expires before its last keep-alive + TTL, in true time.

Less the declared drift: clocks run at 90 to 110 % of true time. The instant of a renewal is
taken where it happens, at the lessor that answers it; it counts from when a client has that
answer. After a leader change the same bound holds: it knows of no leaders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvstore.machine.command import CommandKind, decode
from kvstore.pb.rpc_pb2 import LeaseGrantRequest
from raft.types import Entry
from tests.sim.books.canon import canon_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.errors import EtcdError
    from kvstore.machine import Result
    from kvstore.node.proposals import Done
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("LeasesLiveOutTheirTime",)

_NS = 1_000_000_000
_FASTEST_PERCENT = 110
"""How fast a clock may run."""


class LeasesLiveOutTheirTime(Invariant):
    """One earliest end per lease, moved by each renewal that a client has heard of."""

    number = "I38"
    title = (
        "A lease is never revoked by expiry before (last successful keep-alive + TTL) in true "
        "time, less the declared drift; after a leader change every lease gets at least its "
        "remaining, or full, TTL again."
    )
    source = "etcd lessor"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)
        self._granted: dict[int, int] = {}
        """Lease → true time at which its grant was first applied."""
        self._renewed: dict[int, int] = {}
        """Lease → true time at which some lessor last said yes."""
        self._earliest: dict[int, int] = {}
        """Lease → true time before which it must not expire."""

    def started(self, p: Process) -> None:
        lessor = p.core.lessor
        renew = lessor.renew

        def observed(lease_id: int, now: float, done: Done) -> None:
            def answered(ttl_s: Any, error: EtcdError | None) -> None:
                if error is None and ttl_s:
                    self._renewed[lease_id] = self.world.now_ns
                done(ttl_s, error)

            renew(lease_id, now, answered)

        lessor.renew = observed  # type: ignore[method-assign]

    def lease_event(self, kind: str, lease_id: int, ttl_s: float, p: Process) -> None:
        since = (self._granted if kind == "granted" else self._renewed).get(lease_id)
        if kind not in ("granted", "renewed") or since is None or ttl_s <= 0:
            return
        end = since + int(ttl_s * _NS) * 100 // _FASTEST_PERCENT
        self._earliest[lease_id] = max(end, self._earliest.get(lease_id, 0))

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        now = self.world.now_ns
        for item in self._canon.read(p, entries, results):
            if not item.first:
                continue
            kind, expected = item.canon.kind, item.canon.expected
            if kind == CommandKind.LEASE_GRANT and item.result.error is None:
                command = decode(item.entry.data)
                assert command is not None
                lease_id = LeaseGrantRequest.FromString(command.payload).ID
                self._granted[lease_id] = now
                self._renewed.pop(lease_id, None)
                self._earliest.pop(lease_id, None)
            elif kind == CommandKind.LEASE_EXPIRE and expected is not None:
                for lease_id in expected.revoked:
                    self._check(lease_id, item.entry, now)

    def _check(self, lease_id: int, entry: Entry, now: int) -> None:
        earliest = self._earliest.get(lease_id, 0)
        if now < earliest:
            raise self.violated(
                f"lease {lease_id} expired by entry {entry.index} of term {entry.term} "
                f"{(earliest - now) / _NS:.3f} s before its time (at {now} ns; granted at "
                f"{self._granted.get(lease_id)}, last renewed at {self._renewed.get(lease_id)})"
            )
