"""Where the invariants look behind the product's public face; nowhere else do they.

What stands here are readings of private fields: they never change anything. If the product is
rearranged, this file follows, and no invariant has to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kvstore.storage.errors import StorageError
from raft.types import Entry

if TYPE_CHECKING:
    from pathlib import Path

    from kvstore.node.member import MemberCore
    from raft.log import RaftLog
    from raft.progress import Progress
    from raft.state import ReadQueue, State
    from tests.sim.process import Process

__all__ = (
    "fingerprint",
    "is_idle",
    "is_readable",
    "is_up",
    "entries_between",
    "entry_at",
    "log_of",
    "newest_entry",
    "progress_of",
    "purged_index",
    "read_queue",
    "snapshot_indexes",
    "state_of",
    "streams_of",
    "turns",
    "wal_directory",
    "wal_writer",
)


def is_up(p: Process) -> bool:
    """Whether there is a running member to look at (a start takes a while)."""
    return p.alive and p.running is not None


def fingerprint(core: MemberCore) -> tuple[Any, ...]:
    """Equal as long as nothing of Raft or the state machine has changed that others can see."""
    state: State = core.raft._state
    log = state.log
    entries = log._entries
    return (
        state.role,
        state.term,
        state.vote,
        state.leader_id,
        log.commit,
        log.applied,
        log.stable,
        log.base_index,
        len(entries),
        entries[-1] if entries else None,
        state.conf,
        state.pending_snapshot,
        core.applier.machine._state,
    )


def turns(p: Process) -> bool:
    """Whether its loop still takes turns, not having learned of anything that ends it."""
    return bool(p.running is not None and p.running.loop._running)


def is_idle(p: Process) -> bool:
    """Whether everything that has reached the core is worked off, and on its disk."""
    core = p.core
    return core.persisting is None and not core._inbox and not core.raft.has_ready()


def state_of(p: Process) -> State:
    """Raft's whole state."""
    state: State = p.raft._state
    return state


def log_of(p: Process) -> RaftLog:
    """Raft's log in memory."""
    return state_of(p).log


def entry_at(log: RaftLog, index: int) -> Entry | None:
    """The entry of this index; None if it is compacted or not there yet."""
    offset = index - log.base_index - 1
    return log._entries[offset] if 0 <= offset < len(log._entries) else None


def entries_between(log: RaftLog, first: int, last: int) -> Sequence[Entry]:
    """The entries first … last, as far as they are held."""
    start = max(first - log.base_index - 1, 0)
    return log._entries[start : max(last - log.base_index, 0)]


def newest_entry(log: RaftLog) -> Entry | None:
    """The last entry that is held."""
    return log._entries[-1] if log._entries else None


def progress_of(p: Process) -> dict[int, Progress]:
    """A leader's followers and itself; empty otherwise."""
    return state_of(p).progress


def read_queue(p: Process) -> ReadQueue:
    """Raft's reads on their way to an index."""
    return state_of(p).reads


def wal_writer(p: Process) -> Any:
    """The writing end of the log on disk."""
    return p.wal._writer


def wal_directory(p: Process) -> Path:
    """Where the log's segments lie."""
    directory: Path = wal_writer(p).directory
    return directory


def purged_index(p: Process) -> int:
    """The entry behind which the log on disk begins."""
    first: int = wal_writer(p)._segments[0].first_index
    return first - 1


def snapshot_indexes(p: Process) -> list[int]:
    """The entries that the snapshot files of this process cover."""
    return [int(file.index) for file in p.running.snapshots._files.snapshots()]


def is_readable(p: Process) -> bool:
    """Whether its store can be looked at: it is open, sound, and not about to be replaced."""
    if not is_up(p) or p.core.jobs.paused or not p.running.opened.files.store_open:
        return False
    try:
        p.machine.view().close()
    except StorageError:
        return False  # Its process will notice, too, and stop.
    return True


def streams_of(p: Process) -> Iterator[tuple[int, int, int]]:
    """Each watch stream as (queued messages, queued bytes, watchers)."""
    for stream in p.hub._streams:
        yield len(stream._queue), stream._bytes, len(stream._watchers)
