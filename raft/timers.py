"""What one tick does in each role: heartbeats, the quorum check, elections."""

from __future__ import annotations

from raft.election import campaign, may_campaign
from raft.quorum import has_quorum
from raft.reads import expire_forwarded
from raft.replication import broadcast_heartbeat
from raft.state import State
from raft.transfer import give_up_late_transfer
from raft.types import NO_NODE, Role

__all__ = ("tick",)


def tick(state: State) -> None:
    """Time has moved on by one tick."""
    state.ticks += 1
    if state.role is Role.LEADER:
        _tick_leader(state)
    else:
        expire_forwarded(state)
        _tick_follower(state)


def _tick_follower(state: State) -> None:
    if state.fired_election:
        return
    state.election_elapsed += 1
    if state.election_elapsed < state.election_timeout:
        return
    state.fired_election = True
    if may_campaign(state):
        campaign(state)
    else:
        state.forget_leader()


def _tick_leader(state: State) -> None:
    give_up_late_transfer(state)
    if not state.fired_election:
        state.election_elapsed += 1
        if state.election_elapsed >= state.config.election_ticks:
            state.election_elapsed = 0
            state.fired_election = True
            if state.config.check_quorum and not _quorum_is_active(state):
                state.become_follower(state.term, NO_NODE)
                return
    state.heartbeat_elapsed += 1
    if state.heartbeat_elapsed >= state.config.heartbeat_ticks and not state.fired_beat:
        state.heartbeat_elapsed = 0
        state.fired_beat = True
        broadcast_heartbeat(state)


def _quorum_is_active(state: State) -> bool:
    """Whether a majority was heard from since the last look; each look starts afresh."""
    active = {peer for peer, progress in state.progress.items() if progress.recent_active}
    for peer, progress in state.progress.items():
        progress.recent_active = peer == state.id
    return has_quorum(state.conf.voters, active)
