"""The state while a batch of entries is being applied: the open transaction and what it adds.

Rules: nothing of a draft is visible before its commit; a request takes one main revision if it
changes at least one key, and none otherwise; its changes are numbered 0, 1, 2, … in order of
execution; a key belongs to at most one lease, the one that its newest put named. Memory does not
grow with the number of keys that a request changes: beyond CHANGES_MAX they are not listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kvstore.machine.config import MachineConfig
from kvstore.machine.jobs import Job
from kvstore.machine.journal import EMPTY, Cause, Extent, Journal
from kvstore.machine.limits import CHANGES_MAX, SLICE_DELETES
from kvstore.machine.membership import Member
from kvstore.machine.mvcc import fetch, newest, stored, walk
from kvstore.machine.ranges import RangeReader
from kvstore.machine.results import DELETE, PUT, Change
from kvstore.machine.tables import (
    KEYS,
    LEASE_KEYS,
    REVISIONS,
    STAMP_BYTES,
    TOMBSTONE_MARK,
    Version,
    floor_of,
    key_of,
    lease_bytes,
    lease_id,
    ordered_key,
    range_bounds,
    revision_key,
    stamp_of,
    version_record,
)
from kvstore.machine.wire import pair, tombstone, tombstone_event
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.storage.store import WriteTxn

__all__ = ("Draft", "Lease", "State")


class Lease(NamedTuple):
    """A lease as replicated: no deadline, that is the leader's own affair."""

    id: int
    ttl_s: int
    """The granted TTL."""
    remaining_s: int = 0
    """What was left at the last checkpoint; 0 when there was none since the last renewal."""


class State(NamedTuple):
    """Everything but keys, as of some applied entry. The mappings are never changed in place."""

    revision: int
    compact_revision: int
    applied_index: int
    applied_term: int
    cluster_version: str
    members: Mapping[int, Member]
    removed: frozenset[int]
    alarms: frozenset[tuple[int, int]]
    """(member id, alarm type)."""
    journal: Extent = EMPTY


class Draft:
    """One batch's working copy. Handlers read and change its fields; the batch commits it."""

    __slots__ = (
        "_committed_leases",
        "_journaled",
        "applied",
        "changes",
        "compact_revision",
        "config",
        "granted",
        "journal",
        "lease_overlay",
        "overflowed",
        "revision",
        "revisions_to_come",
        "revoked",
        "state",
        "sub",
        "term",
        "txn",
        "wanted",
    )

    def __init__(
        self,
        txn: WriteTxn,
        state: State,
        leases: Mapping[int, Lease],
        config: MachineConfig,
    ) -> None:
        self.txn = txn
        self.config = config
        self.term = 0
        """Term of the entry being applied."""
        self.wanted = True
        """Somebody here waits for the response of the entry being applied; if nobody does,
        nothing need be read just to fill it."""
        self.state = state
        """The state that the batch starts from; handlers replace members, alarms and version."""
        self.applied = (state.applied_index, state.applied_term)
        self.revision = state.revision
        self.compact_revision = state.compact_revision
        self.sub = 0
        """Changes of the request being applied, so far."""
        self.revisions_to_come = 0
        """Revisions that the entry being applied is certain to take after the present one."""
        self.changes: list[Change] = []
        """All changes of the batch, or none once it has `overflowed`."""
        self.overflowed = False
        """There were more than CHANGES_MAX changes."""
        self._committed_leases = leases
        self.lease_overlay: dict[int, Lease | None] = {}
        """Leases granted, checkpointed or (None) revoked by this batch."""
        self.granted: dict[int, Lease] = {}
        self.revoked: list[int] = []
        self.journal = Journal(txn, state.journal, config)
        self._journaled = config.journal_prefix

    @property
    def reading_revision(self) -> int:
        """The revision that a read within the present request is at."""
        return self.revision + 1 if self.sub else self.revision

    def reader(self) -> RangeReader:
        """Reads the state with the present request's own changes."""
        return RangeReader(self.txn, self.reading_revision, self.compact_revision)

    def finish_request(self) -> None:
        """Ends a request: its changes, if any, become a revision."""
        if self.sub:
            self.revision += 1
            self.sub = 0

    def finish_entry(self, index: int, term: int) -> None:
        """Ends an entry: from here on it counts as applied."""
        self.finish_request()
        self.revisions_to_come = 0
        self.journal.cause = Cause.CLIENT
        self.applied = (index, term)

    def final_state(self) -> State:
        """The state once the batch is committed."""
        return self.state._replace(
            revision=self.revision,
            compact_revision=self.compact_revision,
            applied_index=self.applied[0],
            applied_term=self.applied[1],
            journal=self.journal.extent,
        )

    # Leases

    def lease(self, number: int) -> Lease | None:
        """The lease of this id as the batch sees it."""
        if number in self.lease_overlay:
            return self.lease_overlay[number]
        return self._committed_leases.get(number)

    # Keys

    def newest(self, key: bytes) -> Version | None:
        """The live version of `key`, the present request's changes included."""
        return newest(self.txn, key, self.revision + 1)

    def stored(self, version: Version) -> bytes:
        """The encoded pair of a live version."""
        return stored(self.txn, version)

    def put(self, key: bytes, value: bytes, lease: int, before: Version | None) -> None:
        """Writes a pair; `before` is what `newest(key)` said. The lease exists (or is 0)."""
        main = self.revision + 1
        sub = self.sub
        if before is None:
            create, version, old_lease = main, 1, 0
        else:
            create, version, old_lease = before.create, before.version + 1, before.lease
        kv = pair(key, value, create=create, mod=main, version=version, lease=lease)
        txn = self.txn
        at = revision_key(main, sub)
        txn.put(REVISIONS, at, kv)
        txn.put(KEYS, ordered_key(key) + stamp_of(at), version_record(create, version, lease))
        if lease != old_lease:
            if old_lease:
                txn.delete(LEASE_KEYS, lease_id(old_lease) + key)
            if lease:
                txn.put(LEASE_KEYS, lease_id(lease) + key, b"")
        self.sub = sub + 1
        if key.startswith(self._journaled):
            self.journal.append(main, sub, PUT, key, value)
        if self._lists(1):
            self.changes.append(Change(main, sub, PUT, key, kv, version == 1, lease))

    def delete(self, key: bytes, lease: int) -> None:
        """Ends the life of a key that is live and attached to `lease` (0: to none)."""
        main = self.revision + 1
        sub = self.sub
        at = revision_key(main, sub)
        txn = self.txn
        if key.startswith(self._journaled):
            self.journal.append(main, sub, DELETE, key, self._last_value(key))
        txn.put(REVISIONS, at + TOMBSTONE_MARK, tombstone(key))
        txn.put(KEYS, ordered_key(key) + stamp_of(at), b"")
        if lease:
            txn.delete(LEASE_KEYS, lease_id(lease) + key)
        self.sub = sub + 1
        if self._lists(1):
            event = tombstone_event(key, main)
            self.changes.append(Change(main, sub, DELETE, key, event, False, 0))

    def delete_many(self, doomed: Sequence[tuple[bytes, bytes]], leases: Sequence[bytes]) -> None:
        """`delete` for many keys at once: (key, ordered key) of each, in key order.

        `leases` are the records of LEASE_KEYS that go with them.
        """
        main = self.revision + 1
        first = self.sub
        stamps = [revision_key(main, sub) for sub in range(first, first + len(doomed))]
        txn = self.txn
        journaled = self._journaled
        for sub, (key, _) in enumerate(doomed, first):
            if key.startswith(journaled):
                self.journal.append(main, sub, DELETE, key, self._last_value(key))
        txn.put_many(
            REVISIONS,
            [
                (at + TOMBSTONE_MARK, tombstone(key))
                for at, (key, _) in zip(stamps, doomed, strict=True)
            ],
        )
        txn.put_many(
            KEYS,
            [
                (ordered + stamp_of(at), b"")
                for at, (_, ordered) in zip(stamps, doomed, strict=True)
            ],
        )
        for attached in leases:
            txn.delete(LEASE_KEYS, attached)
        self.sub = first + len(doomed)
        if self._lists(len(doomed)):
            self.changes += [
                Change(main, sub, DELETE, key, tombstone_event(key, main), False, 0)
                for sub, (key, _) in enumerate(doomed, first)
            ]

    def _last_value(self, key: bytes) -> bytes:
        """The value of a live key that is about to be deleted, for the journal."""
        version = self.newest(key)
        assert version is not None, "a key is deleted that is not there"
        value: bytes = KeyValue.FromString(self.stored(version)).value
        return value

    def _lists(self, count: int) -> bool:
        """Whether `count` more changes are to be listed; gives up the list when it gets long."""
        if not self.overflowed and len(self.changes) + count > CHANGES_MAX:
            self.overflowed = True
            self.changes.clear()
        return not self.overflowed

    def delete_range(self, key: bytes, range_end: bytes, previous: list[bytes] | None) -> Job[int]:
        """Deletes every key of a range; their pairs are added to `previous` if it is given.

        Returns how many there were.
        """
        if not range_end:
            before = self.newest(key)
            if before is None:
                return 0
            if previous is not None:
                previous.append(self.stored(before))
            self.delete(key, before.lease)
            return 1
        start, stop = range_bounds(key, range_end)
        floor = floor_of(self.revision + 1)
        position: bytes | None = start
        deleted = 0
        while position is not None:
            # What is deleted lies behind the walk, so the scan never meets its own tombstones.
            part = walk(
                self.txn,
                position,
                stop,
                floor=floor,
                want=SLICE_DELETES,
                records=8 * SLICE_DELETES,
            )
            found = part.found
            if previous is not None:
                previous += fetch(self.txn, found)
            doomed = [(key_of(record_key), record_key[:-STAMP_BYTES]) for record_key, _ in found]
            attached = [
                lease_bytes(record) + key
                for (_, record), (key, _) in zip(found, doomed, strict=True)
                if lease_bytes(record)
            ]
            self.delete_many(doomed, attached)
            deleted += len(found)
            position = part.resume
            if position is not None:
                yield
        return deleted
