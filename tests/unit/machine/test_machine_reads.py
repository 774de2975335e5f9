"""Ranges, counts and hashes over more keys than a slice holds; what a view tells."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.machine import CommandKind, Machine, Member
from kvstore.machine.limits import COUNT_CACHE_ENTRIES
from kvstore.machine.ranges import CountCache
from kvstore.machine.tables import LEASES, REVISIONS, revision_key
from kvstore.pb.rpc_pb2 import (
    AlarmRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
)
from kvstore.storage.errors import StoreCorrupt
from kvstore.storage.memory_store import MemoryReadTxn, MemoryStore
from tests.unit.machine.kit import Bench

KEYS = 9_000


@pytest.fixture(scope="module")
def many() -> Bench:
    """A store of KEYS keys, every tenth written twice. Read only."""
    bench = Bench(MemoryStore(Machine.TABLES))
    bench.apply_all(PutRequest(key=b"%05d" % number, value=b"v") for number in range(KEYS))
    bench.apply_all(PutRequest(key=b"%05d" % number, value=b"w") for number in range(0, KEYS, 10))
    return bench


def _sliced(job: Any) -> tuple[Any, int]:
    """What a job returns, and how often it paused."""
    pauses = 0
    while True:
        try:
            next(job)
        except StopIteration as stop:
            return stop.value, pauses
        pauses += 1


ALL = {"key": b"0", "range_end": b"\0"}


@pytest.mark.parametrize(
    ("options", "pauses"),
    [
        ({"count_only": True}, 2),
        ({}, 9),
        ({"keys_only": True}, 9),
        ({"sort_target": "VALUE"}, 18),
        ({"sort_order": "DESCEND", "limit": 10}, 2),
        ({"min_mod_revision": KEYS, "limit": 10}, 2),
        ({"key": b"00010", "range_end": b""}, 0),
        ({"range_end": b"00900"}, 0),
    ],
)
def test_large_reads_pause_and_small_ones_do_not(
    many: Bench, options: dict[str, Any], pauses: int
) -> None:
    with many.machine.view() as view:
        request = RangeRequest(**{**ALL, **options})
        view._reader.counts._counts.clear()
        answer, paused = _sliced(view.range(request))
    assert pauses <= paused <= pauses + 3
    told = RangeResponse.FromString(answer.body)
    assert (told.count, len(told.kvs), told.more) == (answer.count, answer.returned, answer.more)
    if request.range_end == b"\0":
        assert answer.count == KEYS


def test_a_version_without_its_record_is_damage_of_the_store() -> None:
    """Only a damaged page of the engine's tree can hide a record: no checksum is wrong."""
    store = MemoryStore(Machine.TABLES)
    bench = Bench(store)
    bench.apply(PutRequest(key=b"k", value=b"v"))
    txn = store.write()
    txn.delete(REVISIONS, revision_key(2, 0))
    txn.commit()
    txn.close()
    with bench.machine.view() as view:
        with pytest.raises(StoreCorrupt, match="revisions"):
            _sliced(view.range(RangeRequest(key=b"k")))
        with pytest.raises(StoreCorrupt, match="revisions"):
            _sliced(view.range(RangeRequest(key=b"k", range_end=b"l")))
        with pytest.raises(StoreCorrupt, match="rebuilds it"):
            view.previous(b"k", 2)


def test_the_rest_of_a_paged_range_is_counted_once(many: Bench) -> None:
    with many.machine.view() as view:
        view._reader.counts._counts.clear()
        first, paused = _sliced(view.range(RangeRequest(**ALL, limit=100)))
        assert paused >= 2
        start = first.last_key + b"\0"
        request = RangeRequest(key=start, range_end=b"\0", limit=100)
        second, paused = _sliced(view.range(request))
        assert paused == 0
        assert (first.count, second.count) == (KEYS, KEYS - 100)
        assert second.more
    many_more = Bench(many.store)
    assert many_more.range(start, b"\0", limit=100).count == KEYS - 100


def test_a_remembered_count_belongs_to_its_revision(bench: Bench) -> None:
    bench.apply_all(PutRequest(key=b"%02d" % number) for number in range(10))
    assert bench.range(b"0", b"\0", limit=2).count == 10
    assert bench.range(b"01\0", b"\0", limit=2).count == 8
    bench.put(b"99")
    assert bench.range(b"01\0", b"\0", limit=2).count == 9
    assert bench.range(b"01\0", b"\0", limit=2, revision=11).count == 8


def test_the_cache_of_counts_is_bounded() -> None:
    cache = CountCache()
    for revision in range(COUNT_CACHE_ENTRIES + 5):
        cache.put(b"a", None, revision, revision)
    assert cache.get(b"a", None, 4) is None
    assert cache.get(b"a", None, 5) == 5
    assert len(cache._counts) == COUNT_CACHE_ENTRIES


def test_hashes_pause(many: Bench) -> None:
    with many.machine.view() as view:
        whole, paused = _sliced(view.hash_kv(0))
        assert paused >= 2
        assert (whole.hash_revision, whole.compact_revision) == (many.machine.revision, -1)
        _, paused = _sliced(view.hash())
        assert paused >= 2


@pytest.fixture
def bench(store: Any) -> Bench:
    return Bench(store)


def test_the_hash_of_the_state_sees_every_table(bench: Bench) -> None:
    from kvstore.machine import ConfContext
    from raft.types import ConfChange, ConfChangeKind

    seen = {bench.hash()}

    def changed() -> bool:
        before = len(seen)
        seen.add(bench.hash())
        return len(seen) > before

    def damaged(table: str, key: bytes, value: bytes | None) -> bool:
        """Whether the hash notices one changed record (which is then mended)."""
        txn = bench.store.write()
        before = txn.get(table, key)
        if value is None:
            txn.delete(table, key)
        else:
            txn.put(table, key, value)
        txn.commit()
        txn.close()
        noticed = bench.hash() not in seen
        txn = bench.store.write()
        if before is None:
            txn.delete(table, key)
        else:
            txn.put(table, key, before)
        txn.commit()
        txn.close()
        return noticed

    bench.put(b"a", b"1")
    assert changed()
    bench.apply(LeaseGrantRequest(ID=5, TTL=60))
    bench.put(b"b", b"1", lease=5)
    bench.apply(AlarmRequest(action=1, memberID=3, alarm=1), CommandKind.ALARM)
    context = ConfContext(1, Member(1, peer_urls=("http://a",))).encode()
    bench.apply(ConfChange(ConfChangeKind.ADD_VOTER, 1, context))
    assert changed()
    assert not changed()
    for table in ("revisions", "keys", "leases", "lease_keys", "members", "alarms"):
        txn = bench.store.read()
        found = txn.seek(table, b"")
        txn.close()
        assert found is not None
        assert damaged(table, found[0], None), table
    assert damaged("removed", b"\0" * 8, b"")
    assert damaged("leases", b"\x80" + bytes(7), bytes(16))


def test_a_view_tells_the_pair_of_an_earlier_revision(bench: Bench) -> None:
    bench.put(b"a", b"1")
    bench.put(b"a", b"2")
    bench.delete(b"a")
    bench.compact(3)
    with bench.machine.view() as view:
        assert view.previous(b"a", 2) is None
        kv = view.previous(b"a", 3)
        assert kv is not None
        assert kv.endswith(b"2")
        assert view.previous(b"a", 4) is None
        assert view.previous(b"b", 4) is None


def test_sweeping_waits_for_an_open_batch(bench: Bench) -> None:
    bench.put(b"a")
    bench.put(b"a")
    bench.compact(3)
    assert not bench.machine.swept
    batch = bench.machine.begin([bench.entry(PutRequest(key=b"b"))])
    assert bench.machine.sweep() is False
    batch.step()
    assert bench.machine.sweep() is True
    assert bench.machine.swept
    bench.reopen()
    assert bench.machine.swept
    assert bench.machine.sweep() is True


def test_leases_that_a_damaged_page_hides_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(MemoryStore(Machine.TABLES))
    for number in (1, 2, 3):
        bench.apply(LeaseGrantRequest(ID=number, TTL=60))
    bench.reopen()
    assert sorted(bench.machine.leases) == [1, 2, 3]
    scan = MemoryReadTxn.scan

    def hide(txn: MemoryReadTxn, table: str, *bounds: Any, **how: Any) -> Any:
        records = list(scan(txn, table, *bounds, **how))
        return iter(records[:-1] if table == LEASES else records)

    monkeypatch.setattr(MemoryReadTxn, "scan", hide)
    with pytest.raises(StoreCorrupt, match="counts 3 records and shows 2"):
        bench.reopen()
