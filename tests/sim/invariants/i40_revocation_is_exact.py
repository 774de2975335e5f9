"""I40 (etcd): a revocation deletes exactly the keys attached at that moment, in one revision.

A key put again without the lease, or with another, survives; attaching to an unknown lease fails
and changes nothing; and which leases there are is the same on all nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvstore.machine.command import CommandKind
from raft.types import Entry
from tests.sim.books.canon import canon_of
from tests.sim.invariants.i30_all_or_nothing import difference
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("RevocationIsExact",)

_KINDS = frozenset((CommandKind.LEASE_GRANT, CommandKind.LEASE_REVOKE, CommandKind.LEASE_EXPIRE))


class RevocationIsExact(Invariant):
    """Effects of the first appliance against the model; the set of leases on every process."""

    number = "I40"
    title = (
        "Revocation deletes exactly the keys attached at that moment, in one revision, on all "
        "nodes; a key re-put without the lease, or with another, survives; attaching to an "
        "unknown lease fails and changes nothing."
    )
    source = "etcd"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        touched = False
        for item in self._canon.read(p, entries, results):
            if item.canon.kind not in _KINDS:
                continue
            touched = True
            if item.first:
                what = difference(item)
                if what is not None:
                    raise self.violated(f"{p.name}: lease entry {item.entry.index}: {what}")
        if touched:
            self._check_leases(p, entries[-1].index)

    def _check_leases(self, p: Process, index: int) -> None:
        expected = self._canon.leases_at(index)
        if expected is not None and frozenset(p.machine.leases) != expected:
            raise self.violated(
                f"{p.name} has the leases {sorted(p.machine.leases)} after entry {index}; there "
                f"should be {sorted(expected)}"
            )
