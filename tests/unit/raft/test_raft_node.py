"""What the public face promises beyond the golden traces."""

from __future__ import annotations

from typing import Any

import pytest

from raft import trace
from raft.core import HANDLERS
from raft.errors import ConfChangeInvalid, InvariantBroken, ProposalDropped
from raft.limits import COMMITTED_ENTRIES_PER_READY_MAX, READS_WAITING_MAX
from raft.messages import Append, AppendReply, Heartbeat, RequestVote, TimeoutNow
from raft.node import Config, RaftNode
from raft.types import ConfState, Entry, HardState, Role


def node(
    node_id: int = 1,
    voters: tuple[int, ...] = (1, 2, 3),
    *,
    entries: list[Entry] | None = None,
    hard_state: HardState | None = None,
    applied: int = 0,
) -> RaftNode:
    return RaftNode(
        Config(node_id, random=lambda n: 0),
        hard_state=hard_state or HardState(0, 0, 0),
        conf=ConfState(voters),
        snapshot=(0, 0),
        entries=entries or [],
        applied=applied,
    )


def run(member: RaftNode) -> list[Entry]:
    """Does the caller's duties until the node is quiet; returns what was applied."""
    applied: list[Entry] = []
    while member.has_ready():
        ready = member.ready()
        if ready.persist is not None:
            member.persisted(ready.persist)
        if ready.committed:
            applied += ready.committed
            member.applied_to(ready.committed[-1].index)
    return applied


def single() -> RaftNode:
    member = node(voters=(1,))
    member.campaign()
    run(member)
    assert member.role is Role.LEADER
    return member


def test_a_fresh_node_has_nothing_to_say() -> None:
    member = node()
    assert not member.has_ready()
    assert member.ready() == ([], None, [], [], [], 0, Role.FOLLOWER, 0)


def test_has_ready_is_quiet_after_everything_is_taken() -> None:
    member = single()
    member.propose([b"a"])
    assert member.has_ready()
    ready = member.ready()
    assert ready.persist is not None
    assert not member.has_ready(), "the Persist is outstanding, nothing else is due"
    member.persisted(ready.persist)
    assert member.has_ready()


def test_only_the_outstanding_persist_can_be_reported() -> None:
    member = single()
    member.propose([b"a"])
    persist = member.ready().persist
    assert persist is not None
    with pytest.raises(AssertionError, match="not the outstanding one"):
        member.persisted(persist._replace(must_sync=False))
    member.persisted(persist)
    with pytest.raises(AssertionError, match="not the outstanding one"):
        member.persisted(persist)


def test_change_of_leader_alone_makes_a_ready() -> None:
    member = node(hard_state=HardState(3, 0, 0))
    member.step(Heartbeat(2, 1, 3, 0, 0))
    assert member.ready().leader_id == 2
    assert not member.has_ready()
    for _ in range(10):
        member.tick()
    assert member.has_ready()
    assert member.ready().leader_id == 0


def test_foreign_messages_are_ignored() -> None:
    member = node()
    member.step(Append(2, 3, 1, 0, 0, 0, [Entry(1, 1, 0, b"")]))
    member.step(Heartbeat(1, 1, 9, 0, 0))
    member.step(AppendReply(9, 1, 9, 1, False, 0, 0))
    member.step(TimeoutNow(2, 1, 0))
    assert not member.has_ready()
    assert member.term == 0


def test_committed_entries_come_in_bounded_portions() -> None:
    member = single()
    member.propose([b""] * (COMMITTED_ENTRIES_PER_READY_MAX + 5))
    persist = member.ready().persist
    assert persist is not None
    member.persisted(persist)
    assert len(member.ready().committed) == COMMITTED_ENTRIES_PER_READY_MAX
    assert member.has_ready()
    assert len(member.ready().committed) == 5


def test_reads_waiting_are_bounded() -> None:
    member = node()
    member.step(Heartbeat(2, 1, 1, 0, 0))
    for context in range(READS_WAITING_MAX + 3):
        member.read_index(context)
    reads = member.ready().reads
    assert [read.context for read in reads] == list(range(READS_WAITING_MAX, READS_WAITING_MAX + 3))
    assert all(read.index is None for read in reads)


def test_empty_proposal_changes_nothing() -> None:
    member = single()
    last = member.last_index
    member.propose([])
    assert member.last_index == last
    assert not member.has_ready()


def test_node_outside_the_configuration_refuses_proposals() -> None:
    member = node(9)
    member.step(Heartbeat(2, 9, 1, 0, 0))
    with pytest.raises(ProposalDropped):
        member.propose([b"a"])


def test_entries_carry_plain_integers_and_the_payload_itself() -> None:
    member = single()
    payload = b"payload"
    member.propose([payload])
    entry = run(member)[-1]
    assert type(entry) is Entry
    assert type(entry.kind) is int
    assert entry.data is payload


def test_compacted_log_can_still_be_asked_for_its_edge() -> None:
    member = single()
    member.propose([b"a", b"b", b"c"])
    run(member)
    member.compact_log(3)
    assert member.first_index == 4
    assert member.term_at(3) == 1
    assert member.term_at(2) is None
    assert member.last_index == 4


def test_hard_state_older_than_the_log_is_refused() -> None:
    with pytest.raises(InvariantBroken, match="older than the log"):
        node(entries=[Entry(1, 5, 0, b"")], hard_state=HardState(4, 0, 0))


def test_impossible_configuration_is_refused() -> None:
    with pytest.raises(ConfChangeInvalid):
        node(voters=(1, 1))


@pytest.mark.parametrize(
    "settings",
    [
        {"node_id": 0},
        {"node_id": 1, "heartbeat_ticks": 0},
        {"node_id": 1, "election_ticks": 1},
        {"node_id": 1, "max_append_bytes": 0},
        {"node_id": 1, "max_inflight_appends": 0},
        {"node_id": 1, "max_inflight_bytes": 0},
        {"node_id": 1, "max_uncommitted_bytes": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Config(**settings, random=lambda n: 0)


def test_progress_is_the_leaders_alone() -> None:
    assert node().progress() == {}
    progress = single().progress()
    assert progress[1].match == 1
    assert progress[1].state == "REPLICATE"


def test_every_role_hears_leaders_and_candidates() -> None:
    for handlers in HANDLERS.values():
        assert Append in handlers
        assert RequestVote in handlers


def test_trace_lines_are_single_lines() -> None:
    member = single()
    member.propose([b"line\nbreak", bytes(range(200))])
    lines = list(trace.ready_lines(member.ready()))
    assert len(lines) == 1
    assert all("\n" not in line for line in [*lines, trace.node_text(member)])
