"""The hub on the real state machine: the same walks and the same judge, but true history.

The model is told every write beside the machine. It must see the same changes, and judges what
the hub makes of the machine's views: compacted, partly swept, on both kinds of store.
"""

from __future__ import annotations

import random
from pathlib import Path
from unittest import mock

import pytest

from kvstore.pb.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.storage.store import Store
from kvstore.watch import limits
from kvstore.watch.history import View
from tests.props.watch_world import TINY, World, walk
from tests.unit.machine.kit import Bench
from tests.unit.machine.stores import open_store
from tests.unit.watch.model import Change, ModelHistory, create, hub_on, pump_dry, take


class MachineHistory(ModelHistory):
    """A machine and a model that are told the same."""

    def __init__(self, store: Store, seed: int) -> None:
        super().__init__()
        self.bench = Bench(store)
        self.dice = random.Random(seed)

    def view(self) -> View:  # type: ignore[override]
        return self.bench.machine.view()

    def commit(self, *operations: tuple[bytes, bytes | None]) -> list[Change]:
        expected = super().commit(*operations)
        ops = [
            RequestOp(request_delete_range=DeleteRangeRequest(key=key))
            if value is None
            else RequestOp(request_put=PutRequest(key=key, value=value))
            for key, value in operations
        ]
        assert self.bench.apply(TxnRequest(success=ops)).error is None
        assert self.bench.last is not None
        made = [Change(*change) for change in self.bench.last.changes]
        assert made == expected
        assert self.bench.machine.revision == self.revision
        self.bench.machine.sweep(self.dice.randrange(1, 4))
        return made

    def compact(self, revision: int) -> None:
        super().compact(revision)
        assert self.bench.apply(CompactionRequest(revision=revision)).error is None


@pytest.mark.parametrize(("kind", "seeds"), [("memory", range(6)), ("lmdb", range(6, 8))])
def test_a_long_walk_on_the_machine_keeps_every_promise(
    kind: str, seeds: range, tmp_path: Path
) -> None:
    for seed in seeds:
        store = open_store(kind, tmp_path / str(seed))
        with mock.patch.multiple(limits, **TINY):
            world = walk(World(2, MachineHistory(store, seed)), seed)
        assert world.history.compact_revision > 0
        store.close()


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_a_watch_from_exactly_a_compacted_deletion_sees_it(kind: str, tmp_path: Path) -> None:
    """etcd #18089, #19179: also when everything below is swept."""
    store = open_store(kind, tmp_path / "db")
    history = MachineHistory(store, 1)
    history.commit((b"a", b"1"))
    history.commit((b"a", None))
    history.commit((b"b", b"1"))
    history.compact(3)
    history.bench.sweep()
    hub = hub_on(history)
    stream = hub.open(lambda: None)
    stream.request(create(b"a", b"c", start_revision=3, prev_kv=True))
    pump_dry(hub)
    _created, replayed = take(stream)
    assert [(event.type, event.kv.key) for event in replayed.events] == [(1, b"a"), (0, b"b")]
    assert not any(event.HasField("prev_kv") for event in replayed.events)
    store.close()
