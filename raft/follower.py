"""The follower's side of the log: accept, refuse with a hint, and follow the commit index."""

from __future__ import annotations

from raft.messages import Append, AppendReply, Heartbeat, HeartbeatReply
from raft.state import State

__all__ = ("acknowledge", "handle_append", "handle_heartbeat")


def handle_append(state: State, message: Append) -> None:
    """Any role; a leader of this term speaks. The reply leaves when its promise is on disk."""
    state.follow(message.sender)
    log = state.log
    if message.prev_index < log.commit:
        # Late or repeated: what is committed here equals the leader's log for certain.
        log.check_committed(message.entries)
        acknowledge(state, message.sender, log.commit)
        return
    last_new = log.try_append(message.prev_index, message.prev_term, message.entries)
    if last_new is None:
        prev_index = message.prev_index
        hint = log.meeting_point(prev_index, message.prev_term)
        state.now.append(AppendReply(state.id, message.sender, state.term, prev_index, True, *hint))
        return
    log.commit_to(min(message.commit, last_new))
    acknowledge(state, message.sender, last_new)


def acknowledge(state: State, leader_id: int, index: int) -> None:
    """Promises the leader everything up to `index`."""
    state.promise(AppendReply(state.id, leader_id, state.term, index, False, 0, 0), index)


def handle_heartbeat(state: State, message: Heartbeat) -> None:
    """Any role; a leader of this term is alive."""
    state.follow(message.sender)
    state.log.commit_to(message.commit)
    state.now.append(
        HeartbeatReply(state.id, message.sender, state.term, message.read_id, state.log.commit)
    )
