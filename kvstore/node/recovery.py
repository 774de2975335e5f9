"""From the files of a member that ran before to the state it starts with.

Three files tell of one history: the log (what was promised), the newest snapshots (states that
the log has been cut behind), and the store (a view of the state that costs nothing to open).
The log and the snapshots are the truth. The store is used when it can be trusted: it was closed
in order, or the machine has not been down since. Otherwise it is built anew from a snapshot, and
Raft applies the rest of the log again.

A store that can be trusted and has applied more than the log holds proves that the log lost
entries which this member had acknowledged. It must not go on: its vote could elect a leader that
never had them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from kvstore.machine import Machine
from kvstore.machine.membership import Member
from kvstore.node.config import NodeConfig
from kvstore.node.errors import DataDirUnusable
from kvstore.node.files import MemberFiles, SnapshotFile
from kvstore.node.membership import conf_change
from kvstore.storage.errors import (
    DiskFailed,
    SnapshotCorrupt,
    StorageError,
    StoreCorrupt,
    StoreFull,
    WalCorrupt,
)
from kvstore.storage.fault_points import disk_point
from kvstore.storage.wal import Recovered, Wal
from raft.types import ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState

__all__ = ("Start", "recover")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """What Raft starts from."""

    hard_state: HardState
    conf: ConfState
    """As of the machine's applied index."""
    base: tuple[int, int]
    """Index and term of the entry before `entries`."""
    entries: list[Entry]


def recover(files: MemberFiles, config: NodeConfig) -> tuple[Wal, Start, Machine]:
    """Opens log and store; raises DataDirUnusable or a StorageError with advice."""
    machine = _trusted_machine(files)
    snapshots = files.snapshots()
    keep_after = min(
        [snapshot.index - 1 for snapshot in snapshots]
        if machine is None
        else [machine.applied_index - config.snapshot_catchup_entries],
        default=0,
    )
    try:
        wal, recovered = files.open_log(
            keep_after=max(0, keep_after), applied=0 if machine is None else machine.applied_index
        )
    except WalCorrupt:
        if machine is not None:
            # The store may be the only witness; the next try must be refused as well, even if
            # the machine is restarted before it.
            files.close_store_clean()
        raise
    disk_point("recovery.log_opened", files.log_dir)
    if recovered.torn is not None:
        _LOG.warning("the last write of the log was interrupted and cut off: %s", recovered.torn)
    if recovered.refilled_bytes:
        _LOG.warning(
            "the last segment of the log was %d bytes shorter than it was made, and was filled up "
            "with zeros",
            recovered.refilled_bytes,
        )
    if machine is None or not _fits(machine.applied_index, machine.applied_term, recovered):
        machine = _rebuild(files, snapshots, recovered)
        disk_point("recovery.rebuilt", files.log_dir)
    if config.force_new_cluster:
        start = _alone(wal, recovered, machine)
    else:
        start = _start(recovered, machine)
    return wal, start, machine


def _trusted_machine(files: MemberFiles) -> Machine | None:
    """The machine on the store as it is; None if that must not be believed."""
    if not files.store_trusted():
        _LOG.warning("the store was not closed in order before the machine went down")
        return None
    try:
        machine = Machine(files.open_store(), files.machine_config)
    except (DiskFailed, StoreFull):
        # That says nothing about the store; a new one would fare no better.
        raise
    except StorageError as error:
        _LOG.error("the store cannot be used: %s", error)
        return None
    disk_point("recovery.store_opened", files.log_dir)
    return machine


def _last_index(recovered: Recovered) -> int:
    return recovered.entries[-1].index if recovered.entries else recovered.base[0]


def _term_at(recovered: Recovered, index: int) -> int | None:
    base_index, base_term = recovered.base
    if index == base_index:
        return base_term
    if base_index < index <= _last_index(recovered):
        return recovered.entries[index - base_index - 1].term
    return None


def _fits(index: int, term: int, recovered: Recovered) -> bool:
    """Whether a state at (index, term) is one that this log goes on from."""
    if index == 0:
        return recovered.base == (0, 0)
    return _term_at(recovered, index) == term


def _rebuild(files: MemberFiles, snapshots: list[SnapshotFile], recovered: Recovered) -> Machine:
    """The store anew, from the newest sound snapshot that the log continues."""
    files.close_store()
    files.set_store_aside()
    for snapshot in sorted(snapshots, reverse=True):
        if not _fits(snapshot.index, snapshot.term, recovered):
            continue
        try:
            store = files.rebuild_store(snapshot.index, snapshot.term)
        except (SnapshotCorrupt, StoreCorrupt, DiskFailed) as error:
            if isinstance(error, DiskFailed) and error.path != snapshot.path:
                raise  # Not the snapshot: what is written in its place. The data may be sound.
            _LOG.error("snapshot %s cannot be used: %s", snapshot.path, error)
            continue
        _LOG.warning("the store was rebuilt from %s", snapshot.path)
        return Machine(store, files.machine_config)
    if recovered.base == (0, 0):
        # Nothing was ever cut: the log alone has it all.
        return Machine(files.open_store(), files.machine_config)
    raise DataDirUnusable(
        f"the log in {files.log_dir} begins behind index {recovered.base[0]}, and no sound "
        f"snapshot in {files.snapshot_dir} leads up to it, so this member's state cannot be put "
        "together. "
        "Replace this member: on a healthy one run `member remove` for it, move the data "
        "directory aside, run `member add`, and start it with --initial-cluster-state=existing."
    )


def _start(recovered: Recovered, machine: Machine) -> Start:
    hard_state = recovered.hard_state
    # The commit index is written lazily; what was applied was committed.
    commit = max(hard_state.commit, machine.applied_index)
    return Start(
        hard_state._replace(commit=commit),
        machine.conf_state(),
        recovered.base,
        recovered.entries,
    )


def _alone(wal: Wal, recovered: Recovered, machine: Machine) -> Start:
    """--force-new-cluster: this member goes on as the only one, from what is committed.

    Everything committed is applied first, so that the members are known; what is not committed
    is dropped; then the log says that everybody else was removed.
    """
    start = _start(recovered, machine)
    commit = start.hard_state.commit
    committed = [entry for entry in start.entries if entry.index <= commit]
    todo = [entry for entry in committed if entry.index > machine.applied_index]
    if todo:
        batch = machine.begin(todo, ())
        while not batch.step():
            pass
    own_id = wal.identity.member_id
    term = start.hard_state.term + 1
    changes: list[ConfChange] = []
    own = machine.members.get(own_id)
    if own is None:
        raise DataDirUnusable(
            f"--force-new-cluster: member {own_id:x} is not a member of the state it holds."
        )
    if own.is_learner:
        changes.append(conf_change(ConfChangeKind.ADD_VOTER, own, promote=True)(0))
    changes += [
        conf_change(ConfChangeKind.REMOVE, Member(member_id))(0)
        for member_id in sorted(machine.members)
        if member_id != own_id
    ]
    appended = [
        Entry(index, term, EntryKind.CONF_CHANGE, change.encode())
        for index, change in enumerate(changes, start=commit + 1)
    ]
    hard_state = HardState(term, own_id, commit + len(appended))
    wal.write(wal.encode(hard_state, appended), True)
    _LOG.warning("starting as the only member; %d others were removed", len(changes))
    return Start(hard_state, machine.conf_state(), start.base, committed + appended)
