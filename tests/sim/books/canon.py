"""The history of the state machine as the first process to apply each entry showed it.

Beside it runs a plain model (tests/unit/machine/model.py, a dict for every revision), fed with
the same entries, so that there is an opinion of what each entry should have done. What a process
did is read back from its store, not taken from what it says it did.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kvstore.errors import EtcdError
from kvstore.machine.alarms import refusal
from kvstore.machine.command import CommandKind, decode, read_batch, read_expiry
from kvstore.machine.quota import txn_cost
from kvstore.machine.results import DELETE, Change, Result
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.pb.rpc_pb2 import (
    NOSPACE,
    AlarmRequest,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    TxnRequest,
)
from kvstore.storage.errors import StorageError
from kvstore.storage.wal_scan import scan_log
from raft.types import Entry, EntryKind
from tests.linear.history import KV, Event, deleted
from tests.sim.books.inside import entries_between, log_of, wal_directory
from tests.unit.machine.model import Model

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("Applied", "Canon", "Expected", "Outcome", "canon_of", "kv_of")

_REQUESTS: dict[int, Any] = {
    CommandKind.PUT: PutRequest,
    CommandKind.DELETE_RANGE: DeleteRangeRequest,
    CommandKind.TXN: TxnRequest,
    CommandKind.COMPACT: CompactionRequest,
    CommandKind.LEASE_GRANT: LeaseGrantRequest,
    CommandKind.LEASE_REVOKE: LeaseRevokeRequest,
}
_FIRST_REVISION = 1
_GENESIS = 1
"""The index behind which every log begins; nothing was applied to get there."""


class Expected(NamedTuple):
    """What the model says an entry does."""

    events: tuple[tuple[int, int, bool, bytes], ...]
    """(revision, sub, whether it is a deletion, encoded pair)."""
    answer: Any
    """The response without header; None where the model has no opinion."""
    error: EtcdError | None
    leases: frozenset[int]
    """The leases that exist after it."""
    revoked: tuple[int, ...]


class Outcome(NamedTuple):
    """What the first process to apply an entry got."""

    entry: Entry
    kind: int
    """CommandKind; 0 for an empty entry and for a configuration change."""
    request_id: int
    before: int
    """The revision before the entry."""
    revision: int
    error: EtcdError | None
    conf_valid: bool
    changes: tuple[Change, ...]
    expected: Expected | None
    """None when an alarm had the entry refused, or the model does not cover its kind."""
    process: str
    shown: bool = True
    """False: made up for after the process had died; its result is the model's."""


class Applied(NamedTuple):
    """One entry as one process applied it, and as the first one did."""

    entry: Entry
    result: Result
    changes: tuple[Change, ...]
    canon: Outcome
    first: bool
    """This process is the first."""


def kv_of(encoded: bytes) -> KV:
    """A stored pair as histories have it."""
    kv = KeyValue.FromString(encoded)
    return KV(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


class Canon:
    """Outcomes by index, events by revision, versions by key."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.outcomes: dict[int, Outcome] = {}
        self.events: dict[int, tuple[Event, ...]] = {}
        """Revision → its events, with the pairs before them."""
        self.timeline: dict[bytes, list[tuple[int, KV | None]]] = {}
        """Key → (revision, the pair from there on; None where it is deleted), ascending."""
        self.model = Model()
        self.last_index = 0
        self.last_revision = _FIRST_REVISION
        self.compacted = -1
        self.alarms: set[tuple[int, int]] = set()
        self._revision: dict[str, int] = {}
        self._latest: tuple[str, int, int, list[Applied]] | None = None

    # ---- from the processes ----------------------------------------------------------------

    def resume(self, p: Process) -> None:
        """A process goes on from the state of its machine: after a start, or a snapshot.

        What it applied in the very moment in which it died, nobody was shown; if it was the only
        one so far, that is made up for from its log and its store.
        """
        self._revision[p.name] = p.machine.revision
        if max(self.last_index, _GENESIS) < p.machine.applied_index:
            self._catch_up(p)

    def _catch_up(self, p: Process) -> None:
        machine = p.machine
        entries = entries_between(log_of(p), self.last_index + 1, machine.applied_index)
        if not entries or (self.outcomes and entries[0].index != self.last_index + 1):
            # Memory keeps less than the disk.
            view = p.disk.durable_view()
            scan = scan_log(view, wal_directory(p), keep_after=self.last_index, settle=False)
            entries = [entry for entry in scan.entries if entry.index <= machine.applied_index]
        if not entries or (self.outcomes and entries[0].index != self.last_index + 1):
            return  # From a snapshot; whoever made it has shown what it holds.
        by_revision = self._read_changes(p, self.last_revision, machine.revision)
        for entry in entries:
            before = self.last_revision
            expected = self._expect(entry)
            after = before + len({event[0] for event in expected.events} if expected else ())
            changes = tuple(
                change
                for revision in range(before + 1, after + 1)
                for change in by_revision.get(revision, ())
            )
            error = expected.error if expected is not None else None
            result = Result(0, after, error=error)
            self._book(p, entry, result, before, changes, expected, shown=False)

    def read(
        self, p: Process, entries: Sequence[Entry], results: Sequence[Result]
    ) -> list[Applied]:
        """What a process has just applied; the work is done once however many ask for it."""
        latest = self._latest
        place = (p.name, p.incarnation, entries[-1].index)
        if latest is not None and latest[:3] == place:
            return latest[3]
        before = self._revision.get(p.name, _FIRST_REVISION)
        try:
            by_revision = self._read_changes(p, before, results[-1].revision)
        except StorageError:
            return []  # A damaged store tells nothing; its process stops as soon as it looks.
        batch = []
        for entry, result in zip(entries, results, strict=True):
            changes = tuple(
                change
                for revision in range(before + 1, result.revision + 1)
                for change in by_revision.get(revision, ())
            )
            first = entry.index not in self.outcomes
            if first:
                self._add(p, entry, result, before, changes)
            batch.append(Applied(entry, result, changes, self.outcomes[entry.index], first))
            before = max(before, result.revision)
        self._revision[p.name] = before
        self._latest = (*place, batch)
        return batch

    @staticmethod
    def _read_changes(p: Process, before: int, last: int) -> dict[int, list[Change]]:
        by_revision: dict[int, list[Change]] = {}
        if last > before:
            with p.machine.view() as view:
                for change in view.changes(before + 1, last + 1):
                    by_revision.setdefault(change.revision, []).append(change)
        return by_revision

    # ---- the history -----------------------------------------------------------------------

    def _expect(self, entry: Entry) -> Expected | None:
        """What the model says of an entry; the model has then applied it."""
        command = decode(entry.data) if entry.kind == EntryKind.NORMAL else None
        if command is None or (self.alarms and self._refused(command.kind, command.payload)):
            return None
        return self._predict(entry, command.kind, command.payload)

    def _refused(self, kind: int, payload: bytes) -> bool:
        """Whether an alarm that is up has a request refused."""
        if refusal(frozenset(self.alarms), kind) is not None:
            return True
        full = any(alarm == NOSPACE for _, alarm in self.alarms)
        return full and kind == CommandKind.TXN and txn_cost(TxnRequest.FromString(payload)) > 0

    def _add(
        self, p: Process, entry: Entry, result: Result, before: int, changes: tuple[Change, ...]
    ) -> None:
        self._book(p, entry, result, before, changes, self._expect(entry), shown=True)

    def _book(
        self,
        p: Process,
        entry: Entry,
        result: Result,
        before: int,
        changes: tuple[Change, ...],
        expected: Expected | None,
        *,
        shown: bool,
    ) -> None:
        kind, request_id = 0, 0
        command = decode(entry.data) if entry.kind == EntryKind.NORMAL else None
        if command is not None:
            kind, request_id = command.kind, command.request_id
            if kind == CommandKind.ALARM and result.error is None:
                self._alarm(AlarmRequest.FromString(command.payload))
            elif kind == CommandKind.COMPACT and result.error is None:
                self.compacted = CompactionRequest.FromString(command.payload).revision
        self.outcomes[entry.index] = Outcome(
            entry,
            kind,
            request_id,
            before,
            result.revision,
            result.error,
            result.conf_valid,
            changes,
            expected,
            p.name,
            shown,
        )
        self.last_index = max(self.last_index, entry.index)
        for change in changes:
            self._take(change)
        self.last_revision = max(self.last_revision, result.revision)

    def _alarm(self, request: AlarmRequest) -> None:
        alarm = (request.memberID, int(request.alarm))
        if request.action == AlarmRequest.ACTIVATE:
            self.alarms.add(alarm)
        elif request.action == AlarmRequest.DEACTIVATE:
            self.alarms.discard(alarm)

    def _take(self, change: Change) -> None:
        timeline = self.timeline.setdefault(change.key, [])
        prev = timeline[-1][1] if timeline else None
        if change.kind == DELETE:
            event = Event("delete", deleted(change.key, change.revision), prev)
            now = None
        else:
            now = kv_of(change.kv)
            event = Event("put", now, prev)
        self.events[change.revision] = (*self.events.get(change.revision, ()), event)
        timeline.append((change.revision, now))

    def _predict(self, entry: Entry, kind: int, payload: bytes) -> Expected | None:
        model = self.model
        before, first = frozenset(model.leases), len(model.events)
        answer: Any = None
        if kind == CommandKind.LEASE_EXPIRE:
            term, numbers, _ = read_expiry(payload)
            if term == entry.term:
                for number in numbers:
                    if number in model.leases:
                        model.apply(LeaseRevokeRequest(ID=number))
        elif kind == CommandKind.BATCH:
            _, if_term, items = read_batch(payload)
            if if_term in (0, entry.term):
                full = any(alarm == NOSPACE for _, alarm in self.alarms)
                model.apply_batch(items, full=full)
        elif kind in _REQUESTS:
            request = _REQUESTS[kind].FromString(payload)
            if kind == CommandKind.LEASE_GRANT and not 0 < request.TTL <= 9_000_000_000:
                return None  # Bounds of the request, checked where requests are tested.
            answer = model.apply(request)
        else:
            return None
        error = answer if isinstance(answer, EtcdError) else None
        leases = frozenset(model.leases)
        return Expected(
            tuple(model.events[first:]),
            None if error else answer,
            error,
            leases,
            tuple(sorted(before - leases)),
        )

    # ---- readings --------------------------------------------------------------------------

    def state_of_key(self, key: bytes, revision: int) -> KV | None:
        """The pair of a key at a revision."""
        timeline = self.timeline.get(key)
        if not timeline:
            return None
        # A later change of the same revision counts: only whole revisions are visible.
        at = bisect_right(timeline, revision, key=_revision_of)
        return timeline[at - 1][1] if at else None

    def state_at(self, revision: int) -> dict[bytes, KV]:
        """All pairs at a revision, in key order."""
        found = ((key, self.state_of_key(key, revision)) for key in sorted(self.timeline))
        return {key: kv for key, kv in found if kv is not None}

    def leases_at(self, index: int) -> frozenset[int] | None:
        """The leases that exist after an entry; None if the model has no opinion that far."""
        while index > 0 and index in self.outcomes:
            expected = self.outcomes[index].expected
            if expected is not None:
                return expected.leases
            index -= 1
        return None if index > 1 else frozenset()

    def revision_at(self, index: int) -> int | None:
        """The revision after an entry."""
        outcome = self.outcomes.get(index)
        return None if outcome is None else outcome.revision

    def witness(self) -> list[tuple[int, tuple[Event, ...]]]:
        """The event log, as `tests.linear` wants it."""
        return sorted(self.events.items())


def _revision_of(item: tuple[int, KV | None]) -> int:
    return item[0]


_latest: Canon | None = None


def canon_of(world: World) -> Canon:
    """The one history of a world; its invariants are made together and share it."""
    global _latest
    if _latest is None or _latest.world is not world:
        _latest = Canon(world)
    return _latest
