"""The virtual disk: a medium with a page cache that loses, tears and rots as real ones do.

`VirtualDisk` is the machine's: it outlives processes. `DiskSession` is what one incarnation of a
process uses (`kvstore.storage.disk.Disk`); when that process dies, every further call through it
raises `ProcessDied`, which no code under test can take for an error of its own.

A fault counts in `fired` when it really changed something, not when it was asked for.
"""

from __future__ import annotations

import errno
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvstore.storage.limits import SECTOR_BYTES
from tests.sim.medium import CrashPolicy, Inode
from tests.sim.names import Names
from tests.sim.prng import Prng
from tests.sim.session import DiskSession, DurableView, ProcessDied, SimFile

__all__ = (
    "CrashPolicy",
    "DiskSession",
    "DurableView",
    "Hook",
    "ProcessDied",
    "SimFile",
    "VirtualDisk",
)

Hook = Callable[[str, Path], None]
"""Called with the kind of an operation and its path."""

_COST_NS: Final = {
    "write": 20_000,
    "sync": 1_000_000,
    "sync dir": 1_000_000,
    "create": 50_000,
    "rename": 20_000,
    "unlink": 20_000,
    "make dir": 20_000,
    "read": 5_000,
    "store commit": 30_000,
    "store sync": 3_000_000,
}
_BYTE_NS: Final = 1
"""A gigabyte a second, on top."""
_UNBOUNDED_BYTES: Final = 1 << 40


@dataclass(slots=True)
class _Armed:
    kind: str
    skip: int
    errno: int
    name: str


class VirtualDisk:
    """One machine's disk. `operations` counts everything that changes something."""

    def __init__(self, prng: Prng, *, capacity_bytes: int | None = None) -> None:
        self.prng = prng
        self.capacity_bytes = capacity_bytes
        self.names = Names()
        self.boots = 1
        """Grows with each power loss; a boot id follows from it."""
        self.operations = 0
        self.fired: Counter[str] = Counter()
        self.on_operation: Hook | None = None
        """Called before an operation takes effect; may raise ProcessDied."""
        self.after_operation: Hook | None = None
        """Called after it took effect; may raise ProcessDied."""
        self.rates: dict[str, tuple[int, int]] = {}
        """Kind of operation → how often it fails with EIO (numerator, denominator)."""
        self.spent_ns = 0
        """Time that all operations took together."""
        self.slowness_percent = 100
        self.durable_changes = 0
        """Grows whenever what is durable may have changed."""
        self._armed: list[_Armed] = []
        self._inodes = 0

    # ---- processes and power ---------------------------------------------------------------

    def session(self) -> DiskSession:
        """The disk as one process uses it."""
        return DiskSession(self)

    def kill(self) -> None:
        """The process is gone; the page cache stays. Its session must be ended besides."""
        self.fired["kill"] += 1

    def power_loss(self, policy: CrashPolicy) -> None:
        """The machine is gone and comes back: what was not synced is as the policy has it."""
        self.fired[f"power loss: {policy.value}"] += 1
        self.names.power_loss(policy, self.prng, self.fired)
        for inode in self.names.files():
            inode.power_loss(policy, self.prng, self.fired)
        self.boots += 1
        self.durable_changes += 1

    def durable_view(self) -> DurableView:
        """What a power loss would leave at any later moment, everything unsynced dropped."""
        return DurableView(self)

    def copy(self) -> VirtualDisk:
        """The same disk once more, in every bit and in its future luck; hooks are not copied."""
        twin = VirtualDisk(self.prng.copy(), capacity_bytes=self.capacity_bytes)
        twins: dict[int, Inode] = {}

        def twin_of(inode: Inode) -> Inode:
            if inode.number not in twins:
                twins[inode.number] = inode.copy()
            return twins[inode.number]

        twin.names = self.names.copy(twin_of)
        twin.boots, twin.operations = self.boots, self.operations
        twin.rates = self.rates.copy()
        twin.slowness_percent = self.slowness_percent
        twin._inodes = self._inodes
        return twin

    def fingerprint(self) -> bytes:
        """A digest of all that processes see, and of what is not durable of it."""
        digest = hashlib.blake2b(digest_size=16)
        for line in self.names.pending():
            digest.update(line.encode())
        for path, inode in self.names.paths():
            facts = (path, inode.number, inode.size, inode.medium_size, inode.unsynced)
            digest.update(repr(facts).encode())
            for layer in (inode.medium, inode.cache):
                for number in sorted(layer):
                    digest.update(b"%d:" % number + layer[number])
            for image in (inode.image, inode.image_synced):
                digest.update(b"none" if image is None else image.fingerprint())
            digest.update(b"damaged" if inode.image_damaged else b"sound")
        return digest.digest()

    # ---- faults while it runs --------------------------------------------------------------

    def arm(self, kind: str, *, skip: int = 0, errno: int = errno.EIO, name: str = "") -> None:
        """One operation of this kind will fail: the one after `skip` others that match.

        `name`: only files whose path contains it.
        """
        assert kind in _COST_NS, kind
        self._armed.append(_Armed(kind, skip, errno, name))

    def disarm(self) -> None:
        """Nothing fails any more."""
        self._armed.clear()
        self.rates.clear()

    def failure_of(self, kind: str, path: Path) -> int:
        """The errno with which this operation is to fail; 0 for none."""
        for armed in self._armed:
            if armed.kind == kind and armed.name in str(path):
                if armed.skip == 0:
                    self._armed.remove(armed)
                    return armed.errno
                armed.skip -= 1
        rate = self.rates.get(kind)
        return errno.EIO if rate is not None and self.prng.chance(*rate) else 0

    def spend(self, kind: str, size_bytes: int = 0) -> None:
        """Notes the time that an operation takes."""
        cost_ns = _COST_NS[kind] + size_bytes * _BYTE_NS
        self.spent_ns += cost_ns * self.slowness_percent // 100

    def used_bytes(self) -> int:
        """What all files take; a hole counts like data."""
        return sum(inode.footprint_bytes() for inode in self.names.files())

    def free_bytes(self) -> int:
        """What is left for new data."""
        if self.capacity_bytes is None:
            return _UNBOUNDED_BYTES
        return max(0, self.capacity_bytes - self.used_bytes())

    def new_inode(self, size_bytes: int) -> Inode:
        """A new file without a name."""
        self._inodes += 1
        return Inode(self._inodes, size_bytes)

    # ---- damage at rest --------------------------------------------------------------------

    def content(self, path: Path) -> bytes:
        """What a file holds, as processes see it."""
        inode = self._file(path)
        return inode.read(0, inode.size)

    def replace(self, path: Path, content: bytes) -> None:
        """Gives a file another content, durably: a test's way to make any damage."""
        self._file(path).replace(content)
        self.durable_changes += 1

    def flip_bit(self, path: Path, bit: int) -> bool:
        """Bit rot. Whether anything changed, as with the other three."""
        inode = self._file(path)
        at = bit // 8
        if at >= inode.medium_size:
            return False
        old = inode.read(at, 1, durable=True)[0]
        return self._damaged("bit flipped", inode, at, bytes([old ^ 1 << bit % 8]))

    def zero_sector(self, path: Path, sector: int) -> bool:
        """A sector reads as zeros."""
        inode = self._file(path)
        return self._damaged("sector zeroed", inode, sector * SECTOR_BYTES, bytes(SECTOR_BYTES))

    def stale_sector(self, path: Path, sector: int) -> bool:
        """A sector holds what it held before it was last written: the write was lost."""
        inode = self._file(path)
        older = inode.older_sector(sector)
        return self._damaged("sector stale", inode, sector * SECTOR_BYTES, older)

    def misdirect(self, path: Path, sector: int, target: Path, target_sector: int) -> bool:
        """The last write of a sector went to another one; its own place kept what was there."""
        inode, other = self._file(path), self._file(target)
        data = inode.read(sector * SECTOR_BYTES, SECTOR_BYTES, durable=True)
        hit = self._damaged("write misdirected", other, target_sector * SECTOR_BYTES, data)
        return self.stale_sector(path, sector) or hit

    def _damaged(self, kind: str, inode: Inode, offset: int, data: bytes) -> bool:
        changed = inode.damage(offset, data)
        if changed:
            self.fired[kind] += 1
            self.durable_changes += 1
        return changed

    def _file(self, path: Path) -> Inode:
        inode = self.names.find(path)
        if inode is None:
            raise FileNotFoundError(path)
        return inode
