"""The replicated state machine: an ordered store, and what committed entries do to it.

Rules: the state after entry n is a function of entries 1 to n; data, revision and applied index
are committed in one transaction; nothing here reads a clock, a random number or a file.
Left out: Raft, waiting for answers, deadlines of leases, watchers.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from kvstore import faults
from kvstore.machine import membership
from kvstore.machine.apply import ApplyBatch
from kvstore.machine.compaction import retarget, sweep_slice
from kvstore.machine.config import MachineConfig
from kvstore.machine.draft import Draft, Lease
from kvstore.machine.leases import load_leases
from kvstore.machine.membership import Member
from kvstore.machine.meta import (
    load_state,
    load_sweep,
    put_member,
    save_state,
    save_sweep,
)
from kvstore.machine.quota import DEFAULT_QUOTA_BYTES
from kvstore.machine.range_cache import RangeCache
from kvstore.machine.ranges import CountCache
from kvstore.machine.tables import TABLES
from kvstore.machine.view import View
from kvstore.storage.store import Store, TableSpec
from raft.types import ConfState, Entry

__all__ = ("Machine",)


class Machine:
    """The state of one member. All readings are of the last committed batch."""

    TABLES: ClassVar[tuple[TableSpec, ...]] = TABLES
    """What the store must be opened with."""

    def __init__(self, store: Store, config: MachineConfig | None = None) -> None:
        """Reads what the store says about itself. Raises FormatError for an unknown layout."""
        self.config = config or MachineConfig()
        self._store = store
        self._counts = CountCache()
        self._open_batch: Draft | None = None
        txn = store.read()
        try:
            self._state = load_state(txn)
            self._leases = {lease.id: lease for lease in load_leases(txn)}
            self._sweep = retarget(load_sweep(txn), self._state.compact_revision)
        finally:
            txn.close()
        self._cache = RangeCache(self._state.revision)
        self.leases: Mapping[int, Lease] = MappingProxyType(self._leases)
        """Every lease by its id; a live view."""

    # Readings

    @property
    def revision(self) -> int:
        """The store's revision; 1 when nothing was ever written."""
        return self._state.revision

    @property
    def compact_revision(self) -> int:
        """Reads below it are refused; -1 when never compacted."""
        return self._state.compact_revision

    @property
    def applied_index(self) -> int:
        """Index of the last applied entry."""
        return self._state.applied_index

    @property
    def applied_term(self) -> int:
        """Term of the last applied entry."""
        return self._state.applied_term

    @property
    def members(self) -> Mapping[int, Member]:
        """The members by id."""
        return self._state.members

    @property
    def removed_members(self) -> frozenset[int]:
        """Ids that were members once and can never be again."""
        return self._state.removed

    @property
    def alarms(self) -> frozenset[tuple[int, int]]:
        """Alarms that are up, as (member id, AlarmType)."""
        return self._state.alarms

    @property
    def cluster_version(self) -> str:
        """The agreed version, such as "3.6.0"; empty when not decided yet."""
        return self._state.cluster_version

    @property
    def clock_ms(self) -> int:
        """The newest time that a command carried (Unix time); 0 before the first."""
        return self._state.journal.clock_ms

    def conf_state(self) -> ConfState:
        """The membership as Raft wants it."""
        return membership.conf_state(self._state.members.values())

    def over_quota(self, cost_bytes: int) -> bool:
        """Whether a write of this estimated cost would pass the quota (see `quota`)."""
        quota = self.config.quota_bytes or DEFAULT_QUOTA_BYTES
        return quota > 0 and self._store.size_bytes() + cost_bytes >= quota

    def view(self) -> View:
        """Pins the last committed state for reading; close it soon."""
        state = self._state
        txn = self._store.read()
        return View(txn, state.revision, state.compact_revision, self._counts, self._cache)

    # Changes

    def bootstrap(self, members: Iterable[Member], *, index: int, term: int) -> None:
        """Gives an empty store its first members, as the state after entry `index`.

        All members of a new cluster do this alike, and their logs begin behind `index`.
        """
        assert self._state.applied_index == 0, "bootstrap of a store that is in use"
        assert self._open_batch is None, "bootstrap while a batch is open"
        by_id = {member.id: member for member in members}
        after = self._state._replace(members=by_id, applied_index=index, applied_term=term)
        txn = self._store.write()
        try:
            for member in by_id.values():
                put_member(txn, member.id, member)
            save_state(txn, self._state, after)
            txn.commit()
        finally:
            txn.close()
        self._state = after

    def begin(
        self,
        entries: Sequence[Entry],
        waiting: Container[int] | None = None,
        *,
        long: bool = False,
    ) -> ApplyBatch:
        """Opens a batch of the entries that follow the applied one; one batch at a time.

        `waiting` holds the request ids whose responses somebody wants (None: all). A `long`
        batch can be committed in the background.
        """
        assert self._open_batch is None, "the batch before has not ended"
        for index, entry in enumerate(entries, self._state.applied_index + 1):
            assert entry.index == index, f"entry {entry.index} where {index} must follow"
        draft = Draft(self._store.write(long=long), self._state, self._leases, self.config)
        self._open_batch = draft
        return ApplyBatch(draft, entries, waiting, self)

    def seal(self, draft: Draft) -> bool:
        """For the batch: writes the state that the draft leads to; False if it is no other."""
        before, after = self._state, draft.final_state()
        if after.applied_index == before.applied_index:
            return False
        save_state(draft.txn, before, after)
        return True

    def drop(self, draft: Draft) -> None:
        """For the batch: it is given up."""
        if self._open_batch is draft:
            self._open_batch = None
            draft.txn.close()

    def adopt(self, draft: Draft) -> None:
        """For the batch: it is committed, and is the state from here on."""
        assert self._open_batch is draft, "a batch was committed that is not open"
        self.drop(draft)
        after = draft.final_state()
        self._state = after
        self._cache.committed(None if draft.overflowed else draft.changes, after.revision)
        for number, lease in draft.lease_overlay.items():
            if lease is None:
                self._leases.pop(number, None)
            else:
                self._leases[number] = lease
        self._sweep = retarget(self._sweep, after.compact_revision)

    @property
    def swept(self) -> bool:
        """Nothing is left of what the last compaction made unreadable."""
        return self._sweep.done

    def sweep(self, max_revisions: int = 500) -> bool:
        """Removes some of what compaction made unreadable, in a transaction of its own.

        True when nothing is left. While a batch is open nothing is done.
        """
        if self._sweep.done:
            return True
        if self._open_batch is not None:
            return False
        txn = self._store.write()
        try:
            progress, _ = sweep_slice(txn, self._sweep, max_revisions)
            save_sweep(txn, progress)
            faults.point("sweep.before_commit")
            txn.commit()
            faults.point("sweep.after_commit")
        finally:
            txn.close()
        self._sweep = progress
        return progress.done
