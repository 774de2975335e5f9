"""A local copy of a prefix as a function of what was read and what a watch delivered.

No thread, no task, no clock: the clients' tree caches read, watch, and hand both in here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from kvstore.client import operations
from kvstore.client.keys import Key, span, to_bytes
from kvstore.client.limits import SCAN_PAGE
from kvstore.client.recipes.line import strange_answer
from kvstore.client.recipes.steps import Program
from kvstore.client.values import Event, KeyValue, RangeResult

__all__ = ("Tree", "TreeChange", "TreeEvent", "read_tree")


class TreeChange(Enum):
    """What happened to a tree cache's copy."""

    ADDED = "added"
    UPDATED = "updated"
    REMOVED = "removed"
    READY = "ready"
    """The first reading is complete; it was told as ADDED before."""
    REREAD = "reread"
    """History was compacted while we were away: the tree was read anew. The differences were told
    before; what came and went in between was not."""


@dataclass(frozen=True, slots=True)
class TreeEvent:
    """A change of the copy; `kv` is None after REMOVED, `before` is what was there."""

    change: TreeChange
    revision: int
    key: bytes = b""
    kv: KeyValue | None = None
    before: KeyValue | None = None


class Tree:
    """Keys and values of one prefix, all of the same `revision`."""

    def __init__(self, prefix: Key) -> None:
        self.prefix = to_bytes(prefix)
        self.revision = 0
        """Revision of the store that the copy shows; 0 = nothing was read yet."""
        self._kvs: dict[bytes, KeyValue] = {}

    def __len__(self) -> int:
        return len(self._kvs)

    def get(self, key: Key) -> KeyValue | None:
        return self._kvs.get(to_bytes(key))

    def items(self) -> tuple[KeyValue, ...]:
        """Everything, in the order of the keys."""
        return tuple(sorted(self._kvs.values(), key=lambda kv: kv.key))

    def children(self, path: Key) -> tuple[bytes, ...]:
        """The names one level below `path`, as if keys were paths with slashes."""
        base = to_bytes(path)
        if base and not base.endswith(b"/"):
            base += b"/"
        names = {
            key[len(base) :].split(b"/", 1)[0] for key in list(self._kvs) if key.startswith(base)
        }
        return tuple(sorted(names - {b""}))

    def load(self, kvs: Iterable[KeyValue], revision: int) -> list[TreeEvent]:
        """Take a complete reading; returns the differences, then READY or REREAD."""
        before, self._kvs = self._kvs, {kv.key: kv for kv in kvs}
        first, self.revision = self.revision == 0, revision
        events = [
            TreeEvent(TreeChange.REMOVED, revision, key, None, old)
            for key, old in before.items()
            if key not in self._kvs
        ]
        for key, kv in self._kvs.items():
            old = before.get(key)
            if old is None:
                events.append(TreeEvent(TreeChange.ADDED, revision, key, kv))
            elif old.mod_revision != kv.mod_revision:
                events.append(TreeEvent(TreeChange.UPDATED, revision, key, kv, old))
        events.append(TreeEvent(TreeChange.READY if first else TreeChange.REREAD, revision))
        return events

    def apply(self, changes: Iterable[Event], revision: int) -> list[TreeEvent]:
        """Take what a watch delivered up to `revision`; returns the changes in order."""
        events = []
        for each in changes:
            key, old = each.kv.key, self._kvs.get(each.kv.key)
            if each.is_delete:
                if self._kvs.pop(key, None) is not None:
                    at = each.kv.mod_revision
                    events.append(TreeEvent(TreeChange.REMOVED, at, key, None, old))
            else:
                self._kvs[key] = each.kv
                change = TreeChange.ADDED if old is None else TreeChange.UPDATED
                events.append(TreeEvent(change, each.kv.mod_revision, key, each.kv, old))
        self.revision = max(self.revision, revision)
        return events


def read_tree(prefix: bytes) -> Program[tuple[list[KeyValue], int]]:
    """Every key under `prefix`, page by page but of one revision; and that revision."""
    start, end = span(prefix, prefix=True)
    kvs: list[KeyValue] = []
    revision = 0
    while True:
        page: RangeResult = yield operations.range(
            start, range_end=end, limit=SCAN_PAGE, revision=revision
        )
        kvs.extend(page.kvs)
        revision = revision or page.header.revision
        if not page.more:
            return kvs, revision
        if not page.kvs:
            raise strange_answer()
        start = page.kvs[-1].key + b"\0"
