"""Keys of any length in an engine that takes 511 bytes: a trie of 400-byte segments.

A key of up to 400 bytes stands as it is in the table's *root* database. A longer one is cut into
full segments of 400 bytes and a last piece of 1 to 400. The first segment, with one zero byte
behind it, maps to the 8-byte id of a node; in the *tail* database that id, followed by the next
segment and a zero byte, maps to the next node; and the id followed by the last piece maps to the
value:

    root   k[:400] + 00          → node 1
    tail   node 1 + k[400:800] + 00  → node 2
    tail   node 2 + k[800:]      → value

Order is kept: a pointer's 401 bytes come right behind the 400-byte key that equals its segment
and before every key that is greater, which is where all longer keys with that segment belong;
no other stored key is that long, so its length tells a pointer. The same holds behind an id.

A node exists as long as anything stands behind its id. A new id is one more than the greatest in
use. The record `NODES` (one byte, so before all ids) counts the nodes, so that a table's records
can be counted without a walk: every node has exactly one pointer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

from .limits import KEY_BYTES_MAX

__all__ = ("ID_BYTES", "NODES", "Engine", "LongKeys", "pointer_of", "remainder")

ID_BYTES: Final = 8
NODES: Final = b"\0"
_ROOT: Final = b""
_MARK: Final = b"\0"


class Engine(Protocol):
    """Two ordered databases of raw records; `tail` chooses the second.

    Values come and go without their checksums: the engine adds and verifies them, over the
    stored key.
    """

    def get(self, tail: bool, key: bytes) -> bytes | None:
        """The value of exactly this key."""

    def at_or_after(self, tail: bool, key: bytes) -> tuple[bytes, bytes] | None:
        """The first record with a key >= `key`."""

    def before(self, tail: bool, key: bytes | None) -> tuple[bytes, bytes] | None:
        """The last record with a key < `key`; of all records if None."""

    def put(self, tail: bool, key: bytes, value: bytes) -> None:
        """Writes a record."""

    def delete(self, tail: bool, key: bytes) -> bool:
        """Removes a record; False if there was none."""


class _Level(NamedTuple):
    """A level left for the node behind a pointer: where to go on in it, and to which bound."""

    node: bytes
    at: bytes
    bound: bytes | None


class LongKeys:
    """The keys of one table that are longer than KEY_BYTES_MAX."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, key: bytes) -> bytes | None:
        """The value of a long key."""
        engine, node = self._engine, _ROOT
        while len(key) > KEY_BYTES_MAX:
            found = engine.get(node != _ROOT, node + key[:KEY_BYTES_MAX] + _MARK)
            if found is None:
                return None
            node, key = found, key[KEY_BYTES_MAX:]
        return engine.get(True, node + key)

    def put(self, key: bytes, value: bytes) -> None:
        """Writes the record of a long key, making the nodes that it needs."""
        engine, node = self._engine, _ROOT
        next_id = created = 0
        while len(key) > KEY_BYTES_MAX:
            pointer = node + key[:KEY_BYTES_MAX] + _MARK
            found = engine.get(node != _ROOT, pointer)
            if found is None:
                next_id = next_id + 1 if created else self._unused_id()
                created += 1
                found = next_id.to_bytes(ID_BYTES, "big")
                engine.put(node != _ROOT, pointer, found)
            node, key = found, key[KEY_BYTES_MAX:]
        engine.put(True, node + key, value)
        self._add_nodes(created)

    def delete(self, key: bytes) -> bool:
        """Removes the record of a long key and the nodes that nothing needs any more."""
        engine, node = self._engine, _ROOT
        path: list[tuple[bool, bytes, bytes]] = []
        while len(key) > KEY_BYTES_MAX:
            pointer = node + key[:KEY_BYTES_MAX] + _MARK
            found = engine.get(node != _ROOT, pointer)
            if found is None:
                return False
            path.append((node != _ROOT, pointer, found))
            node, key = found, key[KEY_BYTES_MAX:]
        if not engine.delete(True, node + key):
            return False
        removed = 0
        for tail, pointer, child in reversed(path):
            left = engine.at_or_after(True, child)
            if left is not None and left[0].startswith(child):
                break
            engine.delete(tail, pointer)
            removed += 1
        self._add_nodes(-removed)
        return True

    def nodes(self) -> int:
        """How many nodes the table has."""
        found = self._engine.get(True, NODES)
        return 0 if found is None else int.from_bytes(found, "big")

    def ascend(
        self, node: bytes, head: bytes, lower: bytes, upper: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Records behind `node` whose rest of the key is in [lower, upper), ascending.

        `head` is the part of the key that leads to the node. No recursion: a key of a megabyte
        is 2,600 levels deep.
        """
        engine = self._engine
        above: list[_Level] = []
        heads = [head]
        at, lower_pointer = _first_at(node, lower)
        while True:
            found = engine.at_or_after(True, at)
            inside = found is not None and found[0].startswith(node)
            if found is not None and inside:
                key, value = found
                rest = key[ID_BYTES:]
                if len(rest) > KEY_BYTES_MAX:
                    segment = rest[:KEY_BYTES_MAX]
                    if upper is None or (segment <= upper[:KEY_BYTES_MAX] and segment != upper):
                        above.append(_Level(node, key + _MARK, upper))
                        heads.append(segment)
                        upper = remainder(upper, segment)
                        node = value
                        lower = lower[KEY_BYTES_MAX:] if key == lower_pointer else b""
                        at, lower_pointer = _first_at(node, lower)
                        continue
                elif upper is None or rest < upper:
                    yield b"".join(heads) + rest, value
                    at = key + _MARK
                    continue
            if not above:
                return
            node, at, upper = above.pop()
            heads.pop()
            lower_pointer = None

    def descend(
        self, node: bytes, head: bytes, lower: bytes, upper: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The same records, from the last to the first."""
        engine = self._engine
        above: list[_Level] = []
        heads = [head]
        at, upper_pointer = _last_below(node, upper)
        while True:
            found = engine.before(True, at)
            if found is not None and found[0].startswith(node):
                key, value = found
                rest = key[ID_BYTES:]
                if len(rest) > KEY_BYTES_MAX:
                    segment = rest[:KEY_BYTES_MAX]
                    if segment >= lower[:KEY_BYTES_MAX]:
                        above.append(_Level(node, key, lower))
                        heads.append(segment)
                        lower = remainder(lower, segment) or b""
                        node = value
                        upper = remainder(upper, segment) if key == upper_pointer else None
                        at, upper_pointer = _last_below(node, upper)
                        continue
                elif rest >= lower:
                    yield b"".join(heads) + rest, value
                    at = key
                    continue
            if not above:
                return
            node, at, bound = above.pop()
            lower = bound or b""
            heads.pop()
            upper_pointer = None

    def _unused_id(self) -> int:
        last = self._engine.before(True, None)
        if last is None or last[0] == NODES:
            return 1
        return int.from_bytes(last[0][:ID_BYTES], "big") + 1

    def _add_nodes(self, difference: int) -> None:
        if difference:
            self._engine.put(True, NODES, (self.nodes() + difference).to_bytes(ID_BYTES, "big"))


def pointer_of(key: bytes) -> bytes:
    """The root record that leads on to a long key."""
    return key[:KEY_BYTES_MAX] + _MARK


def _first_at(node: bytes, lower: bytes) -> tuple[bytes, bytes | None]:
    """Where the walk up begins behind a node; and the pointer on the way to `lower`, if any."""
    if len(lower) <= KEY_BYTES_MAX:
        return node + lower, None
    pointer = node + pointer_of(lower)
    return pointer, pointer


def _last_below(node: bytes, upper: bytes | None) -> tuple[bytes, bytes | None]:
    """Below what the walk down begins behind a node; and the pointer on the way to `upper`."""
    if upper is None:
        return (int.from_bytes(node, "big") + 1).to_bytes(ID_BYTES, "big"), None
    if len(upper) <= KEY_BYTES_MAX:
        return node + upper, None
    pointer = node + pointer_of(upper)
    return pointer + _MARK, pointer


def remainder(bound: bytes | None, segment: bytes) -> bytes | None:
    """What is left of a bound one level down; None if the bound does not reach into it."""
    if bound is None or len(bound) <= KEY_BYTES_MAX or not bound.startswith(segment):
        return None
    return bound[KEY_BYTES_MAX:]
