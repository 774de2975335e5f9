"""Which byte of an LMDB file is what: the tables' trees, page by page, from the format itself.

Of LMDB's format (`struct MDB_page`, `MDB_node`, `MDB_db`, `MDB_meta` in its `mdb.c`) only as much
is read here as it takes to find every page that a reader can reach.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ("PAGE_BYTES", "Region", "regions")

PAGE_BYTES: Final = 4096
_PAGE: Final = struct.Struct("<QHHHH")
"""Number, padding, flags, end of the node pointers, start of the nodes."""
_NODE: Final = struct.Struct("<HHHH")
"""Size or page (low, high, and for branches flags as the highest), size of the key."""
_TREE: Final = struct.Struct("<IHHQQQQQ")
"""Padding, flags, depth, branch, leaf and overflow pages, records, root."""
_META: Final = struct.Struct("<IIQQ")
_BRANCH, _LEAF = 1, 2
_BIG, _SUBTREE = 1, 2
_NO_PAGE: Final = (1 << 64) - 1


class Region(NamedTuple):
    """Bytes start..end of the file and what stands there, such as ("keys", "leaf", "header")."""

    table: str
    page: str
    part: str
    start: int
    end: int

    @property
    def kind(self) -> tuple[str, str, str]:
        """What stands there."""
        return self.table, self.page, self.part


@dataclass(slots=True)
class _Walk:
    data: bytes
    found: list[Region]

    def tree(self, table: str, record: bytes) -> None:
        root = _TREE.unpack(record)[-1]
        if root != _NO_PAGE:
            self.page(table, root)

    def page(self, table: str, number: int) -> None:
        at = number * PAGE_BYTES
        own, _, flags, lower, upper = _PAGE.unpack_from(self.data, at)
        assert own == number, (own, number)
        kind = "branch" if flags & _BRANCH else "leaf"
        self.add(table, kind, "header", at, at + _PAGE.size)
        self.add(table, kind, "pointers", at + _PAGE.size, at + lower)
        self.add(table, kind, "free space", at + lower, at + upper)
        for position in range(at + _PAGE.size, at + lower, 2):
            node = at + int.from_bytes(self.data[position : position + 2], "little")
            self.node(table, kind, node)

    def node(self, table: str, kind: str, node: int) -> None:
        low, high, flags, key_bytes = _NODE.unpack_from(self.data, node)
        key_at = node + _NODE.size
        value_at = key_at + key_bytes
        self.add(table, kind, "node header", node, key_at)
        self.add(table, kind, "key", key_at, value_at)
        if kind == "branch":
            self.page(table, low | high << 16 | flags << 32)
            return
        size = low | high << 16
        if flags & _SUBTREE:
            name = self.data[key_at:value_at].decode()
            record = self.data[value_at : value_at + _TREE.size]
            self.add(table, kind, "tree record", value_at, value_at + _TREE.size)
            self.tree(name, record)
        elif flags & _BIG:
            self.add(table, kind, "overflow number", value_at, value_at + 8)
            at = PAGE_BYTES * int.from_bytes(self.data[value_at : value_at + 8], "little")
            self.add(table, "overflow", "header", at, at + _PAGE.size)
            self.add(table, "overflow", "value", at + _PAGE.size, at + _PAGE.size + size)
        else:
            self.add(table, kind, "value", value_at, value_at + size)

    def add(self, table: str, page: str, part: str, start: int, end: int) -> None:
        if end > start:
            self.found.append(Region(table, page, part, start, end))


def regions(data: bytes) -> list[Region]:
    """All that can be reached from the newer meta page, the meta pages, and what is left over."""
    walk = _Walk(data, [])
    newest = max((0, PAGE_BYTES), key=lambda at: _transaction(data, at))
    for at in (0, PAGE_BYTES):
        part = "newer" if at == newest else "older"
        walk.add("meta", "meta", f"{part}, header", at, at + _PAGE.size)
        start = at + _PAGE.size
        walk.add("meta", "meta", part, start, start + _META.size + 2 * _TREE.size + 16)
    trees = newest + _PAGE.size + _META.size
    for number, name in enumerate(("free list", "list of tables")):
        record = data[trees + number * _TREE.size :][: _TREE.size]
        walk.tree(name, record)
    used = bytearray(len(data) // PAGE_BYTES)
    for region in walk.found:
        for number in range(region.start // PAGE_BYTES, -(-region.end // PAGE_BYTES)):
            used[number] = 1
    for number in range(len(used)):
        if not used[number]:
            at = number * PAGE_BYTES
            walk.add("unused", "unused", "unused", at, at + PAGE_BYTES)
    return walk.found


def _transaction(data: bytes, at: int) -> int:
    end = at + _PAGE.size + _META.size + 2 * _TREE.size + 16
    return int.from_bytes(data[end - 8 : end], "little")
