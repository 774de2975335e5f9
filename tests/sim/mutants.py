"""Known bugs, put in on purpose: the simulator is worth what it catches of these.

Mistakes that real implementations have made (reference: etcd, Redis-Raft, hashicorp/raft, openraft
and others; from M21 on registries such as Eureka and Consul). Each replaces a few functions of the
product for the time of a seed; nothing of this is in the product. `MUTANTS` has them by number;
`planted` puts one in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from kvstore.gateways.dns.responder import Responder
from kvstore.machine import compaction, handlers, machine
from kvstore.machine.command import CommandKind, read_expiry
from kvstore.machine.draft import Draft
from kvstore.machine.leases import expire
from kvstore.machine.meta import save_state
from kvstore.machine.tables import (
    AFTER_ALL_STAMPS,
    KEYS,
    LEASE_KEYS,
    REVISIONS,
    TOMBSTONE_MARK,
    Version,
    lease_id,
    ordered_key,
    stamp_of,
)
from kvstore.node.member import MemberCore
from kvstore.registry.catalog import Entry as InstanceEntry
from kvstore.registry.feeds import Feed
from kvstore.registry.guard import Guard
from kvstore.registry.keeper import Keeper
from kvstore.storage import wal, wal_scan
from kvstore.storage.errors import DiskFailed
from kvstore.storage.wal import WalBatch
from kvstore.storage.wal_writer import SegmentWriter
from kvstore.watch import encoding
from kvstore.watch.hub import WatchHub
from kvstore.watch.stream import WatchStream
from raft import quorum, replication
from raft.follower import acknowledge
from raft.membership import switch_conf
from raft.messages import InstallSnapshot
from raft.state import State
from raft.types import Entry
from tests.golden import test_raft_mutants as traces

__all__ = ("MUTANTS", "Mutant", "planted")

Patches = list[AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake."""

    number: str
    title: str
    build: Callable[[], Patches]
    profile: str
    """The kind of seed that is to catch it."""


MUTANTS: dict[str, Mutant] = {}


def _mutant(
    number: str, title: str, profile: str = "long"
) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    def register(build: Callable[[], Patches]) -> Callable[[], Patches]:
        MUTANTS[number] = Mutant(number, title, build, profile)
        return build

    return register


@contextmanager
def planted(number: str) -> Iterator[None]:
    """The product with this mistake in it."""
    with ExitStack() as stack:
        for context in MUTANTS[number].build():
            stack.enter_context(context)
        yield


for _number, _title, _build in (
    ("M1", "commits entries of an old term by counting", traces.commits_old_entries_by_counting),
    ("M2", "reads before the term's first commit", traces.serves_reads_before_its_first_commit),
    (
        "M3",
        "changes members before the term's first commit",
        traces.accepts_a_change_before_its_first_commit,
    ),
    ("M4", "two membership changes at once", traces.accepts_two_changes),
    ("M5", "campaigns with a change unapplied", traces.campaigns_with_an_unapplied_change),
    ("M6", "a confirmation counts for any read", traces.counts_confirmations_of_any_round),
    ("M7", "sends its vote before the sync", traces.sends_promises_at_once),
    ("M12", "a learner refuses to vote", traces.learner_refuses_votes),
    ("M20", "append replies of any term count", traces.counts_acknowledgements_of_any_term),
):
    _mutant(_number, _title)(_build)


@_mutant("M8", "the term is written after the entries", "short")
def _term_after_entries() -> Patches:
    def encode_log(self: MemberCore, entries: Sequence[Entry]) -> WalBatch:
        late: dict[str, Any] = self.__dict__.setdefault("late", {})
        hard_state = late.pop("hard_state", None)
        if self._unwritten:
            late["hard_state"] = self.hard_state
        self._unwritten = False
        return self._log_writer(hard_state, entries)

    return [patch.object(MemberCore, "_encode_log", encode_log)]


@_mutant("M9", "cuts off a damaged log")
def _truncates_damage() -> Patches:
    scan = wal_scan.scan_log

    def scan_log(*args: Any, applied: int = 0, **more: Any) -> Any:
        return scan(*args, **more)

    def torn_tail(self: Any) -> wal_scan.TornTail | None:
        used_end = self.used_end()
        if used_end == self.position:
            return None
        return wal_scan.TornTail(self.path, self.position, used_end - self.position, "anything")

    return [
        patch.object(wal, "scan_log", scan_log),
        patch.object(wal_scan._SegmentReader, "torn_tail", torn_tail),
    ]


@_mutant("M10", "tries a failed fsync again")
def _retries_fsync() -> Patches:
    sync = SegmentWriter.sync

    def again(self: SegmentWriter) -> None:
        try:
            sync(self)
        except DiskFailed:
            sync(self)

    return [patch.object(SegmentWriter, "sync", again)]


@_mutant("M11", "the applied index is written after the data", "short")
def _applied_index_lags() -> Patches:
    def seal(self: machine.Machine, draft: Draft) -> bool:
        before, after = self._state, draft.final_state()
        if after.applied_index == before.applied_index:
            return False
        stored = after
        if before.applied_index:
            stored = after._replace(
                applied_index=before.applied_index, applied_term=before.applied_term
            )
        save_state(draft.txn, before, stored)
        return True

    return [patch.object(machine.Machine, "seal", seal)]


@_mutant("M13", "takes a snapshot that is older than its log")
def _takes_older_snapshots() -> Patches:
    def handle(state: State, message: InstallSnapshot) -> None:
        state.follow(message.sender)
        meta = message.meta
        if state.pending_snapshot is not None or state.log.applied < state.log.handed:
            state.held_snapshot = message
            return
        state.log.restore(meta.index, meta.term)
        state.pending_snapshot = meta
        switch_conf(state, meta.conf)
        acknowledge(state, message.sender, meta.index)

    return traces.handler(InstallSnapshot, handle)


@_mutant("M14", "watches begin anew after a snapshot was installed")
def _watches_begin_anew() -> Patches:
    restored = WatchHub.restored

    def again(self: WatchHub) -> None:
        live = [each for interest in self._live.interests() for each in interest.watchers]
        restored(self)
        for watcher in live:
            watcher.next_revision = max(watcher.floor, 1)

    return [patch.object(WatchHub, "restored", again)]


@_mutant("M15", "a progress mark overtakes events")
def _marks_overtake() -> Patches:
    def progress(self: WatchStream) -> None:
        if self._watchers:
            self.push_answer(encoding.progress(self._hub.header(self._hub.current)))

    return [patch.object(WatchStream, "_progress", progress)]


@_mutant("M16", "compaction drops events at its own revision")
def _compaction_takes_too_much() -> Patches:
    def settle(txn: Any, record_key: bytes, key: bytes, target: int) -> None:
        ordered = ordered_key(key)
        stamp = stamp_of(record_key[:16])
        for version_key, record in list(
            txn.scan(KEYS, ordered + stamp + b"\x00", ordered + AFTER_ALL_STAMPS)
        ):
            version = Version.read(version_key, record)
            if version.main <= target:
                txn.delete(REVISIONS, version.key)
                txn.delete(KEYS, version_key)
        is_deletion = record_key.endswith(TOMBSTONE_MARK) and len(record_key) > 16
        if is_deletion and int.from_bytes(record_key[:8]) <= target:
            txn.delete(REVISIONS, record_key)
            txn.delete(KEYS, ordered + stamp)

    return [patch.object(compaction, "_settle", settle)]


@_mutant("M17", "an expiry of an old leader is honoured")
def _honours_old_expiries() -> Patches:
    def lease_expire(draft: Draft, payload: bytes) -> Any:
        yield from expire(draft, read_expiry(payload)[1])
        return b""

    return [patch.dict(handlers.HANDLERS, {CommandKind.LEASE_EXPIRE: lease_expire})]


@_mutant("M18", "a key is deleted with a lease that it has left")
def _keys_stay_on_old_leases() -> Patches:
    put = Draft.put

    def and_stay(self: Draft, key: bytes, value: bytes, lease: int, before: Version | None) -> None:
        put(self, key, value, lease, before)
        if before is not None and before.lease and before.lease != lease:
            self.txn.put(LEASE_KEYS, lease_id(before.lease) + key, b"")

    return [patch.object(Draft, "put", and_stay)]


@_mutant("M19", "half of the voters are a quorum")
def _half_is_enough() -> Patches:
    def majority(voters: int) -> int:
        return max(voters // 2, 1)

    def committed_index(matches: Any) -> int:
        ascending = sorted(matches)
        return ascending[len(ascending) - majority(len(ascending))] if ascending else 0

    return [
        patch.object(quorum, "majority", majority),
        patch.object(replication, "committed_index", committed_index),
    ]


@_mutant("M21", "the keeper tells the time by the wall clock")
def _keeps_by_the_wall_clock() -> Patches:
    tick = Keeper._tick

    def by_the_wall(self: Any) -> None:
        wall_s = self._node.wall_ms() / 1000
        self.__dict__.setdefault("_apart_s", self._node.clock() - wall_s)
        with patch.object(self._node, "clock", lambda: wall_s + self._apart_s):
            tick(self)

    return [patch.object(Keeper, "_tick", by_the_wall)]


@_mutant("M22", "a new leader does not give instances their time again")
def _new_leaders_do_not_renew() -> Patches:
    track = Keeper._track

    def long_silent(self: Any, entry: InstanceEntry) -> None:
        lived_s = entry.instance.ttl_s if self._preparing and entry.instance is not None else 0
        now = self._node.clock() - lived_s
        with patch.object(self._node, "clock", lambda: now):
            track(self, entry)

    return [patch.object(Keeper, "_track", long_silent)]


@_mutant("M23", "a feed of the registry drops a change now and then")
def _feeds_drop_changes() -> Patches:
    told, heard = Feed._told, [0]

    def forgetful(self: Any, deltas: Any) -> None:
        if deltas is not None:
            heard[0] += 1
            if heard[0] % 20 == 0:
                return
        told(self, deltas)

    return [patch.object(Feed, "_told", forgetful)]


@_mutant("M24", "a guard says that it holds, and does not")
def _guards_do_not_hold() -> Patches:
    return [
        patch.object(Guard, "__contains__", lambda self, instance: False),
        patch("kvstore.registry.liveness.Liveness.hold", lambda self, leases: None),
    ]


@_mutant("M25", "DNS answers from its cache whatever has changed")
def _dns_never_forgets() -> Patches:
    return [patch.object(Responder, "_revision", lambda self, basis: 0)]
