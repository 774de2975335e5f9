"""One member's step function, three at a time, without an event loop."""

from __future__ import annotations

import pytest

from kvstore import errors
from kvstore.machine import CommandKind, Member
from kvstore.node.membership import conf_change
from kvstore.pb import rpc_pb2
from raft.messages import Message, ReadReply
from raft.types import ConfChangeKind

from .cluster import Cluster, Outcome


def test_a_single_member_elects_itself_and_answers_after_its_own_disk() -> None:
    cluster = Cluster(1)
    leader = cluster.elect()
    leader.slow_disk = True
    outcome = cluster.put(leader, b"k")
    cluster.settle()
    assert outcome.pending
    leader.finish_write()
    cluster.settle()
    assert outcome.value.revision == 2


def test_a_write_on_any_member_is_answered_there_and_read_everywhere() -> None:
    cluster = Cluster()
    cluster.elect()
    for revision, peer in enumerate(cluster.peers.values(), start=2):
        outcome = cluster.put(peer, b"k%d" % peer.id, b"value")
        cluster.settle()
        assert outcome.value.revision == revision
    for peer in cluster.peers.values():
        read = cluster.get(peer, b"k1")
        cluster.settle()
        assert [kv.value for kv in read.value.kvs] == [b"value"]


def test_what_arrives_during_one_disk_write_forms_the_next() -> None:
    cluster = Cluster(1)
    leader = cluster.elect()
    leader.slow_disk = True
    outcomes = [cluster.put(leader, b"first")]
    cluster.settle()
    before = leader.writes
    for number in range(100):
        outcomes.append(cluster.put(leader, b"k%d" % number))
        cluster.settle()
    leader.finish_write()
    cluster.settle()
    leader.finish_write()
    cluster.settle()
    assert leader.writes == before + 2
    assert [outcome.value.revision for outcome in outcomes] == list(range(2, 103))


def test_a_tick_sends_writes_on_although_the_leaders_disk_hangs() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    leader.slow_disk = True
    cluster.put(leader, b"a")
    cluster.settle()
    cluster.put(leader, b"b")
    cluster.tick()
    followers = [peer for peer in cluster.peers.values() if peer is not leader]
    assert all(peer.core.raft.last_index == leader.core.raft.last_index for peer in followers)


def test_writes_wait_for_a_leader_and_are_then_proposed() -> None:
    cluster = Cluster()
    outcome = cluster.put(cluster.peers[1], b"early")
    cluster.settle()
    assert outcome.pending
    cluster.elect()
    cluster.settle()
    assert outcome.value.revision == 2


def test_without_a_quorum_writes_and_reads_time_out_and_serializable_reads_work() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    assert cluster.put(leader, b"k")
    cluster.settle()
    others = [peer_id for peer_id in cluster.peers if peer_id != leader.id]
    for peer_id in others:
        cluster.kill(peer_id)
    write, read = cluster.put(leader, b"lost"), cluster.get(leader, b"k")
    local = cluster.get(leader, b"k", linearizable=False)
    cluster.tick(60)
    assert write.pending
    assert len(local.value.kvs) == 1
    cluster.tick(20)
    assert write.error is not None
    assert write.error.message.startswith("etcdserver: request timed out")
    assert read.error in (errors.LEADER_CHANGED, errors.TIMEOUT)
    late = cluster.get(leader, b"k")
    cluster.tick(80)
    assert late.error == errors.TIMEOUT


def test_a_write_cut_off_with_its_leader_says_connection_lost() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.tick(50)
    cluster.isolate(leader.id)
    write = cluster.put(leader, b"k")
    for _ in range(75):  # It keeps leading in its own eyes: no check of the quorum.
        leader.core.raft._state.progress[1].recent_active = True
        leader.core.raft._state.progress[2].recent_active = True
        leader.core.raft._state.progress[3].recent_active = True
        cluster.tick()
    assert write.error == errors.TIMEOUT_CONNECTION_LOST


def test_a_write_around_the_loss_of_a_leader_names_it() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    follower = cluster.follower()
    cluster.tick(50)
    cluster.kill(leader.id)
    write = cluster.put(follower, b"k")  # Forwarded to the dead leader, so lost.
    cluster.settle()
    cluster.tick(80)
    assert write.error == errors.TIMEOUT_LEADER_FAILURE


def test_an_isolated_leader_does_not_answer_linearizable_reads() -> None:
    cluster = Cluster()
    old = cluster.elect()
    cluster.put(old, b"k", b"old")
    cluster.settle()
    cluster.isolate(old.id)
    stale = cluster.get(old, b"k")
    cluster.settle()
    assert stale.pending
    new = cluster.elect()
    assert new is not old
    written = cluster.put(new, b"k", b"new")
    cluster.settle()
    assert written.value.revision == 3
    cluster.heal()
    cluster.tick(10)
    assert stale.error == errors.LEADER_CHANGED
    fresh = cluster.get(old, b"k")
    cluster.settle()
    assert fresh.value.kvs[0].value == b"new"


def test_reads_that_arrive_during_a_round_share_the_next() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    first = cluster.get(leader, b"k")
    leader.work()
    later = [cluster.get(leader, b"k") for _ in range(50)]
    rounds = leader.core.raft._state.reads.round_id
    cluster.settle()
    assert not any(read.pending for read in (first, *later))
    assert leader.core.raft._state.reads.round_id == rounds + 1


def test_a_lost_round_is_asked_again_with_a_new_id() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    follower = cluster.follower()
    read = cluster.get(follower, b"k")
    follower.work()
    cluster.network.clear()
    cluster.settle()
    assert read.pending
    cluster.tick(6)
    assert list(read.value.kvs) == []
    assert follower.core.rounds.slow == 1
    assert leader.core.is_leader


def test_a_confirmation_from_before_a_restart_confirms_nothing_after_it() -> None:
    cluster = Cluster()
    cluster.elect()
    asking = cluster.follower().id
    held: list[Message] = []
    send = cluster.send

    def holding(message: Message) -> bool:
        if isinstance(message, ReadReply):
            held.append(message)
            return True
        return send(message)

    cluster.send = holding  # type: ignore[method-assign]
    cluster.get(cluster.peers[asking], b"k")
    cluster.settle()
    cluster.kill(asking)
    cluster.restart(asking)
    cluster.tick(2)
    read = cluster.get(cluster.peers[asking], b"k")
    cluster.settle()
    old, new = held
    send(old)
    cluster.settle()
    assert read.pending
    send(new)
    cluster.settle()
    assert list(read.value.kvs) == []


def test_a_killed_leader_loses_nothing_that_was_answered() -> None:
    cluster = Cluster(seed=5)
    written = []
    for number in range(5):
        leader = cluster.elect()
        outcome = cluster.put(leader, b"k%d" % number)
        cluster.settle()
        assert outcome.error is None
        written.append(b"k%d" % number)
        cluster.kill(leader.id)
        cluster.elect()
        cluster.restart(leader.id)
    leader = cluster.elect()
    for key in written:
        read = cluster.get(leader, key)
        cluster.settle()
        assert read.value.count == 1


def test_all_members_restart_from_their_disks() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    for number in range(20):
        cluster.put(leader, b"k%d" % number)
    cluster.settle()
    for peer_id in list(cluster.peers):
        cluster.kill(peer_id)
        cluster.restart(peer_id)
    leader = cluster.elect()
    read = cluster.get(leader, b"k19")
    cluster.settle()
    assert read.value.header.revision == 0
    assert leader.core.machine.revision == 21
    assert {peer.core.machine.revision for peer in cluster.peers.values()} == {21}


def test_a_follower_that_fell_behind_the_log_gets_a_snapshot() -> None:
    cluster = Cluster(catchup=10)
    leader = cluster.elect()
    behind = cluster.follower()
    cluster.kill(behind.id)
    for number in range(100):
        cluster.put(leader, b"k%d" % number)
        cluster.settle()
    assert leader.core.raft.first_index > 50
    cluster.restart(behind.id)
    cluster.tick(30)
    cluster.put(leader, b"after")
    cluster.settle()
    assert cluster.snapshots_sent >= 1
    assert cluster.peers[behind.id].core.machine.revision == leader.core.machine.revision
    cluster.kill(behind.id)
    cluster.restart(behind.id)
    cluster.tick(5)
    assert cluster.peers[behind.id].core.machine.revision == leader.core.machine.revision


def test_a_write_too_large_or_after_the_end_is_refused_at_once() -> None:
    cluster = Cluster(1)
    leader = cluster.elect()
    assert cluster.put(leader, b"k", bytes(2 << 20)).error == errors.REQUEST_TOO_LARGE
    waiting = cluster.put(leader, b"k")
    leader.core.close()
    assert waiting.error == errors.STOPPED
    assert cluster.put(leader, b"k").error == errors.STOPPED
    assert cluster.get(leader, b"k").error == errors.STOPPED


def test_too_many_committed_entries_behind_refuse_writes() -> None:
    cluster = Cluster(1)
    leader = cluster.elect()
    leader.core.applier.applied_index -= 6000
    assert cluster.put(leader, b"k").error == errors.TOO_MANY_REQUESTS


def test_a_write_while_leadership_is_handed_over_is_dropped() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    target = cluster.follower().id
    cluster.isolate(target)
    leader.core.raft.transfer_leader(target)
    outcome = cluster.put(leader, b"k")
    cluster.settle()
    assert outcome.error == errors.PROPOSAL_DROPPED


def test_writes_wait_while_too_much_is_uncommitted() -> None:
    """The leader's log takes 64 MiB that are not committed; what comes then stays queued."""
    cluster = Cluster(3)
    leader = cluster.elect()
    followers = [peer for peer in cluster.peers.values() if peer is not leader]
    for peer in followers:
        peer.slow_disk = True
    outcomes = []
    for number in range(80):
        outcomes.append(cluster.put(leader, b"%d" % number, bytes(1_000_000)))
        cluster.settle()
    assert leader.core.proposals.queued > 5
    assert not leader.core.has_work, "it would turn and turn until the others have written"
    assert all(outcome.pending for outcome in outcomes)
    for peer in followers:
        peer.slow_disk = False
        peer.finish_write()
    cluster.settle()
    assert all(not outcome.pending and outcome.error is None for outcome in outcomes)


# ---- leases


def grant(cluster: Cluster, lease_id: int, ttl: int) -> None:
    leader = next(p for p in cluster.peers.values() if p.alive and p.core.is_leader)
    outcome = cluster.command(
        leader, CommandKind.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=ttl)
    )
    cluster.settle()
    assert outcome.error is None


def renew(cluster: Cluster, lease_id: int) -> Outcome:
    leader = next(p for p in cluster.peers.values() if p.alive and p.core.is_leader)
    outcome = Outcome()
    leader.core.renew_leases([(lease_id, outcome)])
    cluster.settle()
    return outcome


def test_a_lease_ends_with_its_keys_unless_it_is_renewed() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    grant(cluster, 7, 3)
    assert cluster.put(leader, b"k", lease=7)
    cluster.settle()
    for _ in range(5):
        cluster.tick(20)
        assert renew(cluster, 7).value == 3
    cluster.tick(32)
    read = cluster.get(leader, b"k")
    cluster.settle()
    assert read.value.count == 0
    assert renew(cluster, 7).value == 0
    assert len(leader.core.lessor) == 0


def test_a_new_leader_gives_every_lease_its_whole_time_and_an_election_timeout() -> None:
    cluster = Cluster()
    old = cluster.elect()
    grant(cluster, 7, 5)
    cluster.tick(40)
    cluster.kill(old.id)
    new = cluster.elect()
    remaining = new.core.lessor.remaining_s(7, cluster.now)
    assert remaining is not None
    assert remaining > 5.0
    cluster.tick(50)
    assert 7 in new.core.machine.leases
    cluster.tick(15)
    assert 7 not in new.core.machine.leases


def test_an_isolated_leader_does_not_renew() -> None:
    cluster = Cluster()
    old = cluster.elect()
    grant(cluster, 7, 60)
    cluster.isolate(old.id)
    outcome = renew(cluster, 7)
    assert outcome.pending
    cluster.tick(30)
    assert outcome.error in (errors.LEADER_CHANGED, errors.NOT_PRIMARY_LESSOR)


def test_a_renewal_of_a_lease_that_is_just_ending_waits_and_says_zero() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    grant(cluster, 7, 2)
    leader.slow_disk = True
    for peer in cluster.peers.values():
        peer.slow_disk = True
    cluster.tick(22)
    outcome = renew(cluster, 7)
    assert outcome.pending
    for peer in cluster.peers.values():
        peer.slow_disk = False
    cluster.tick(2)
    assert outcome.value == 0


def test_a_new_leader_renews_nothing_that_the_log_says_has_ended() -> None:
    cluster = Cluster()
    old = cluster.elect()
    grant(cluster, 7, 2)
    for peer in cluster.peers.values():
        if peer is not old:
            peer.core.applier.pause()
    cluster.tick(25)
    assert 7 not in old.core.machine.leases
    cluster.kill(old.id)
    new = cluster.elect()
    assert 7 in new.core.machine.leases, "it has yet to apply that the lease expired"
    outcome = renew(cluster, 7)
    assert outcome.pending
    for peer in cluster.peers.values():
        if peer is not old:
            peer.core.resume(peer.core.machine)
    cluster.tick(1)
    assert outcome.value == 0


# ---- members


def change(
    cluster: Cluster, kind: ConfChangeKind, member: Member, promote: bool = False
) -> Outcome:
    leader = next(p for p in cluster.peers.values() if p.alive and p.core.is_leader)
    outcome = Outcome()
    assert leader.core.change_membership(conf_change(kind, member, promote=promote), outcome)
    cluster.settle()
    return outcome


def test_a_learner_joins_empty_catches_up_and_is_promoted() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    for number in range(20):
        cluster.put(leader, b"k%d" % number)
    cluster.settle()
    joiner = Member(4, "", ("http://m4:1",))
    assert change(cluster, ConfChangeKind.ADD_LEARNER, joiner).error is None
    added = cluster.add_empty(4)
    cluster.tick(30)
    assert added.core.machine.revision == leader.core.machine.revision
    assert added.core.raft.conf.learners == (4,)
    assert change(cluster, ConfChangeKind.ADD_VOTER, joiner, promote=True).error is None
    cluster.tick(2)
    assert added.core.raft.conf.voters == (1, 2, 3, 4)


def test_a_removed_member_knows_it_and_the_others_go_on() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    gone = cluster.follower()
    assert change(cluster, ConfChangeKind.REMOVE, Member(gone.id)).error is None
    cluster.tick(3)
    assert gone.core.removed
    assert gone.id not in leader.core.machine.members
    cluster.kill(gone.id)
    outcome = cluster.put(leader, b"k")
    cluster.settle()
    assert outcome.error is None


def test_a_leader_that_removes_itself_answers_first() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    outcome = change(cluster, ConfChangeKind.REMOVE, Member(leader.id))
    assert outcome.error is None
    assert leader.core.removed
    cluster.kill(leader.id)
    assert cluster.elect() is not leader


@pytest.mark.parametrize("again", [True, False])
def test_an_invalid_change_is_answered_with_why_and_the_next_one_passes(again: bool) -> None:
    cluster = Cluster()
    cluster.elect()
    taken = Member(9, "", ("http://m1:1",))
    refused = change(cluster, ConfChangeKind.ADD_LEARNER, taken)
    assert refused.error == errors.PEER_URL_EXISTS
    if again:
        fine = change(cluster, ConfChangeKind.ADD_LEARNER, Member(9, "", ("http://m9:1",)))
        assert fine.error is None
