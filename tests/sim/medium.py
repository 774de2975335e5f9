"""One file of the virtual disk: what the medium holds, and what only the page cache holds.

Content is sparse: a dict of 4 KiB pages, a missing one is zeros. The cache holds nothing but the
pages in which it differs from the medium, so neither a write nor a sync nor a copy costs more
than what was written.

A cached page is *dirty* (a sync writes it) or a *lie*: a sync failed, the page was marked clean,
and reads show data that the medium never got, until the page is dropped from the cache.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from kvstore.storage.limits import SECTOR_BYTES
from tests.sim.prng import Prng

__all__ = ("PAGE_BYTES", "CrashPolicy", "Image", "Inode", "Write", "kept_of")

PAGE_BYTES: Final = 4096
_ZERO_PAGE: Final = bytes(PAGE_BYTES)


class CrashPolicy(Enum):
    """What a power loss leaves of that which was not synced."""

    DROP_ALL = "drop all"
    KEEP_PREFIX = "keep a prefix"
    KEEP_SUBSET = "keep any writes, and any sectors of some"
    TEAR_LAST = "tear the last write"
    ZERO_SECTOR = "lose one sector of the writes"


class Write(NamedTuple):
    """An unsynced write; with no data, the file reaches to `offset` at least."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.offset + len(self.data)


class Image(Protocol):
    """The committed state of a store; never changes (see `store.py`)."""

    size_bytes: int

    def mixed_with(self, older: Image | None, prng: Prng) -> Image:
        """Some tables of an older state among those of this one."""

    def fingerprint(self) -> bytes:
        """A digest of all records."""


Pages = dict[int, bytes]


class Inode:
    """A file, whatever its names are. `number` tells files apart."""

    __slots__ = (
        "cache",
        "dirty",
        "image",
        "image_damaged",
        "image_synced",
        "medium",
        "medium_size",
        "number",
        "older",
        "size",
        "unsynced",
    )

    def __init__(self, number: int, size_bytes: int = 0) -> None:
        self.number = number
        self.size = size_bytes
        """As processes see it."""
        self.medium_size = 0
        self.medium: Pages = {}
        self.older: Pages = {}
        """What stood in a page before the last sync that changed it."""
        self.cache: Pages = {}
        self.dirty: set[int] = set()
        self.unsynced: list[Write] = [Write(size_bytes, b"")]
        self.image: Image | None = None
        """The last commit of a store that is or was open in this file; instead of the bytes."""
        self.image_synced: Image | None = None
        """The last that was made durable."""
        self.image_damaged = False

    def copy(self) -> Inode:
        """The same file on a copy of the disk."""
        twin = Inode(self.number, self.size)
        twin.medium_size = self.medium_size
        twin.medium = self.medium.copy()
        twin.older = self.older.copy()
        twin.cache = self.cache.copy()
        twin.dirty = self.dirty.copy()
        twin.unsynced = self.unsynced.copy()
        twin.image, twin.image_synced = self.image, self.image_synced
        twin.image_damaged = self.image_damaged
        return twin

    def footprint_bytes(self) -> int:
        """What it takes of the disk's capacity."""
        return max(self.size, 0 if self.image is None else self.image.size_bytes)

    def read(self, offset: int, size_bytes: int, *, durable: bool = False) -> bytes:
        """What a process sees there, or what the medium holds."""
        end = min(offset + size_bytes, self.medium_size if durable else self.size)
        pieces = []
        while offset < end:
            number, at = divmod(offset, PAGE_BYTES)
            page = None if durable else self.cache.get(number)
            if page is None:
                page = self.medium.get(number, _ZERO_PAGE)
            piece = page[at : at + end - offset] if at or end - offset < PAGE_BYTES else page
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, offset: int, data: bytes) -> None:
        """A process writes; nothing of it is durable."""
        self.unsynced.append(Write(offset, data))
        self.size = max(self.size, offset + len(data))
        for number, page in _pages_with(offset, data, self.cache, self.medium):
            self.cache[number] = page
            self.dirty.add(number)

    def sync(self) -> bool:
        """All dirty pages reach the medium; False if the cache goes on telling lies."""
        for number in sorted(self.dirty):
            self.older[number] = self.medium.get(number, _ZERO_PAGE)
            self.medium[number] = self.cache.pop(number)
        self.dirty.clear()
        self.unsynced.clear()
        self.medium_size = self.size
        return not self.cache

    def sync_failed(self, prng: Prng) -> None:
        """Some of it reached the medium, and the rest is marked clean all the same."""
        self._put_on_medium([write for write in self.unsynced if prng.chance(1, 3)])
        self.dirty.clear()
        self.unsynced.clear()

    def drop_cache(self) -> int:
        """Lets go of clean pages, and with them of the lies; how many there were."""
        lies = [number for number in self.cache if number not in self.dirty]
        for number in lies:
            del self.cache[number]
        return len(lies)

    def power_loss(self, policy: CrashPolicy, prng: Prng, fired: Counter[str]) -> None:
        """Leaves on the medium what the policy makes of the unsynced writes; no cache."""
        if self.unsynced:
            kept = kept_of(self.unsynced, policy, prng)
            fired["write lost"] += len(self.unsynced) - len(kept)
            if kept != self.unsynced[: len(kept)]:
                fired["writes reordered"] += 1
            self._put_on_medium(_broken(kept, policy, prng, fired))
            self.unsynced.clear()
        self.cache.clear()
        self.dirty.clear()
        self.size = self.medium_size
        self._lose_image(policy, prng, fired)

    def damage(self, offset: int, data: bytes) -> bool:
        """Changes bytes of the medium behind everybody's back; False if they were so already."""
        data = data[: max(0, self.medium_size - offset)]
        if self.read(offset, len(data), durable=True) == data:
            return False
        for number, page in _pages_with(offset, data, self.medium):
            self.medium[number] = page
            if number not in self.dirty:
                self.cache.pop(number, None)
        self.image_damaged = self.image is not None
        return True

    def older_sector(self, sector: int) -> bytes:
        """What the medium held there before it was last written."""
        number, at = divmod(sector * SECTOR_BYTES, PAGE_BYTES)
        return self.older.get(number, _ZERO_PAGE)[at : at + SECTOR_BYTES]

    def replace(self, content: bytes) -> None:
        """Makes this the content, durably and without a cache: a test's way to damage."""
        self.medium = dict(_pages_with(0, content, {}))
        self.size = self.medium_size = len(content)
        self.cache.clear()
        self.dirty.clear()
        self.unsynced.clear()
        self.image = self.image_synced = None
        self.image_damaged = False

    def _put_on_medium(self, writes: list[Write]) -> None:
        for write in writes:
            self.medium_size = max(self.medium_size, write.end)
            for number, page in _pages_with(write.offset, write.data, self.medium):
                self.older[number] = self.medium.get(number, _ZERO_PAGE)
                self.medium[number] = page

    def _lose_image(self, policy: CrashPolicy, prng: Prng, fired: Counter[str]) -> None:
        """Unsynced commits of a store: an older state, some tables of one, or rubbish."""
        if self.image is self.image_synced:
            return
        fired["store commits lost"] += 1
        if policy is CrashPolicy.DROP_ALL:
            self.image = self.image_synced
        elif policy is CrashPolicy.TEAR_LAST and self.image is not None:
            # The file looks whole and mixes two states: only distrust keeps it from being used.
            self.image = self.image.mixed_with(self.image_synced, prng)
        else:
            self.image_damaged = True
        self.image_synced = self.image


def kept_of(changes: list[Any], policy: CrashPolicy, prng: Prng) -> list[Any]:
    """Which unsynced changes count after all; the order among those is kept."""
    if policy is CrashPolicy.DROP_ALL:
        return []
    if policy is CrashPolicy.KEEP_PREFIX:
        return changes[: prng.below(len(changes) + 1)]
    if policy is CrashPolicy.KEEP_SUBSET:
        return [change for change in changes if prng.chance(1, 2)]
    return changes


def _broken(kept: list[Write], policy: CrashPolicy, prng: Prng, fired: Counter[str]) -> list[Write]:
    """The same writes with some of their sectors missing."""
    if policy is CrashPolicy.KEEP_SUBSET:
        return [
            piece
            for write in kept
            for piece in (_some_sectors(write, prng, fired) if prng.chance(1, 2) else [write])
        ]
    if policy is CrashPolicy.TEAR_LAST and kept and kept[-1].data:
        *before, last = kept
        sectors = _sectors(last)
        fired["write torn"] += 1
        size = [Write(last.end, b"")] if prng.chance(1, 2) else []
        return before + size + sectors[: prng.below(len(sectors))]
    if policy is CrashPolicy.ZERO_SECTOR:
        written = [number for number, write in enumerate(kept) if write.data]
        if written:
            number = prng.pick(written)
            sectors = _sectors(kept[number])
            lost = sectors.pop(prng.below(len(sectors)))
            fired["sector lost"] += 1
            return [
                *kept[:number],
                Write(kept[number].end, b""),
                *sectors,
                Write(lost.offset, bytes(len(lost.data))),
                *kept[number + 1 :],
            ]
    return kept


def _some_sectors(write: Write, prng: Prng, fired: Counter[str]) -> list[Write]:
    sectors = _sectors(write)
    kept = [sector for sector in sectors if prng.chance(1, 2)]
    if len(kept) < len(sectors):
        fired["write torn"] += 1
    return kept


def _sectors(write: Write) -> list[Write]:
    """A write cut at the sectors' borders."""
    pieces = []
    at = write.offset
    while at < write.end:
        end = min(at // SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES, write.end)
        pieces.append(Write(at, write.data[at - write.offset : end - write.offset]))
        at = end
    return pieces


def _pages_with(offset: int, data: bytes, *layers: Pages) -> list[tuple[int, bytes]]:
    """The pages that `data` touches, with it in them; what else they hold is from `layers`."""
    result = []
    done = 0
    while done < len(data):
        number, at = divmod(offset + done, PAGE_BYTES)
        piece = data[done : done + PAGE_BYTES - at]
        if len(piece) < PAGE_BYTES:
            page = _ZERO_PAGE
            for layer in layers:
                if number in layer:
                    page = layer[number]
                    break
            piece = page[:at] + piece + page[at + len(piece) :]
        result.append((number, piece))
        done += min(PAGE_BYTES - at, len(data) - done)
    return result
