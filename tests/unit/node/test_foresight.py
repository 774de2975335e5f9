"""Writes behind an entry that takes long to apply: answered early, and never wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest

from kvstore import errors
from kvstore.machine import CommandKind, Foreseen, encode, foresee
from kvstore.node.foresight import Foresight, ForesightError
from kvstore.pb import rpc_pb2
from raft.types import Entry, EntryKind

from .cluster import Cluster, Outcome, Peer

KEYS = 60


@pytest.fixture(autouse=True)
def _small_slices() -> Iterator[None]:
    """A delete of KEYS keys takes 30 slices."""
    with (
        patch("kvstore.machine.draft.SLICE_DELETES", 2),
        patch("kvstore.machine.leases.SLICE_DELETES", 2),
    ):
        yield


def loaded(size: int = 1, lease: int = 0) -> tuple[Cluster, Peer]:
    cluster = Cluster(size)
    leader = cluster.elect()
    if lease:
        request = rpc_pb2.LeaseGrantRequest(ID=lease, TTL=60)
        cluster.command(leader, CommandKind.LEASE_GRANT, request)
    for number in range(KEYS):
        cluster.put(leader, b"k%03d" % number, lease=lease)
    cluster.settle()
    return cluster, leader


def delete_all(cluster: Cluster, peer: Peer) -> Outcome:
    request = rpc_pb2.DeleteRangeRequest(key=b"k", range_end=b"l")
    return cluster.command(peer, CommandKind.DELETE_RANGE, request)


def until(peer: Peer, reached: Callable[[], bool], turns: int = 25) -> None:
    for _ in range(turns):
        if reached():
            return
        peer.work()
    raise AssertionError("not reached")


def some_turns(peer: Peer, turns: int = 6) -> None:
    for _ in range(turns):
        peer.work()


def test_a_put_behind_a_long_delete_is_answered_before_it_and_visible_after_it() -> None:
    cluster, leader = loaded()
    delete = delete_all(cluster, leader)
    some_turns(leader)
    put = cluster.put(leader, b"x")
    until(leader, lambda: not put.pending)
    assert delete.pending
    assert leader.core.machine.revision == 1 + KEYS
    assert (put.value.revision, put.value.body) == (1 + KEYS + 2, b"")
    read = cluster.get(leader, b"x")
    some_turns(leader, 4)
    assert delete.pending
    assert read.pending
    cluster.settle()
    assert delete.value.revision == 1 + KEYS + 1
    assert [kv.mod_revision for kv in read.value.kvs] == [1 + KEYS + 2]


def test_puts_in_the_same_batch_and_a_thousand_behind_it() -> None:
    cluster, leader = loaded()
    before = cluster.put(leader, b"x")
    delete = delete_all(cluster, leader)
    after = [cluster.put(leader, b"y%d" % number) for number in range(1500)]
    until(leader, lambda: not after[-1].pending)
    assert delete.pending
    assert not before.pending
    more = cluster.put(leader, b"z")
    until(leader, lambda: not more.pending)
    assert delete.pending
    cluster.settle()
    base = 1 + KEYS
    assert before.value.revision == base + 1
    assert delete.value.revision == base + 2
    assert [put.value.revision for put in after] == list(range(base + 3, base + 1503))
    assert more.value.revision == base + 1503
    assert leader.core.machine.revision == base + 1503


def test_followers_answer_their_own_puts_early_too() -> None:
    cluster, leader = loaded(3)
    follower = cluster.follower()
    delete_all(cluster, leader)
    for _ in range(3):
        for peer in cluster.peers.values():
            peer.work()
        while cluster.network:
            message = cluster.network.popleft()
            cluster.peers[message.to].core.receive([message])
    put = cluster.put(follower, b"x")
    for _ in range(8):
        for peer in cluster.peers.values():
            peer.work()
        while cluster.network:
            message = cluster.network.popleft()
            cluster.peers[message.to].core.receive([message])
    assert put.value.revision == 1 + KEYS + 2
    assert follower.core.machine.revision == 1 + KEYS
    cluster.settle()
    revisions = {peer.core.machine.revision for peer in cluster.peers.values()}
    assert revisions == {1 + KEYS + 2}


@pytest.mark.parametrize(
    "uncertain",
    [
        lambda c, p: c.put(p, b"x", lease=7),
        lambda c, p: delete_all(c, p),
        lambda c, p: c.command(
            p,
            CommandKind.TXN,
            rpc_pb2.TxnRequest(
                success=[rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"t"))]
            ),
        ),
        lambda c, p: c.command(
            p, CommandKind.PUT, rpc_pb2.PutRequest(key=b"k000", ignore_value=True)
        ),
        lambda c, p: c.command(
            p,
            CommandKind.ALARM,
            rpc_pb2.AlarmRequest(
                action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=1, alarm=rpc_pb2.NOSPACE
            ),
        ),
    ],
    ids=["lease", "delete", "txn", "ignore", "alarm"],
)
def test_nothing_behind_an_uncertain_entry_is_answered_early(uncertain: Any) -> None:
    cluster, leader = loaded()
    delete_all(cluster, leader)
    some_turns(leader)
    doubtful = uncertain(cluster, leader)
    put = cluster.put(leader, b"x")
    some_turns(leader, 12)
    assert doubtful.pending
    assert put.pending
    cluster.settle()
    assert not doubtful.pending
    assert not put.pending


def test_puts_that_want_the_previous_pair_wait_but_hold_nobody_up() -> None:
    cluster, leader = loaded()
    delete = delete_all(cluster, leader)
    some_turns(leader)
    request = rpc_pb2.PutRequest(key=b"k000", prev_kv=True)
    curious = cluster.command(leader, CommandKind.PUT, request)
    grant = rpc_pb2.LeaseGrantRequest(ID=9, TTL=60)
    granted = cluster.command(leader, CommandKind.LEASE_GRANT, grant)
    put = cluster.put(leader, b"x")
    until(leader, lambda: not put.pending)
    assert delete.pending
    assert curious.pending
    assert granted.pending
    cluster.settle()
    assert put.value.revision == curious.value.revision + 1 == 1 + KEYS + 3
    assert granted.error is None


def test_an_alarm_that_is_up_ends_all_foresight() -> None:
    cluster, leader = loaded()
    alarm = rpc_pb2.AlarmRequest(
        action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=1, alarm=rpc_pb2.NOSPACE
    )
    cluster.command(leader, CommandKind.ALARM, alarm)
    delete_all(cluster, leader)
    some_turns(leader)
    put = cluster.put(leader, b"x")
    some_turns(leader, 12)
    assert put.pending
    cluster.settle()
    assert put.error == errors.NO_SPACE


def test_revocation_and_expiry_of_leases_are_foreseen_with_all_their_revisions() -> None:
    cluster, leader = loaded(lease=7)
    for number in (8, 9):
        grant = rpc_pb2.LeaseGrantRequest(ID=number, TTL=60)
        cluster.command(leader, CommandKind.LEASE_GRANT, grant)
    cluster.put(leader, b"other", lease=9)
    cluster.settle()
    revision = leader.core.machine.revision
    cluster.tick(600)
    for _ in range(50):
        cluster.now += 0.1
        leader.core.tick()
        some_turns(leader, 4)
        if leader.core.applier.busy:
            break
    some_turns(leader, 2)
    put = cluster.put(leader, b"x")
    until(leader, lambda: not put.pending)
    assert leader.core.machine.revision == revision
    assert put.value.revision == revision + 3
    cluster.settle()
    assert leader.core.machine.revision == revision + 3
    assert not leader.core.machine.leases


def test_a_wrong_forecast_stops_the_member() -> None:
    """The alarm that the assertion raises when the rule of what is certain has a hole."""
    cluster, leader = loaded()

    def careless(entry: Entry, revision: int) -> Foreseen | None:
        seen = foresee(entry, revision)
        return seen._replace(revision=seen.revision + 1) if seen and seen.answerable else seen

    with patch("kvstore.node.foresight.foresee", careless):
        delete_all(cluster, leader)
        some_turns(leader)
        put = cluster.put(leader, b"x")
        until(leader, lambda: not put.pending)
        with pytest.raises(ForesightError, match=rf"at revision {KEYS + 3}, error None, where"):
            cluster.settle()


def test_a_long_batch_is_committed_off_the_loop_and_seen_when_the_loop_hears_of_it() -> None:
    cluster, leader = loaded()
    posted: list[Callable[[], None]] = []
    leader.core.applier.on_loop = posted.append
    delete = delete_all(cluster, leader)
    cluster.settle()
    assert len(posted) == 1
    assert delete.pending
    assert not leader.core.applier.idle
    assert not leader.core.applier.busy
    put = cluster.put(leader, b"x")
    cluster.settle()
    assert put.value.revision == 1 + KEYS + 2
    assert leader.core.machine.revision == 1 + KEYS
    posted.pop()()
    assert delete.value.revision == 1 + KEYS + 1
    assert rpc_pb2.DeleteRangeResponse.FromString(delete.value.body).deleted == KEYS
    cluster.settle()
    assert leader.core.machine.revision == 1 + KEYS + 2
    assert not posted


def test_a_member_that_stops_during_the_commit_ignores_its_end() -> None:
    cluster, leader = loaded()
    posted: list[Callable[[], None]] = []
    leader.core.applier.on_loop = posted.append
    delete = delete_all(cluster, leader)
    cluster.settle()
    leader.core.close()
    posted.pop()()
    assert delete.error == errors.STOPPED


def entry(index: int, size: int = 0) -> Entry:
    payload = rpc_pb2.PutRequest(key=b"k", value=bytes(size)).SerializeToString()
    return Entry(index, 1, EntryKind.NORMAL, encode(CommandKind.PUT, index, payload))


def test_what_is_foreseen_is_bounded_in_entries_and_bytes() -> None:
    with patch("kvstore.node.foresight.MAX_FORESEEN_ENTRIES", 10):
        foresight = Foresight()
        foresight.anchor(1, 1)
        seen = foresight.look([entry(index) for index in range(1, 30)])
        assert [result.revision for result in seen] == list(range(2, 12))
        foresight.check(2, seen[:4])
        assert len(foresight.look([entry(index) for index in range(12, 30)])) == 4
    with patch("kvstore.node.foresight.MAX_FORESEEN_BYTES", 1_000):
        foresight = Foresight()
        foresight.anchor(1, 1)
        assert len(foresight.look([entry(index, 400) for index in range(2, 30)])) == 3


def test_foresight_does_not_jump_over_entries() -> None:
    foresight = Foresight()
    foresight.anchor(1, 1)
    with pytest.raises(AssertionError, match="entry 3 after 1"):
        foresight.look([entry(3)])


def test_puts_are_only_foreseen_when_they_are_plain() -> None:
    def seen(**fields: Any) -> Foreseen | None:
        payload = rpc_pb2.PutRequest(key=b"k", **fields).SerializeToString()
        return foresee(Entry(5, 1, EntryKind.NORMAL, encode(CommandKind.PUT, 3, payload)), 10)

    assert seen(value=b"v") == Foreseen(3, 11, True)
    assert seen(prev_kv=True) == Foreseen(3, 11, False)
    assert seen(lease=1) is seen(ignore_value=True) is seen(ignore_lease=True) is None
    assert foresee(Entry(5, 1, EntryKind.NORMAL, b""), 10) == Foreseen(0, 10, False)
    assert foresee(Entry(5, 1, EntryKind.CONF_CHANGE, b""), 10) is None
    damaged = encode(CommandKind.PUT, 3, b"\xff\xff")
    assert foresee(Entry(5, 1, EntryKind.NORMAL, damaged), 10) is None
