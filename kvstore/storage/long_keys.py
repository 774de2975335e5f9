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

from kvstore.storage.limits import KEY_BYTES_MAX

__all__ = ("ID_BYTES", "NODES", "Engine", "LongKeys", "pointer_of")

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


class _Bound(NamedTuple):
    """A bound of a walk as one level sees it: `key` from `at` on. Not sliced, since a key of a
    megabyte would be copied once per level."""

    key: bytes
    at: int

    @property
    def piece(self) -> bytes:
        """The segment at this level, and one byte more if the bound goes on behind it."""
        return self.key[self.at : self.at + KEY_BYTES_MAX + 1]

    def behind(self, segment: bytes) -> _Bound | None:
        """The bound one level down; None if it does not reach there."""
        piece = self.piece
        if len(piece) <= KEY_BYTES_MAX or not piece.startswith(segment):
            return None
        return _Bound(self.key, self.at + KEY_BYTES_MAX)


class _Level(NamedTuple):
    """A level left for the node behind a pointer: where to go on in it, and to which bound."""

    node: bytes
    at: bytes
    bound: _Bound | None


class LongKeys:
    """The keys of one table that are longer than KEY_BYTES_MAX."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, key: bytes) -> bytes | None:
        """The value of a long key."""
        node = _ROOT
        for tail, segment in _segments(key):
            found = self._engine.get(tail, node + segment + _MARK)
            if found is None:
                return None
            node = found
        return self._engine.get(True, node + _last_piece(key))

    def put(self, key: bytes, value: bytes) -> None:
        """Writes the record of a long key, making the nodes that it needs."""
        engine, node = self._engine, _ROOT
        next_id = created = 0
        for tail, segment in _segments(key):
            pointer = node + segment + _MARK
            # Behind a node that was just made there is nothing yet.
            found = None if created else engine.get(tail, pointer)
            if found is None:
                next_id = next_id + 1 if created else self._unused_id()
                created += 1
                found = next_id.to_bytes(ID_BYTES, "big")
                engine.put(tail, pointer, found)
            node = found
        engine.put(True, node + _last_piece(key), value)
        self._add_nodes(created)

    def delete(self, key: bytes) -> bool:
        """Removes the record of a long key and the nodes that nothing needs any more."""
        engine, node = self._engine, _ROOT
        path: list[tuple[bool, bytes, bytes]] = []
        for tail, segment in _segments(key):
            pointer = node + segment + _MARK
            found = engine.get(tail, pointer)
            if found is None:
                return False
            path.append((tail, pointer, found))
            node = found
        if not engine.delete(True, node + _last_piece(key)):
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
        self, node: bytes, head: bytes, start: bytes, stop: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Records behind the node of the first segment `head` with start <= key < stop, ascending.

        No recursion: a key of a megabyte is 2,600 levels deep.
        """
        engine = self._engine
        above: list[_Level] = []
        heads = [head]
        lower, upper = _bounds(head, start, stop)
        at, way_in = _first_at(node, lower)
        while True:
            found = engine.at_or_after(True, at)
            if found is not None and found[0].startswith(node):
                key, value = found
                rest = key[ID_BYTES:]
                if len(rest) > KEY_BYTES_MAX:
                    segment = rest[:KEY_BYTES_MAX]
                    # Less than the piece: a segment that equals it is a prefix of the longer.
                    if upper is None or segment < upper.piece:
                        above.append(_Level(node, key + _MARK, upper))
                        heads.append(segment)
                        upper = upper and upper.behind(segment)
                        lower = lower.behind(segment) if lower and key == way_in else None
                        node = value
                        at, way_in = _first_at(node, lower)
                        continue
                elif upper is None or rest < upper.piece:
                    yield b"".join(heads) + rest, value
                    at = key + _MARK
                    continue
            if not above:
                return
            node, at, upper = above.pop()
            heads.pop()
            way_in = None

    def descend(
        self, node: bytes, head: bytes, start: bytes, stop: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The same records, from the last to the first."""
        engine = self._engine
        above: list[_Level] = []
        heads = [head]
        lower, upper = _bounds(head, start, stop)
        at, way_in = _last_below(node, upper)
        while True:
            found = engine.before(True, at)
            if found is not None and found[0].startswith(node):
                key, value = found
                rest = key[ID_BYTES:]
                if len(rest) > KEY_BYTES_MAX:
                    segment = rest[:KEY_BYTES_MAX]
                    if lower is None or segment >= lower.piece[:KEY_BYTES_MAX]:
                        above.append(_Level(node, key, lower))
                        heads.append(segment)
                        lower = lower and lower.behind(segment)
                        upper = upper.behind(segment) if upper and key == way_in else None
                        node = value
                        at, way_in = _last_below(node, upper)
                        continue
                elif lower is None or rest >= lower.piece:
                    yield b"".join(heads) + rest, value
                    at = key
                    continue
            if not above:
                return
            node, at, lower = above.pop()
            heads.pop()
            way_in = None

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


def _segments(key: bytes) -> Iterator[tuple[bool, bytes]]:
    """The full segments of a long key; each with whether its pointer is in the tail database."""
    for at in range(0, len(key) - KEY_BYTES_MAX, KEY_BYTES_MAX):
        yield at > 0, key[at : at + KEY_BYTES_MAX]


def _last_piece(key: bytes) -> bytes:
    """What is left behind the full segments: 1 to KEY_BYTES_MAX bytes."""
    return key[(len(key) - 1) // KEY_BYTES_MAX * KEY_BYTES_MAX :]


def _bounds(head: bytes, start: bytes, stop: bytes | None) -> tuple[_Bound | None, _Bound | None]:
    """The bounds behind the first segment; None where they do not reach there."""
    return (
        _Bound(start, 0).behind(head),
        None if stop is None else _Bound(stop, 0).behind(head),
    )


def _first_at(node: bytes, lower: _Bound | None) -> tuple[bytes, bytes | None]:
    """Where the walk up begins behind a node; and the pointer on the way to `lower`, if any."""
    if lower is None:
        return node, None
    piece = lower.piece
    if len(piece) <= KEY_BYTES_MAX:
        return node + piece, None
    pointer = node + pointer_of(piece)
    return pointer, pointer


def _last_below(node: bytes, upper: _Bound | None) -> tuple[bytes, bytes | None]:
    """Below what the walk down begins behind a node; and the pointer on the way to `upper`."""
    if upper is None:
        return (int.from_bytes(node, "big") + 1).to_bytes(ID_BYTES, "big"), None
    piece = upper.piece
    if len(piece) <= KEY_BYTES_MAX:
        return node + piece, None
    pointer = node + pointer_of(piece)
    return pointer + _MARK, pointer
