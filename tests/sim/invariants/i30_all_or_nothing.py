"""I30 (etcd): a transaction is all or nothing, and its compares see the state before it.

A failed one changes neither keys, leases nor revision. What each transaction should do, and
answer, a model says that was written from the API's description.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvstore.machine.command import CommandKind
from kvstore.machine.results import DELETE
from kvstore.pb.rpc_pb2 import TxnResponse
from raft.types import Entry
from tests.sim.books.canon import Applied, canon_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("AllOrNothing", "difference")

_KINDS = frozenset((CommandKind.PUT, CommandKind.DELETE_RANGE, CommandKind.TXN))


def difference(item: Applied) -> str | None:
    """How an entry's effect departs from what the model expects; None if it does not."""
    expected = item.canon.expected
    if expected is None:
        return None
    if item.result.error != expected.error:
        return f"the outcome is {item.result.error!r}, it should be {expected.error!r}"
    found = tuple(
        (change.revision, change.sub, change.kind == DELETE, change.kv) for change in item.changes
    )
    if found != expected.events:
        return f"it changed {found[:4]}, it should have changed {expected.events[:4]}"
    return None


class AllOrNothing(Invariant):
    """The first appliance of each put, delete and transaction; I28 sees to the others."""

    number = "I30"
    title = (
        "A txn is all or nothing; its compares see the state before it; a failed one changes "
        "neither keys, leases nor revision."
    )
    source = "etcd"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        for item in self._canon.read(p, entries, results):
            if item.canon.kind not in _KINDS:
                continue
            if item.result.error is not None and item.changes:
                raise self.violated(
                    f"{p.name}: entry {item.entry.index} was refused "
                    f"({item.result.error!r}) and changed {item.changes[0].key!r}"
                )
            if item.first:
                what = difference(item)
                if what is not None:
                    raise self.violated(f"{p.name}: entry {item.entry.index}: {what}")
            if item.canon.kind == CommandKind.TXN and item.result.body:
                self._check_answer(p, item)

    def _check_answer(self, p: Process, item: Applied) -> None:
        expected = item.canon.expected
        if expected is None or expected.answer is None:
            return
        found = TxnResponse.FromString(item.result.body)
        if found != expected.answer:
            raise self.violated(
                f"{p.name}: transaction {item.entry.index} is answered {found!s:.300}, it should "
                f"be {expected.answer!s:.300}"
            )
