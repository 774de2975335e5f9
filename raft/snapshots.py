"""Snapshots: when a follower lags behind what the log still has, and when one arrives (thesis 5).

The files are the caller's. The core says who needs one (`Ready.snapshot_targets`), is told how it
went, and on the receiving side decides whether a verified snapshot replaces the log.
"""

from __future__ import annotations

from raft.errors import NotLeader
from raft.follower import acknowledge
from raft.membership import switch_conf
from raft.messages import InstallSnapshot
from raft.progress import ProgressState
from raft.state import State
from raft.types import Role, SnapshotMeta

__all__ = ("handle_install", "installed", "report_snapshot", "snapshot_message", "take_held")


def snapshot_message(state: State, peer: int, meta: SnapshotMeta) -> InstallSnapshot:
    """What goes in front of the file; raises NotLeader, since only a leader may say it."""
    if state.role is not Role.LEADER:
        raise NotLeader("leadership was lost while the snapshot was being made")
    assert meta.index <= state.log.commit, f"snapshot at {meta.index} is not committed"
    return InstallSnapshot(state.id, peer, state.term, meta)


def report_snapshot(state: State, peer: int, index: int | None) -> None:
    """Leader: sending has ended, at `index` or (None) in failure.

    Either way the next append waits for a sign of life: after success the follower is still
    installing, after a failure an immediate retry would most likely fail too.
    """
    progress = state.progress.get(peer)
    if progress is None or progress.state is not ProgressState.SNAPSHOT:
        return
    progress.become_probe(None if index is None else index + 1)
    progress.probe_sent = True


def handle_install(state: State, message: InstallSnapshot) -> None:
    """Any role; a leader of this term offers a snapshot that the caller has verified."""
    state.follow(message.sender)
    log, meta = state.log, message.meta
    if meta.index <= log.commit:
        acknowledge(state, message.sender, log.commit)
    elif log.term_at(meta.index) == meta.term:
        # The log has it all and more: keep it, and learn that this much is committed.
        log.commit_to(meta.index)
        acknowledge(state, message.sender, log.commit)
    elif log.applied < log.handed or state.pending_snapshot is not None:
        # Entries are being applied right now; the configuration must not change under them.
        state.held_snapshot = message
    else:
        log.restore(meta.index, meta.term)
        state.pending_snapshot = meta
        switch_conf(state, meta.conf)
        acknowledge(state, message.sender, meta.index)


def installed(state: State, meta: SnapshotMeta) -> None:
    """The state machine stands at the snapshot now."""
    if state.pending_snapshot == meta:
        state.pending_snapshot = None
        state.log.applied_to(meta.index)


def take_held(state: State) -> InstallSnapshot | None:
    """The snapshot that had to wait, once nothing is being applied any more."""
    message = state.held_snapshot
    if message is None or state.pending_snapshot is not None:
        return None
    if state.log.applied < state.log.handed:
        return None
    state.held_snapshot = None
    return message
