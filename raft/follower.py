"""The follower's side of the log: accept, refuse with a hint, and follow the commit index."""

from __future__ import annotations

from raft.messages import Append, AppendReply, CommitNotice, Heartbeat, HeartbeatReply
from raft.state import State

__all__ = ("acknowledge", "handle_append", "handle_commit_notice", "handle_heartbeat")


def handle_append(state: State, message: Append) -> None:
    """Any role; a leader of this term speaks. The reply leaves when its promise is on disk."""
    state.follow(message.sender)
    log = state.log
    prev_index, prev_term, entries = message.prev_index, message.prev_term, message.entries
    if prev_index < log.commit:
        # Late or repeated, at least in part. Up to the commit index the logs are equal.
        log.check_committed(entries)
        entries = entries[log.commit - prev_index :]
        prev_index, prev_term = log.commit, log.commit_term
    last_new = log.try_append(prev_index, prev_term, entries)
    if last_new is not None:
        log.commit_to(min(message.commit, last_new))
        acknowledge(state, message.sender, last_new)
        return
    held = state.held_snapshot
    if held is not None and held.meta.index <= prev_index:
        return  # Fits behind the snapshot that waits here; a rejection would ask for another one.
    hint = log.meeting_point(prev_index, prev_term)
    state.now.append(AppendReply(state.id, message.sender, state.term, prev_index, True, *hint))


def acknowledge(state: State, leader_id: int, index: int) -> None:
    """Promises the leader everything up to `index`."""
    state.promise(AppendReply(state.id, leader_id, state.term, index, False, 0, 0), index)


def handle_commit_notice(state: State, message: CommitNotice) -> None:
    """Any role; a leader of this term tells how far it is."""
    state.follow(message.sender)
    state.log.commit_to(message.commit)


def handle_heartbeat(state: State, message: Heartbeat) -> None:
    """Any role; a leader of this term is alive."""
    state.follow(message.sender)
    state.log.commit_to(message.commit)
    state.now.append(
        HeartbeatReply(state.id, message.sender, state.term, message.read_id, state.log.commit)
    )
