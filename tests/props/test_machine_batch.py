"""Random batches between other traffic: the machine against a plain model of both."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.machine import (
    DELETE,
    PUT,
    BatchAction,
    BatchFailure,
    BatchItem,
    Cause,
    CommandKind,
    Machine,
    MachineConfig,
    Result,
    batch_payload,
    expiry_payload,
    read_outcomes,
)
from kvstore.pb.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
)
from kvstore.storage.memory_store import MemoryStore
from tests.unit.machine.kit import Bench, tiny_slices

KEYS = (b"in/a", b"in/a\0", b"in/b", b"out/a", b"in/")
CONFIG = MachineConfig(journal_prefix=b"in/", journal_max_records=12, journal_max_age_ms=500)


@dataclass
class Plain:
    """Keys, leases and the unbounded journal, as plainly as possible."""

    keys: dict[bytes, tuple[int, bytes, int]] = field(default_factory=dict)
    """(mod revision, value, lease)."""
    leases: dict[int, int] = field(default_factory=dict)
    journal: list[tuple[Any, ...]] = field(default_factory=list)
    revision: int = 1
    clock_ms: int = 0
    sub: int = 0

    def end_entry(self) -> None:
        if self.sub:
            self.revision += 1
            self.sub = 0

    def _note(self, op: int, key: bytes, value: bytes, cause: Cause, reason: str) -> None:
        if key.startswith(b"in/"):
            place = (self.revision + 1, self.sub)
            self.journal.append((*place, self.clock_ms, op, key, value, cause, reason))
        self.sub += 1

    def put(
        self, key: bytes, value: bytes, lease: int, cause: Cause = Cause.CLIENT, reason: str = ""
    ) -> None:
        self.keys[key] = (self.revision + 1, value, lease)
        self._note(PUT, key, value, cause, reason)

    def remove(self, key: bytes, cause: Cause = Cause.CLIENT, reason: str = "") -> None:
        _, value, _ = self.keys.pop(key)
        self._note(DELETE, key, value, cause, reason)

    def on(self, lease: int) -> list[bytes]:
        return sorted(key for key, (_, _, owner) in self.keys.items() if owner == lease)

    def revoke(self, lease: int, cause: Cause) -> None:
        del self.leases[lease]
        for key in self.on(lease):
            self.remove(key, cause)

    def batch(self, term: int, time_ms: int, if_term: int, items: list[BatchItem]) -> list[Any]:
        if if_term not in (0, term):
            return [(BatchFailure.VOID, self._mod(item.key)) for item in items]
        self.clock_ms = max(self.clock_ms, time_ms)
        outcomes = []
        for item in items:
            failure = self._judge(item)
            if failure:
                outcomes.append((failure, self._mod(item.key)))
            else:
                self._change(item)
                outcomes.append((BatchFailure.NONE, self.revision + 1))
        self.end_entry()
        return outcomes

    def _mod(self, key: bytes) -> int:
        return self.keys[key][0] if key in self.keys else 0

    def _judge(self, item: BatchItem) -> BatchFailure:
        if item.expected_mod != -1 and item.expected_mod != self._mod(item.key):
            return BatchFailure.CONFLICT
        if item.action == BatchAction.DELETE and item.key not in self.keys:
            return BatchFailure.CONFLICT
        if item.action == BatchAction.PUT_LEASE and item.lease not in self.leases:
            return BatchFailure.LEASE_NOT_FOUND
        if item.action == BatchAction.PUT_NEW_LEASE and item.lease in self.leases:
            return BatchFailure.LEASE_EXISTS
        return BatchFailure.NONE

    def _change(self, item: BatchItem) -> None:
        old = self.keys[item.key][2] if item.key in self.keys else 0
        if item.action == BatchAction.DELETE:
            self.remove(item.key, Cause.REGISTRY, item.reason)
        else:
            lease = old if item.action == BatchAction.PUT_KEEP else item.lease
            if item.action == BatchAction.PUT_NEW_LEASE:
                self.leases[lease] = max(item.ttl_s, 2)
            self.put(item.key, item.value, lease, Cause.REGISTRY, item.reason)
        ends = item.action in (BatchAction.DELETE, BatchAction.PUT_NEW_LEASE)
        if ends and old and not self.on(old):
            del self.leases[old]


class History:
    """A random history, given to machines and the model alike."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.plain = Plain()
        self.time_ms = 0

    def step(self) -> tuple[Any, CommandKind | None, Any]:
        """The next request with its kind, and the outcomes that a batch should have."""
        pick, plain = self.pick, self.plain
        lease = pick.choice((1, 2, 3))
        roll = pick.random()
        if roll < 0.5:
            self.time_ms += pick.choice((-50, 0, 20, 200))
            time_ms, if_term = max(self.time_ms, 0), pick.choice((0, 0, 0, 1, 2))
            items = [self._item() for _ in range(pick.randint(0, 5))]
            outcomes = plain.batch(1, time_ms, if_term, items)
            return batch_payload(time_ms, if_term, items), CommandKind.BATCH, outcomes
        key = pick.choice(KEYS)
        request: Any
        if roll < 0.65:
            on = lease if lease in plain.leases and pick.random() < 0.5 else 0
            plain.put(key, b"plain", on)
            request = PutRequest(key=key, value=b"plain", lease=on)
        elif roll < 0.75:
            for doomed in sorted(each for each in plain.keys if key <= each < b"in/b\0"):
                plain.remove(doomed)
            request = DeleteRangeRequest(key=key, range_end=b"in/b\0")
        elif roll < 0.85 and lease not in plain.leases:
            plain.leases[lease] = 60
            request = LeaseGrantRequest(ID=lease, TTL=60)
        elif roll < 0.9 and lease in plain.leases:
            plain.revoke(lease, Cause.LEASE_REVOKED)
            request = LeaseRevokeRequest(ID=lease)
        elif roll < 0.95:
            self.time_ms += 30
            plain.clock_ms = max(plain.clock_ms, self.time_ms)
            for number in (lease, 3):
                if number in plain.leases:
                    plain.revoke(number, Cause.LEASE_EXPIRED)
                    plain.end_entry()
            payload = expiry_payload(1, [lease, 3], max(self.time_ms, 0))
            return payload, CommandKind.LEASE_EXPIRE, None
        else:
            request = CompactionRequest(revision=plain.revision - pick.randint(0, 3))
        plain.end_entry()
        return request, None, None

    def _item(self) -> BatchItem:
        pick, key = self.pick, self.pick.choice(KEYS)
        actual = self.plain.keys[key][0] if key in self.plain.keys else 0
        return BatchItem(
            key,
            pick.choice((-1, -1, actual, actual, 0, 2)),
            pick.choice(list(BatchAction)),
            pick.choice((b"", b"1", b"\0\xff")),
            pick.choice((1, 2, 3)),
            pick.choice((1, 60)),
            pick.choice(("", "because")),
        )


def _compare(bench: Bench, plain: Plain) -> None:
    machine = bench.machine
    assert (machine.revision, machine.clock_ms) == (plain.revision, plain.clock_ms)
    assert {number: lease.ttl_s for number, lease in machine.leases.items()} == plain.leases
    found = bench.range(b"\0", b"\0").kvs
    assert {kv.key: (kv.mod_revision, kv.value, kv.lease) for kv in found} == plain.keys
    with machine.view() as view:
        records = [tuple(record) for record in view.journal_since(0, 1_000)]
    # What is kept is an end of what happened, within the bounds, and not shorter than need be.
    assert records == plain.journal[len(plain.journal) - len(records) :]
    assert len(records) <= CONFIG.journal_max_records
    oldest = plain.clock_ms - CONFIG.journal_max_age_ms
    assert all(record[2] >= oldest for record in records[:1])
    if len(records) < len(plain.journal):
        cut = plain.journal[-len(records) - 1] if records else plain.journal[-1]
        assert len(records) == CONFIG.journal_max_records or cut[2] < oldest


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 50), st.booleans())
def test_batches_and_the_journal_are_as_the_model_says(seed: int, length: int, tiny: bool) -> None:
    history, bench = History(seed), Bench(MemoryStore(Machine.TABLES), CONFIG)
    with tiny_slices() if tiny else nullcontext():
        for _ in range(length):
            request, kind, outcomes = history.step()
            result = bench.apply(request, kind)
            assert result.revision == history.plain.revision
            if kind is CommandKind.BATCH:
                assert read_outcomes(result.body) == outcomes
        _compare(bench, history.plain)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 50))
def test_cutting_up_the_work_changes_nothing(seed: int, length: int) -> None:
    history, pick = History(seed), random.Random(seed)
    plain, cut = (Bench(MemoryStore(Machine.TABLES), CONFIG) for _ in range(2))
    steps = [history.step()[:2] for _ in range(length)]
    expected: list[Result] = [plain.apply(request, kind) for request, kind in steps]
    actual: list[Result] = []
    while len(actual) < length:
        part = steps[len(actual) : len(actual) + pick.randint(1, length)]
        with tiny_slices() if pick.random() < 0.5 else nullcontext():
            entries = [cut.entry(request, 1, kind) for request, kind in part]
            batch = cut.machine.begin(
                [entry._replace(index=entry.index + n) for n, entry in enumerate(entries)]
            )
            while not batch.step(pick.choice((1, 50))):
                pass
            actual += batch.results
        cut.machine.sweep(pick.randint(1, 4))
        if pick.random() < 0.5:
            cut.reopen()
    assert actual == expected
    assert cut.hash() == plain.hash()
    assert cut.hash_kv() == plain.hash_kv()
    _compare(cut, history.plain)
