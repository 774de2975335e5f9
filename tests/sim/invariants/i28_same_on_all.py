"""I28 (etcd #18667, #14571): equal applied index means equal state, outcome and error.

Each entry's outcome and the changes that it left in the store are compared with those of the
first process that applied it. Whole states are hashed where that is rare: after a snapshot was
installed, at a start, and at the end of a phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvstore.pb.rpc_pb2 import CORRUPT
from raft.types import Entry
from tests.sim.books.canon import canon_of
from tests.sim.books.reading import running, state_hash
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("SameOnAll",)


class SameOnAll(Invariant):
    """Members with the CORRUPT alarm up are known to differ, and left out (I29)."""

    number = "I28"
    title = (
        "Same applied index ⇒ same state hash, same outcome, same error for each entry on all "
        "nodes, whatever their sweep progress, clock or auth cache."
    )
    source = "etcd #18667, #14571"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)
        self._hashes: dict[int, tuple[int, str]] = {}

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        for item in self._canon.read(p, entries, results):
            if item.first:
                continue
            canon, result = item.canon, item.result
            found = (result.revision, result.error, result.conf_valid)
            known = (canon.revision, canon.error, canon.conf_valid)
            if item.entry != canon.entry:
                raise self.violated(
                    f"{p.name} applied another entry {item.entry.index} than {canon.process}"
                )
            if found != known and canon.shown:
                raise self.violated(
                    f"entry {item.entry.index} gave {p.name} (revision, error, valid) {found}, "
                    f"and {canon.process} {known}"
                )
            if item.changes != canon.changes:
                raise self.violated(
                    f"entry {item.entry.index} changed on {p.name} {item.changes[:3]}, on "
                    f"{canon.process} {canon.changes[:3]}"
                )

    def started(self, p: Process) -> None:
        self._compare(p)

    def installed(self, p: Process, index: int, term: int) -> None:
        self._compare(p)

    def phase_ended(self, name: str) -> None:
        for p in running(self.world.processes):
            self._compare(p)

    def _compare(self, p: Process) -> None:
        if (p.member_id, CORRUPT) in p.machine.alarms:
            return
        index, found = p.machine.applied_index, state_hash(p)
        known, first = self._hashes.setdefault(index, (found, p.name))
        if known != found:
            raise self.violated(
                f"{p.name} and {first} have both applied entry {index}, but their states hash to "
                f"{found:08x} and {known:08x}"
            )
