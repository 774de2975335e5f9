"""What the two halves of the stores' conformance suite share."""

from __future__ import annotations

from pathlib import Path

from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.store import Store, TableSpec

TABLES = (TableSpec("plain"), TableSpec("long", long_keys=True))

LONG_KEYS = sorted(
    {
        b"a",
        b"s" * 399,
        b"s" * 400,
        b"s" * 401,
        b"s" * 400 + b"\0",
        b"s" * 400 + b"\0\0",
        b"s" * 400 + b"\xff",
        b"s" * 799,
        b"s" * 800,
        b"s" * 800 + b"\0",
        b"s" * 801,
        b"s" * 2000,
        b"s" * 400 + b"t" * 400 + b"u",
        b"s" * 399 + b"t",
        b"s" * 399 + b"t" + b"\0" * 900,
        b"\0",
        b"\0" * 400,
        b"\0" * 401,
        b"\0" * 1200,
        b"\xff" * 400,
        b"\xff" * 401,
        b"\xff" * 1200,
        b"z",
    }
)


def fill(store: Store, table: str, keys: list[bytes]) -> None:
    txn = store.write()
    txn.put_many(table, [(key, b"value of " + key[:20]) for key in keys])
    txn.commit()


def keys_of(store: Store, table: str, *bounds: bytes, reverse: bool = False) -> list[bytes]:
    txn = store.read()
    try:
        return [key for key, _ in txn.scan(table, *bounds, reverse=reverse)]
    finally:
        txn.close()


def open_image(store: Store, pieces: list[bytes], tmp_path: Path) -> Store:
    if isinstance(store, MemoryStore):
        return MemoryStore.from_image(TABLES, pieces)
    path = tmp_path / "copy.mdb"
    path.write_bytes(b"".join(pieces))
    return LmdbStore(path, TABLES, map_bytes=64 * 1024**2)
