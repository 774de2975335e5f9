"""I23 (etcd): create ≤ mod ≤ store revision; version counts the puts of one life of a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvstore.machine.results import DELETE, Change
from raft.types import Entry
from tests.linear.history import KV
from tests.sim.books.canon import canon_of, kv_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("VersionsCountPuts",)


class VersionsCountPuts(Invariant):
    """Follows each key through the first appliance of each entry; I28 sees to the others."""

    number = "I23"
    title = (
        "create ≤ mod ≤ store revision; version = puts since creation; a delete ends the "
        "generation and the next put starts at version 1."
    )
    source = "etcd"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        for item in self._canon.read(p, entries, results):
            if item.first:
                for change in item.changes:
                    event = self._canon.events[change.revision][change.sub]
                    self._check(p, change, event.prev, item.result.revision)

    def _check(self, p: Process, change: Change, before: KV | None, revision: int) -> None:
        if change.kind == DELETE:
            if before is None:
                raise self.violated(
                    f"{p.name} deleted {change.key!r} at revision {change.revision}, which did "
                    "not exist"
                )
            return
        kv = kv_of(change.kv)
        create, version = (
            (change.revision, 1) if before is None else (before.create, before.version + 1)
        )
        if (
            (kv.create, kv.version) != (create, version)
            or kv.mod != change.revision
            or not kv.create <= kv.mod <= revision
            or change.created != (version == 1)
        ):
            raise self.violated(
                f"{p.name} has {kv} at revision {change.revision} (store: {revision}); it should "
                f"be of version {version}, created at {create}"
            )
