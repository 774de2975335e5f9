"""Backups offline: what is in one, and a new member's data directory made from one.

All members of a restored cluster are made from the same backup with the same --initial-cluster
and --initial-cluster-token, and then start from the same state: the keys, leases and revision of
the backup, with the new members instead of the old ones. Their logs begin behind the backup's
index, not where a cluster without history begins: a member that is started empty by mistake does
not fit in and is given the state by the leader.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvstore.machine import Machine, MachineConfig
from kvstore.machine.jobs import run
from kvstore.machine.membership import Member
from kvstore.machine.meta import put_member
from kvstore.machine.tables import ALARMS, MEMBERS, REMOVED, REVISIONS
from kvstore.node.bootstrap import first_members
from kvstore.node.config import NodeConfig
from kvstore.node.errors import StartupError
from kvstore.node.files import MemberFiles
from kvstore.node.host import OsHost
from kvstore.node.membership import cluster_id_of, member_id_of
from kvstore.storage.backup import unwrap
from kvstore.storage.disk import OsDisk
from kvstore.storage.errors import SnapshotCorrupt, StorageError
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.snapshot import SnapshotHeader, extract_to
from kvstore.storage.store import Store
from kvstore.storage.wal import WalIdentity
from raft.types import NO_NODE, HardState

__all__ = ("RestoreError", "Restored", "SnapshotStatus", "restore", "snapshot_status")


class RestoreError(Exception):
    """A backup cannot be used, or not with these settings; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """What a backup holds."""

    hash: int
    """CRC-32C over the whole state, as Maintenance.Hash gives it."""
    revision: int
    keys: int
    """Versions of keys, deletions included."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Restored:
    """A data directory that was made."""

    data_dir: Path
    member_id: int
    cluster_id: int
    revision: int


def snapshot_status(backup: Path) -> SnapshotStatus:
    """Checks a backup from its first byte to its last and opens it; raises RestoreError."""
    disk = OsDisk()
    with tempfile.TemporaryDirectory(prefix=".kvstore-", dir=backup.resolve().parent) as name:
        path, _ = _unwrapped(disk, backup, Path(name), True)
        image = Path(name) / "store.mdb"
        extract_to(disk, path, image)
        path.unlink()
        store = LmdbStore(image, Machine.TABLES)
        try:
            machine = Machine(store, MachineConfig())
            with machine.view() as view:
                state_hash = run(view.hash())
            txn = store.read()
            try:
                keys = txn.count(REVISIONS)
            finally:
                txn.close()
            return SnapshotStatus(state_hash, machine.revision, keys, backup.stat().st_size)
        finally:
            store.close()


def restore(
    backup: Path,
    *,
    name: str,
    data_dir: Path,
    wal_dir: Path | None,
    initial_cluster: Mapping[str, tuple[str, ...]],
    token: str,
    advertise_peer_urls: Sequence[str],
    check_hash: bool = True,
) -> Restored:
    """Makes `data_dir`, from which `kvstore serve` starts a member of a new cluster.

    Raises RestoreError. What an attempt that failed left behind is removed.
    """
    config = _config(name, data_dir, wal_dir, initial_cluster, token, tuple(advertise_peer_urls))
    for directory in (data_dir, wal_dir):
        if directory is not None and directory.exists() and any(directory.iterdir()):
            raise RestoreError(f'data-dir "{directory}" exists and is not empty; name another one')
    try:
        members = first_members(initial_cluster, token)
        files = MemberFiles.lock(config, OsHost())
        try:
            return _fill(files, config, backup, members, check_hash=check_hash)
        finally:
            files.close(clean=True)
    except BaseException as error:
        for directory in (data_dir, wal_dir):
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, (StartupError, StorageError)):
            raise RestoreError(str(error)) from None
        raise


def _config(
    name: str,
    data_dir: Path,
    wal_dir: Path | None,
    initial_cluster: Mapping[str, tuple[str, ...]],
    token: str,
    own: tuple[str, ...],
) -> NodeConfig:
    """The settings of the member, checked against each other."""
    if name not in initial_cluster:
        known = ", ".join(initial_cluster) or "nobody"
        raise RestoreError(
            f'couldn\'t find local name "{name}" in the initial cluster configuration, which has'
            f" {known}; make --name one of them"
        )
    if sorted(initial_cluster[name]) != sorted(own):
        raise RestoreError(
            f"--initial-cluster has {name} at {','.join(initial_cluster[name])}, but"
            f" --initial-advertise-peer-urls is {','.join(own)}; they must be the same"
        )
    return NodeConfig(
        name=name,
        data_dir=data_dir,
        wal_dir=wal_dir,
        listen_peer_urls=own,
        advertise_peer_urls=own,
        advertise_client_urls=(),
        initial_cluster=initial_cluster,
        initial_cluster_token=token,
    )


def _fill(
    files: MemberFiles,
    config: NodeConfig,
    backup: Path,
    members: Mapping[int, Member],
    *,
    check_hash: bool,
) -> Restored:
    _, header = _unwrapped(OsDisk(), backup, files.snapshot_dir, check_hash)
    store = files.rebuild_store(header.index, header.term)
    _replace_members(store, members)
    revision = Machine(store, files.machine_config).revision
    cluster_id = cluster_id_of(members)
    own_id = member_id_of(config.initial_cluster[config.name], config.initial_cluster_token)
    # It takes the place of the one from the backup. The log, which makes the directory count,
    # comes last.
    files.write_snapshot(cluster_id)
    hard_state = HardState(term=header.term, vote=NO_NODE, commit=header.index)
    wal = files.create_log(WalIdentity(cluster_id, own_id), (header.index, header.term), hard_state)
    wal.close()
    return Restored(config.data_dir, own_id, cluster_id, revision)


def _unwrapped(
    disk: OsDisk, backup: Path, directory: Path, check_hash: bool
) -> tuple[Path, SnapshotHeader]:
    try:
        return unwrap(disk, backup, directory, check_hash=check_hash)
    except SnapshotCorrupt as error:
        raise RestoreError(
            f"{backup} cannot be used: {error.why} (byte {error.offset}); take another backup"
        ) from None


def _replace_members(store: Store, members: Mapping[int, Member]) -> None:
    """The new members instead of the old; their ids are new too, so nothing of the old counts."""
    txn = store.write()
    try:
        for table in (MEMBERS, REMOVED, ALARMS):
            for key in [key for key, _ in txn.scan(table)]:
                txn.delete(table, key)
        for number, member in members.items():
            put_member(txn, number, member)
        txn.commit()
    finally:
        txn.close()
