"""Which of many key ranges cover a key: an interval tree that grows and shrinks.

A treap: a search tree by (start, end) that is at the same time a heap by random priority, which
keeps it balanced whatever the order of insertion. Each node also knows the largest `end` below
it (`top`), so a search skips every subtree that ends before the key: O(log n + hits).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

__all__ = ("RangeTree",)

T = TypeVar("T")

_PRIORITIES: Final = 1 << 30


class _Node(Generic[T]):
    __slots__ = ("end", "left", "priority", "right", "start", "top", "value")

    def __init__(self, start: bytes, end: bytes, value: T, priority: int) -> None:
        self.start = start
        self.end = end
        self.value = value
        self.priority = priority
        self.left: _Node[T] | None = None
        self.right: _Node[T] | None = None
        self.top = end

    def before(self, start: bytes, end: bytes) -> bool:
        return (self.start, self.end) < (start, end)

    def refresh(self) -> _Node[T]:
        """Derives `top` again after a child changed."""
        top = self.end
        if self.left is not None and self.left.top > top:
            top = self.left.top
        if self.right is not None and self.right.top > top:
            top = self.right.top
        self.top = top
        return self


class RangeTree(Generic[T]):
    """Half-open ranges [start, end), each with a value; a range stands in it once."""

    __slots__ = ("_random", "_root", "_size")

    def __init__(self, random: Callable[[int], int]) -> None:
        """`random(n)` gives 0 … n-1; it decides only the shape of the tree."""
        self._random = random
        self._root: _Node[T] | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, start: bytes, end: bytes, value: T) -> None:
        """Adds a range that is not in the tree."""
        assert start < end, f"an empty range: {start!r} to {end!r}"
        self._root = _insert(self._root, _Node(start, end, value, self._random(_PRIORITIES)))
        self._size += 1

    def remove(self, start: bytes, end: bytes) -> None:
        """Removes a range that is in the tree."""
        self._root = _remove(self._root, start, end)
        self._size -= 1

    def covering(self, key: bytes) -> list[T]:
        """The values of all ranges with start <= key < end."""
        found: list[T] = []
        pending = [self._root]
        while pending:
            node = pending.pop()
            if node is None or node.top <= key:
                continue
            pending.append(node.left)
            if node.start <= key:
                if key < node.end:
                    found.append(node.value)
                pending.append(node.right)
        return found


def _insert(node: _Node[T] | None, new: _Node[T]) -> _Node[T]:
    if node is None:
        return new
    if new.priority > node.priority:
        new.left, new.right = _split(node, new.start, new.end)
        return new.refresh()
    if node.before(new.start, new.end):
        node.right = _insert(node.right, new)
    else:
        node.left = _insert(node.left, new)
    return node.refresh()


def _split(
    node: _Node[T] | None, start: bytes, end: bytes
) -> tuple[_Node[T] | None, _Node[T] | None]:
    """The nodes before (start, end), and the others."""
    if node is None:
        return None, None
    if node.before(start, end):
        node.right, rest = _split(node.right, start, end)
        return node.refresh(), rest
    rest, node.left = _split(node.left, start, end)
    return rest, node.refresh()


def _merge(low: _Node[T] | None, high: _Node[T] | None) -> _Node[T] | None:
    """One tree of two whose nodes are all in order."""
    if low is None or high is None:
        return high if low is None else low
    if low.priority > high.priority:
        low.right = _merge(low.right, high)
        return low.refresh()
    high.left = _merge(low, high.left)
    return high.refresh()


def _remove(node: _Node[T] | None, start: bytes, end: bytes) -> _Node[T] | None:
    assert node is not None, f"no such range: {start!r} to {end!r}"
    if node.before(start, end):
        node.right = _remove(node.right, start, end)
    elif (node.start, node.end) == (start, end):
        return _merge(node.left, node.right)
    else:
        node.left = _remove(node.left, start, end)
    return node.refresh()
