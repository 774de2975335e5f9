"""The invariants of disk and state machine: what each must accept, and what it must object to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kvstore import errors
from kvstore.machine.command import CommandKind, expiry_payload
from kvstore.machine.tables import LEASES, META, REVISIONS, lease_id, revision_key
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.pb.rpc_pb2 import (
    CORRUPT,
    AlarmRequest,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.storage.errors import DiskFailed
from kvstore.storage.wal import Wal, WalIdentity
from raft.messages import Append, AppendReply, Heartbeat, RequestVote, VoteReply
from raft.types import HardState
from tests.sim.books.canon import canon_of
from tests.sim.books.durable import DurableLog, durable_logs, image_of
from tests.sim.disk import CrashPolicy, VirtualDisk
from tests.sim.invariants.i17_promises_are_durable import PromisesAreDurable
from tests.sim.invariants.i21_one_revision_per_write import OneRevisionPerWrite
from tests.sim.invariants.i22_revisions_only_grow import RevisionsOnlyGrow
from tests.sim.invariants.i23_versions_count_puts import VersionsCountPuts
from tests.sim.invariants.i24_past_stays import PastStays
from tests.sim.invariants.i25_nothing_after_a_failed_write import NothingAfterAFailedWrite
from tests.sim.invariants.i26_state_is_its_entries import StateIsItsEntries
from tests.sim.invariants.i27_damage_is_never_cut_away import DamageIsNeverCutAway
from tests.sim.invariants.i28_same_on_all import SameOnAll
from tests.sim.invariants.i29_differences_raise_the_alarm import DifferencesRaiseTheAlarm
from tests.sim.invariants.i30_all_or_nothing import AllOrNothing
from tests.sim.invariants.i38_leases_live_out_their_time import LeasesLiveOutTheirTime
from tests.sim.invariants.i39_expiry_of_one_term import ExpiryOfOneTerm
from tests.sim.invariants.i40_revocation_is_exact import RevocationIsExact
from tests.sim.observer import Invariant
from tests.sim.prng import Prng
from tests.sim.stubs import StubProcess, StubWorld, apply, command, entry, objection
from tests.unit.storage.wal_kit import DIRECTORY

S = 1_000_000_000


@pytest.fixture
def world() -> StubWorld:
    return StubWorld()


def make(kind: type[Invariant], world: StubWorld) -> Any:
    return kind(world)  # type: ignore[arg-type]


def put(key: bytes, value: bytes = b"", lease: int = 0) -> bytes:
    return command(CommandKind.PUT, PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes) -> bytes:
    return command(CommandKind.DELETE_RANGE, DeleteRangeRequest(key=key))


def grant(number: int, ttl_s: int = 5) -> bytes:
    return command(CommandKind.LEASE_GRANT, LeaseGrantRequest(ID=number, TTL=ttl_s))


def write_to_store(p: StubProcess, table: str, key: bytes, record: bytes | None) -> None:
    """Tampers with a store, behind its machine's back."""
    txn = p.machine._store.write()
    if record is None:
        txn.delete(table, key)
    else:
        txn.put(table, key, record)
    txn.commit()
    txn.close()


def replace_pair(p: StubProcess, key: bytes, revision: int, value: bytes) -> None:
    """Another value for a key that was created at this revision."""
    kv = KeyValue(key=key, value=value, create_revision=revision, mod_revision=revision, version=1)
    write_to_store(p, REVISIONS, revision_key(revision, 0), kv.SerializeToString())


# ---- the disk


class Logged:
    """A process with a log on a virtual disk."""

    def __init__(self, world: StubWorld) -> None:
        self.disk = VirtualDisk(Prng(1))
        self.p = StubProcess(world)
        self.p.disk = self.disk  # type: ignore[attr-defined]
        identity = WalIdentity(0xC1, 1)
        self.wal = Wal.create(
            self.disk.session(), DIRECTORY, identity, base=(1, 1), hard_state=HardState(1, 0, 1)
        )
        self.p.wal = self.wal  # type: ignore[assignment]

    def write(self, hard_state: HardState | None, *indexes: int, sync: bool = True) -> None:
        term = hard_state.term if hard_state else self.p.raft.term
        new = [entry(index, term) for index in indexes]
        self.p.raft.term = term
        self.p.raft.append(*new)
        self.wal.write(self.wal.encode(hard_state, new), sync)


def test_i17_promises_are_durable(world: StubWorld) -> None:
    logged = Logged(world)
    invariant, p = make(PromisesAreDurable, world), logged.p
    invariant.started(p)
    logged.write(HardState(2, 3, 1), 2, 3)
    invariant.sent(p, VoteReply(1, 3, 2, True))
    invariant.sent(p, AppendReply(1, 3, 2, 3, False, 0, 0))
    logged.write(HardState(3, 1, 1), 4, sync=False)
    for message in (
        VoteReply(1, 2, 3, True),
        RequestVote(1, 2, 3, 3, 2, False),
        Append(1, 2, 3, 3, 2, 1, ()),
        Heartbeat(1, 2, 3, 1, 0),
        AppendReply(1, 2, 2, 4, False, 0, 0),
    ):
        with objection("I17"):
            invariant.sent(p, message)
    logged.write(None)
    invariant.sent(p, RequestVote(1, 2, 3, 4, 3, False))
    with objection("I17"):
        invariant.sent(p, VoteReply(1, 2, 3, True))  # The vote on disk is for another.


def test_i17_what_is_on_disk_is_what_is_promised(world: StubWorld) -> None:
    logged = Logged(world)
    invariant, p = make(PromisesAreDurable, world), logged.p
    invariant.started(p)
    logged.write(HardState(2, 3, 1), 2, 3)
    p.raft.append(entry(3, 1))
    with objection("I17"):
        invariant.sent(p, AppendReply(1, 3, 2, 3, False, 0, 0))
    with objection("I17"):
        invariant.applied(p, [entry(4, 2)], [])


def test_i17_the_books_agree_with_the_disk(world: StubWorld) -> None:
    logged = Logged(world)
    books = durable_logs(world)  # type: ignore[arg-type]
    books.begin(logged.p)  # type: ignore[arg-type]
    logged.write(HardState(2, 3, 1), 2, 3, 4)
    logged.write(HardState(3, 1, 1), 3)
    log, image = books.of(logged.p), image_of(logged.p)  # type: ignore[arg-type]
    assert log is not None
    for each in (log, image):
        assert (each.hard_state, each.base, each.terms) == (HardState(3, 1, 1), (1, 1), [2, 3])
    logged.wal.reset(9, 3, HardState(3, 1, 9))
    assert (log.base, log.last) == ((9, 3), 9)


def test_i17_reads_the_whole_image_now_and_then(world: StubWorld) -> None:
    logged = Logged(world)
    invariant, p = make(PromisesAreDurable, world), logged.p
    books = durable_logs(world)  # type: ignore[arg-type]
    books.pretend(p, DurableLog(HardState(2, 3, 1), (1, 1), [2]))  # type: ignore[arg-type]
    with objection("I17"):
        for _ in range(200):
            invariant.sent(p, VoteReply(1, 3, 2, True))


def test_i25_nothing_after_a_failed_write(world: StubWorld) -> None:
    logged = Logged(world)
    invariant, p = make(NothingAfterAFailedWrite, world), logged.p
    invariant.started(p)
    logged.write(HardState(2, 3, 1), 2)
    invariant.sent(p, VoteReply(1, 3, 2, True))
    invariant.stepped(p)
    logged.disk.arm("sync")
    with pytest.raises(DiskFailed):
        logged.write(HardState(3, 3, 1), 3)
    invariant.stepped(p)
    invariant.sent(p, Heartbeat(1, 3, 2, 1, 0))  # The loop does not know yet.
    p.running.loop._running = False
    with objection("I25"):
        invariant.sent(p, Heartbeat(1, 3, 2, 1, 0))
    p.running.loop._running = True
    for _ in range(21):
        world.now_ns += S // 10
        invariant.stepped(p)
    with objection("I25"):
        invariant.sent(p, Heartbeat(1, 3, 2, 1, 0))
    logged.wal._writer.sync()  # As if the log did not refuse itself.
    with objection("I25"):
        invariant.stopped(p, "killed")


def test_i27_damage_is_never_cut_away(world: StubWorld) -> None:
    logged = Logged(world)
    invariant, p = make(DamageIsNeverCutAway, world), logged.p
    books = durable_logs(world)  # type: ignore[arg-type]
    books.begin(p)  # type: ignore[arg-type]
    logged.write(HardState(2, 3, 1), 2, 3, 4)
    books.end(p)  # type: ignore[arg-type]
    p.restarted()
    invariant.started(p)
    whole = p.start.entries
    p.start.entries = [entry(2, 2), entry(3, 5)]  # A later leader's, not waited for.
    invariant.started(p)
    for entries in (whole[:2], [entry(2, 1), *whole[1:]]):
        p.start.entries = entries
        with objection("I27"):
            invariant.started(p)
    p.start.entries = whole
    p.start.hard_state = HardState(1, 0, 1)
    with objection("I27"):
        invariant.started(p)


def test_i27_power_losses_are_survived(world: StubWorld) -> None:
    logged = Logged(world)
    invariant, p = make(DamageIsNeverCutAway, world), logged.p
    books = durable_logs(world)  # type: ignore[arg-type]
    books.begin(p)  # type: ignore[arg-type]
    logged.write(HardState(2, 3, 1), 2, 3)
    logged.write(None, 4, sync=False)
    books.end(p)  # type: ignore[arg-type]
    logged.disk.power_loss(CrashPolicy.DROP_ALL)
    _, recovered = Wal.open(logged.disk.session(), DIRECTORY, keep_after=1)
    p.start = SimpleNamespace(
        hard_state=recovered.hard_state, base=recovered.base, entries=recovered.entries
    )
    invariant.started(p)


# ---- revisions and versions


def test_i21_one_revision_per_write(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(OneRevisionPerWrite, world)
    for p in (one, two):
        invariant.started(p)
    txn = TxnRequest(success=[RequestOp(request_put=PutRequest(key=key)) for key in (b"a", b"b")])
    datas = [put(b"a"), delete(b"x"), command(CommandKind.TXN, txn), delete(b"a"), grant(7)]
    apply(one, *datas, watchers=[invariant])
    entries, results = apply(two, *datas)
    results[4] = results[4]._replace(revision=results[4].revision + 1)
    with objection("I21"):
        invariant.applied(two, entries, results)


def test_i21_subrevisions_are_in_order(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(OneRevisionPerWrite, world)
    invariant.started(one)
    entries, results = apply(one, put(b"a"))
    record = one.machine._store.read().get(REVISIONS, revision_key(2, 0))
    write_to_store(one, REVISIONS, revision_key(2, 2), record)
    with objection("I21"):
        invariant.applied(one, entries, results)


def test_i22_revisions_only_grow(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(RevisionsOnlyGrow, world)
    canon_of(world).resume(one)  # type: ignore[arg-type]
    apply(one, put(b"a"), put(b"a"), watchers=[invariant])
    invariant.changed(one)
    apply(one, command(CommandKind.COMPACT, CompactionRequest(revision=3)), watchers=[invariant])
    invariant.changed(one)
    state = one.machine._state
    one.machine._state = state._replace(compact_revision=1)
    with objection("I22"):
        invariant.changed(one)
    two.machine._state = state._replace(revision=2)
    with objection("I22"):
        invariant.started(two)
    two.machine._state = state
    invariant.started(two)


def test_i23_versions_count_puts(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(VersionsCountPuts, world)
    apply(one, put(b"a"), put(b"a"), delete(b"a"), put(b"a"), watchers=[invariant])
    entries, results = apply(one, put(b"a"))
    at = revision_key(one.machine.revision, 0)
    record = one.machine._store.read().get(REVISIONS, at)
    assert record is not None
    write_to_store(one, REVISIONS, at, record.replace(b"\x20\x02", b"\x20\x05"))
    with objection("I23"):
        invariant.applied(one, entries, results)


def test_i24_the_past_stays(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(PastStays, world)
    books = make(OneRevisionPerWrite, world)
    datas = [put(b"a", b"%d" % number) for number in range(5)]
    apply(one, *datas, put(b"b"), watchers=[books])
    apply(one, command(CommandKind.COMPACT, CompactionRequest(revision=4)), watchers=[books])
    invariant.phase_ended("safety")
    write_to_store(
        one, REVISIONS, revision_key(7, 0), b"\x0a\x01b\x10\x07\x18\x07\x20\x01\x2a\x01x"
    )
    with objection("I24"):
        invariant.phase_ended("safety")


def test_i24_what_is_compacted_is_refused(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(PastStays, world)
    books = make(OneRevisionPerWrite, world)
    apply(one, *[put(b"a", b"%d" % number) for number in range(5)], watchers=[books])
    one.machine._state = one.machine._state._replace(compact_revision=3)
    invariant.phase_ended("safety")
    view = one.machine.view
    for revision, compact in ((6, -1), (9, 3)):
        wrong = one.machine._state._replace(revision=revision, compact_revision=compact)

        def lying(wrong: Any = wrong) -> Any:
            right, one.machine._state = one.machine._state, wrong
            try:
                return view()
            finally:
                one.machine._state = right

        one.machine.view = lying  # type: ignore[method-assign]
        with objection("I24"):
            invariant.phase_ended("safety")


def test_i26_state_is_its_entries(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(StateIsItsEntries, world)
    books = make(OneRevisionPerWrite, world)
    datas = [put(b"a"), put(b"b"), grant(7)]
    apply(one, *datas, watchers=[books])
    apply(two, *datas)
    invariant.started(two)
    invariant.installed(two, 4, 2)
    with objection("I26"):
        invariant.installed(two, 5, 2)
    state = two.machine._state
    two.machine._state = state._replace(applied_index=3)
    with objection("I26"):
        invariant.started(two)  # The lease is of entry 4.
    two.machine._state = state._replace(applied_index=2)
    with objection("I26"):
        invariant.started(two)
    two.machine._state = state
    write_to_store(
        two, REVISIONS, revision_key(3, 0), b"\x0a\x01b\x10\x03\x18\x03\x20\x01\x2a\x01x"
    )
    with objection("I26"):
        invariant.started(two)


# ---- equality of members


def test_i28_same_on_all(world: StubWorld) -> None:
    one, two, three = (StubProcess(world, number) for number in (1, 2, 3))
    invariant = make(SameOnAll, world)
    datas = [put(b"a", b"1"), delete(b"x")]
    apply(one, *datas, watchers=[invariant])
    entries, results = apply(two, *datas, watchers=[invariant])
    canon_of(world)._latest = None  # type: ignore[arg-type]
    results[1] = results[1]._replace(error=errors.NO_SPACE)
    canon_of(world).resume(three)  # type: ignore[arg-type]
    two.incarnation = 2
    canon_of(world)._revision[two.name] = 1  # type: ignore[arg-type]
    with objection("I28"):
        invariant.applied(two, entries, results)
    with objection("I28"):
        apply(three, put(b"a", b"2"), datas[1], watchers=[invariant])


def test_i28_changes_are_compared_in_the_store(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(SameOnAll, world)
    data = put(b"a", b"1")
    apply(one, data, watchers=[invariant])
    entries, results = apply(two, data)
    write_to_store(
        two, REVISIONS, revision_key(2, 0), b"\x0a\x01a\x10\x02\x18\x02\x20\x01\x2a\x012"
    )
    with objection("I28"):
        invariant.applied(two, entries, results)


def test_i28_whole_states_are_hashed(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(SameOnAll, world)
    data = put(b"a", b"1")
    for p in (one, two):
        apply(p, data)
    invariant.phase_ended("safety")
    write_to_store(two, META, b"cluster_version", b"9")
    with objection("I28"):
        invariant.phase_ended("end")
    two.machine._state = two.machine._state._replace(alarms=frozenset({(2, int(CORRUPT))}))
    invariant.phase_ended("end")


def test_i29_differences_raise_the_alarm(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(DifferencesRaiseTheAlarm, world)
    apply(one, put(b"a", b"1"))
    apply(two, put(b"a", b"1"))

    def pass_time(until_s: int) -> None:
        while world.now_ns < until_s * S:
            world.now_ns += S
            invariant.stepped(one)

    pass_time(100)
    write_to_store(
        two, REVISIONS, revision_key(2, 0), b"\x0a\x01a\x10\x02\x18\x02\x20\x01\x2a\x012"
    )
    pass_time(120)
    with objection("I29"):
        pass_time(140)
    alarm = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=2, alarm=CORRUPT)
    apply(one, command(CommandKind.ALARM, alarm))
    pass_time(300)


# ---- transactions and leases


def test_i30_all_or_nothing(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(AllOrNothing, world)
    guarded = TxnRequest(
        compare=[Compare(key=b"a", target=Compare.VERSION, result=Compare.EQUAL, version=1)],
        success=[RequestOp(request_put=PutRequest(key=b"b"))],
        failure=[RequestOp(request_delete_range=DeleteRangeRequest(key=b"a"))],
    )
    data = command(CommandKind.TXN, guarded)
    apply(one, put(b"a"), data, put(b"a"), data, put(b"c", lease=99), watchers=[invariant])
    # One whose guard should have held, applied as if it had not.
    wrong = TxnRequest(success=guarded.failure)
    entries, results = apply(one, put(b"a"), command(CommandKind.TXN, wrong))
    entries[1] = entry(entries[1].index, entries[1].term, data)
    with objection("I30"):
        invariant.applied(one, entries, results)


def test_i30_a_refusal_changes_nothing(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(AllOrNothing, world)
    entries, results = apply(one, put(b"a"))
    results[0] = results[0]._replace(error=errors.LEASE_NOT_FOUND)
    with objection("I30"):
        invariant.applied(one, entries, results)


def test_i30_the_answer_is_the_models(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(AllOrNothing, world)
    txn = TxnRequest(success=[RequestOp(request_put=PutRequest(key=b"a"))])
    apply(one, command(CommandKind.TXN, txn), watchers=[invariant])
    entries, results = apply(one, command(CommandKind.TXN, txn))
    results[0] = results[0]._replace(body=b"")
    invariant.applied(one, entries, results)  # Nobody waited for it.
    entries, results = apply(one, command(CommandKind.TXN, txn))
    results[0] = results[0]._replace(body=b"\x10\x00" + results[0].body[2:])
    with objection("I30"):
        invariant.applied(one, entries, results)


def expire(number: int, term: int, member_id: int = 1) -> bytes:
    return command(CommandKind.LEASE_EXPIRE, expiry_payload(term, [number], 0), member_id=member_id)


def test_i38_leases_live_out_their_time(world: StubWorld) -> None:
    one = StubProcess(world)
    one.core.lessor.renew = lambda lease_id, now, done: done(10, None)
    invariant = make(LeasesLiveOutTheirTime, world)
    invariant.started(one)
    apply(one, grant(7, 10), grant(8, 10), watchers=[invariant])
    for number in (7, 8):
        invariant.lease_event("granted", number, 10, one)
    world.now_ns = 6 * S
    one.core.lessor.renew(8, 0.0, lambda ttl, error: None)
    invariant.lease_event("renewed", 8, 10, one)
    world.now_ns = int(9.5 * S)  # A clock at 110 % shows more than 10 s.
    apply(one, expire(7, 2), watchers=[invariant])
    world.now_ns = 15 * S
    with objection("I38"):
        apply(one, expire(8, 2), watchers=[invariant])


def test_i38_a_lease_that_nobody_renewed_ends_in_time(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(LeasesLiveOutTheirTime, world)
    apply(one, grant(7, 10), watchers=[invariant])
    invariant.lease_event("granted", 7, 10, one)
    world.now_ns = 9 * S
    with objection("I38"):
        apply(one, expire(7, 2), watchers=[invariant])


def test_i39_expiry_of_one_term(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(ExpiryOfOneTerm, world)
    one.raft.lead(2)
    invariant.changed(one)
    apply(one, grant(7), put(b"a", lease=7), expire(7, 1), watchers=[invariant])
    entries, results = apply(one, expire(7, 2))
    entries[0] = entries[0]._replace(data=expire(7, 1))
    with objection("I39"):
        invariant.applied(one, entries, results)
    with objection("I39"):
        apply(one, expire(7, 2, member_id=2), watchers=[invariant])


def test_i40_revocation_is_exact(world: StubWorld) -> None:
    one = StubProcess(world)
    invariant = make(RevocationIsExact, world)
    revoke = command(CommandKind.LEASE_REVOKE, LeaseRevokeRequest(ID=7))
    apply(
        one, grant(7), put(b"a", lease=7), put(b"b", lease=7), put(b"b"), revoke,
        watchers=[invariant],
    )  # fmt: skip
    apply(one, grant(7), put(b"a", lease=7), watchers=[invariant])
    # Applied is a deletion of another key.
    entries, results = apply(one, delete(b"b"))
    entries[0] = entries[0]._replace(data=revoke)
    with objection("I40"):
        invariant.applied(one, entries, results)


def test_i40_all_have_the_same_leases(world: StubWorld) -> None:
    one, two = StubProcess(world, 1), StubProcess(world, 2)
    invariant = make(RevocationIsExact, world)
    data = grant(7)
    apply(one, data, watchers=[invariant])
    entries, results = apply(two, data)
    write_to_store(two, LEASES, lease_id(7), None)
    del two.machine._leases[7]
    with objection("I40"):
        invariant.applied(two, entries, results)
