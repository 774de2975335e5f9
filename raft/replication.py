"""The leader's side of the log: appends, acknowledgements, heartbeats, and the commit rule.

- Appends are made when a Ready is taken (`flush_appends`), and leave before the leader's own
  write ends; the leader counts itself when that write is reported (`count_own_entries`).
- Only entries of the leader's own term are committed by counting; older ones come with them
  (R4, thesis figure 3.7).
"""

from __future__ import annotations

from raft.messages import Append, AppendReply, CommitNotice, Heartbeat, HeartbeatReply
from raft.progress import Progress, ProgressState
from raft.quorum import committed_index
from raft.reads import confirm
from raft.state import State
from raft.transfer import hand_over_if_level, retire_when_known
from raft.types import Entry, EntryKind

__all__ = (
    "append_first_entry",
    "broadcast_heartbeat",
    "commit_by_counting",
    "count_own_entries",
    "flush_appends",
    "handle_append_reply",
    "handle_heartbeat_reply",
    "report_unreachable",
)


def append_first_entry(state: State) -> None:
    """A new leader's empty entry: committing it commits all that came before."""
    entry = Entry(state.log.last_index + 1, state.term, int(EntryKind.NORMAL), b"")
    assert entry.index == state.term_start, "the first entry is not where it was announced"
    state.log.append([entry])
    state.flush = True


def flush_appends(state: State) -> None:
    """Sends every follower what it lacks, as far as its window allows."""
    state.flush = False
    for peer, progress in state.progress.items():
        if peer != state.id:
            _flush_peer(state, peer, progress)


def _flush_peer(state: State, peer: int, progress: Progress) -> None:
    log, config = state.log, state.config
    if progress.state is ProgressState.SNAPSHOT:
        return
    if progress.state is ProgressState.PROBE:
        if not progress.probe_sent:
            _send_append(state, peer, progress, with_entries=True)
        return
    while progress.next <= log.last_index and not progress.is_full(
        config.max_inflight_appends, config.max_inflight_bytes
    ):
        if not _send_append(state, peer, progress, with_entries=True):
            return
    if progress.poked:
        _send_append(state, peer, progress, with_entries=False)
    elif progress.sent_commit < (known := min(progress.match, log.commit)):
        progress.sent_commit = known
        state.now.append(CommitNotice(state.id, peer, state.term, known))


def _send_append(state: State, peer: int, progress: Progress, *, with_entries: bool) -> bool:
    """Sends one append; False if the follower needs a snapshot instead."""
    log = state.log
    prev_index = progress.next - 1
    prev_term = log.term_at(prev_index)
    if prev_term is None:
        _want_snapshot(state, peer, progress)
        return False
    entries: list[Entry] = []
    if with_entries and progress.next <= log.last_index:
        entries, size_bytes = log.slice_from(progress.next, state.config.max_append_bytes)
        if progress.state is ProgressState.REPLICATE:
            progress.sent(entries[-1].index, size_bytes)
    if progress.state is ProgressState.PROBE:
        progress.probe_sent = True
    progress.poked = False
    progress.sent_commit = log.commit
    state.now.append(Append(state.id, peer, state.term, prev_index, prev_term, log.commit, entries))
    return True


def _want_snapshot(state: State, peer: int, progress: Progress) -> None:
    """Asks the caller for a snapshot, but only for a follower that is there to take it."""
    if progress.recent_active:
        progress.become_snapshot()
        state.snapshot_targets.append(peer)


def handle_append_reply(state: State, message: AppendReply) -> None:
    """Leader: a follower has stored entries, or could not connect them to its log."""
    progress = state.progress[message.sender]
    progress.recent_active = True
    if message.rejected:
        hint, _ = state.log.meeting_point(message.hint_index, message.hint_term)
        if progress.fall_back(message.index, hint):
            if progress.state is ProgressState.REPLICATE:
                progress.become_probe()
            state.flush = True
        return
    index = message.index
    if index > state.log.last_index:
        return  # speaks of entries that this leader never sent
    news = progress.advance(index)
    if progress.state is ProgressState.REPLICATE:
        progress.free_to(index)
    elif progress.state is ProgressState.PROBE:
        if news or progress.match == index:
            progress.become_replicate()
    elif index >= state.log.base_index:
        progress.become_replicate()
    if news:
        commit_by_counting(state)
        hand_over_if_level(state, message.sender)
    # The window may have opened; an idle follower costs nothing but this look.
    if progress.next <= state.log.last_index or progress.sent_commit < state.log.commit:
        state.flush = True


def commit_by_counting(state: State) -> None:
    """Commits what a majority of the voters has on disk, if it is of this term."""
    log = state.log
    index = committed_index([progress.match for progress in state.voter_progress])
    if index <= log.commit or index < state.term_start:
        return
    assert log.term_at(index) == state.term, f"counting reached an older term at {index}"
    log.commit_to(index)
    uncommitted = state.uncommitted
    while uncommitted and uncommitted[0][0] <= index:
        state.uncommitted_bytes -= uncommitted.popleft()[1]
    state.flush = True


def count_own_entries(state: State) -> None:
    """The leader's own write is done: its disk counts like any other."""
    own = state.progress.get(state.id)
    if own is not None and own.advance(state.log.stable):
        commit_by_counting(state)


def broadcast_heartbeat(state: State) -> None:
    """Tells everyone that the leader is alive, and what is committed as far as they have it."""
    read_id = state.reads.round_id if state.reads.round_reads else 0
    commit = state.log.commit
    for peer, progress in state.progress.items():
        if peer != state.id:
            known = min(progress.match, commit)
            state.now.append(Heartbeat(state.id, peer, state.term, known, read_id))


def handle_heartbeat_reply(state: State, message: HeartbeatReply) -> None:
    """Leader: a sign of life, perhaps a read confirmation; and a chance to find a lost append."""
    progress = state.progress[message.sender]
    progress.recent_active = True
    progress.known_commit = max(progress.known_commit, message.commit)
    progress.probe_sent = False
    if progress.match < state.log.last_index or progress.state is ProgressState.PROBE:
        progress.poked = True
        state.flush = True
    confirm(state, message.sender, message.read_id)
    if state.retire_index:
        retire_when_known(state)


def report_unreachable(state: State, peer: int) -> None:
    """The transport lost something on its way to `peer`: find out where the logs meet."""
    progress = state.progress.get(peer)
    if progress is not None and progress.state is ProgressState.REPLICATE and peer != state.id:
        progress.become_probe()
        state.flush = True
