"""Damage at rest: bits flip and sectors are lost, as far as the atlas allows.

The atlas hits only a member whose every entry a quorum of undamaged members has on disk, and only
in ways that checksums can tell. Seeds beyond the atlas do not ask who is undamaged.
"""

from __future__ import annotations

from pathlib import Path

from kvstore.storage.limits import SECTOR_BYTES
from tests.sim.cluster import Cluster
from tests.sim.prng import Prng
from tests.sim.process import Process

__all__ = ("Rot",)


class Rot:
    """Whose files may be damaged, and how that is done."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._rotten: dict[str, None] = {}

    def victims(self) -> list[Process]:
        """The members that may be damaged now."""
        return [p for p in self.cluster.processes.values() if p.begun and self._may_rot(p)]

    def _may_rot(self, victim: Process) -> bool:
        """Whether everything that this member has is on the disks of a clean quorum besides."""
        if victim.spoilt:
            return False
        if not self.cluster.params.within_atlas:
            return True
        machines = {m.id: self.cluster.of_member(m.id) for m in self.cluster.members().values()}
        own = machines.get(victim.member_id)
        voters = [m.id for m in self.cluster.members().values() if not m.is_learner]
        if own is not victim or victim.running is None or not victim.alive:
            return False
        last = victim.core.raft.last_index
        clean = 0
        for member_id in voters:
            process = machines[member_id]
            if process is None or process is victim or process.name in self._rotten:
                continue
            if not process.alive or process.running is None or process.spoilt:
                continue
            clean += process.core.raft.stable_index >= last
        pending = victim.core.raft.conf.voters
        return clean >= len(voters) // 2 + 1 and clean >= len(pending) // 2 + 1

    def damage(self, victim: Process, chance: Prng) -> str:
        """Spoils some file of a member; what it did, empty if there was nothing to spoil."""
        done = self._damage(victim, chance)
        if done:
            self._rotten[victim.name] = None
        return done

    def _damage(self, victim: Process, chance: Prng) -> str:
        disk = victim.disk
        files = {name: [] for name in ("wal", "snap", "store")}  # type: dict[str, list[Path]]
        for path, inode in disk.names.paths():
            if "/wal/" in path and inode.medium_size:
                files["wal"].append(Path(path))
            elif path.endswith(".kvs") and inode.medium_size:
                files["snap"].append(Path(path))
            elif path.endswith("store.mdb") and inode.image is not None:
                files["store"].append(Path(path))
        what = chance.weighted([(4, "wal"), (2, "snap"), (2, "store")])
        if not files[what]:
            return ""
        if what == "store":
            inode = disk.names.find(files["store"][0])
            assert inode is not None
            inode.image_damaged = True
            disk.fired["store page flipped"] += 1
            disk.durable_changes += 1
            return "the store"
        segments = sorted(files[what])
        path = chance.pick(segments)
        content = disk.content(path).rstrip(b"\0")
        if not content:
            return ""
        if what == "snap" or path == segments[-1] or chance.chance(1, 2):
            # In the last segment only a flipped bit is sure to be told from a torn write.
            return f"{path} flipped" if disk.flip_bit(path, chance.below(8 * len(content))) else ""
        sector = chance.below(len(content) // SECTOR_BYTES + 1)
        other = chance.below(len(content) // SECTOR_BYTES + 1)
        kind = chance.pick(("zero", "stale", "misdirect"))
        if kind == "zero":
            done = disk.zero_sector(path, sector)
        elif kind == "stale":
            done = disk.stale_sector(path, sector)
        else:
            done = disk.misdirect(path, sector, path, other)
        return f"{path} {kind}" if done else ""
