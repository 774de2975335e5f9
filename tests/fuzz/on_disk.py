"""Targets: what a member reads back from its disk."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import google_crc32c
import lmdb
import msgpack

from kvstore.machine import command
from kvstore.machine.command import CommandError, CommandKind
from kvstore.storage.backup import unwrap
from kvstore.storage.disk import Disk
from kvstore.storage.errors import SnapshotCorrupt, StoreCorrupt, WalCorrupt, WalMissing
from kvstore.storage.layout import StoreMark, StoreTrust
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.sealed import seal, table_seed
from kvstore.storage.snapshot import (
    SnapshotHeader,
    SnapshotWriter,
    extract_to,
    image,
    verify,
)
from kvstore.storage.store import EngineInfo, TableSpec
from kvstore.storage.wal import Wal, WalIdentity
from kvstore.storage.wal_format import (
    BATCH_MAGIC,
    HEAD,
    HEADER_BYTES,
    HEADER_MAGIC,
    RECORD,
    RECORD_OVERHEAD_BYTES,
    segment_name,
)
from raft.types import ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState
from tests.fuzz.registry import Feed, Refused, Target, plain
from tests.unit.storage.fake_disk import FakeDisk

__all__ = ("TARGETS",)

_DIRECTORY = Path("/m")
_SEGMENT_BYTES = 4096
_crc = google_crc32c.value
_extend = google_crc32c.extend


def _read(disk: Disk, path: Path) -> bytes:
    file = disk.open(path)
    return file.read_at(0, file.size())


def _put(disk: Disk, path: Path, data: bytes) -> None:
    disk.create(path).write_at(0, data)


# ---- the log ------------------------------------------------------------------------------------


def _entry(index: int, data: bytes = b"data") -> Entry:
    return Entry(index, 1, EntryKind.NORMAL, data)


def _log(*batches: tuple[HardState | None, list[Entry]]) -> bytes:
    """A log's segments, one behind the other."""
    disk = FakeDisk()
    wal = Wal.create(disk, _DIRECTORY, WalIdentity(1, 2), segment_bytes=_SEGMENT_BYTES)
    for hard_state, entries in batches:
        wal.write(wal.encode(hard_state, entries), True)
    return b"".join(_read(disk, _DIRECTORY / name) for name in disk.list(_DIRECTORY))


def _log_seeds() -> list[bytes]:
    small = [(HardState(1, 2, 0), [_entry(1)]), (HardState(1, 2, 1), [_entry(2), _entry(3)])]
    rewritten = [(None, [_entry(1), _entry(2), _entry(3)]), (None, [_entry(2, b"anew")])]
    full = [(None, [_entry(1, bytes(1200)), _entry(2, b"x" * 1700)]), (None, [_entry(3)])]
    return [_log(), _log(*small), _log(*rewritten), _log(*full)]


def _feed_log(data: bytes) -> None:
    """All of it is one segment or two; what opens must open again in the same way, and clean."""
    disk = FakeDisk()
    _put(disk, _DIRECTORY / segment_name(1, 1), data[:_SEGMENT_BYTES])
    if len(data) > _SEGMENT_BYTES:
        _put(disk, _DIRECTORY / segment_name(2, 3), data[_SEGMENT_BYTES:])
    wal, recovered = Wal.open(disk, _DIRECTORY, keep_after=0, segment_bytes=_SEGMENT_BYTES)
    wal.close()
    _, again = Wal.open(disk, _DIRECTORY, keep_after=0, segment_bytes=_SEGMENT_BYTES)
    assert again.torn is None
    assert again.entries == recovered.entries
    assert again.hard_state == recovered.hard_state
    if recovered.torn is not None:
        raise Refused("torn")


def _mend_log(data: bytes) -> bytes:
    """Puts every checksum right, in as far as the bytes still look like a log."""
    return _mend_segment(data[:_SEGMENT_BYTES]) + _mend_segment(data[_SEGMENT_BYTES:])


def _mend_segment(data: bytes) -> bytes:
    if not data.startswith(HEADER_MAGIC) or len(data) < HEADER_BYTES:
        return data
    mended = bytearray(data)
    length = int.from_bytes(data[8:12], "big")
    seed = _crc(data[:12] + data[16 : 16 + length])
    if not _claims_much(data[16 : 16 + length]):
        mended[12:16] = seed.to_bytes(4, "big")
    chain = 0
    for at in range(HEADER_BYTES, len(data) - HEAD.size, 512):
        if data[at : at + 4] == BATCH_MAGIC:
            chain = _mend_batch(mended, at, seed, chain)
    return bytes(mended)


def _claims_much(body: bytes) -> bool:
    """A header that says a gigabyte, which a log may have: the last one is filled up with zeros."""
    try:
        size_bytes = msgpack.unpackb(body)[4]
        return 1024**2 < size_bytes < 2 * 1024**3
    except (ValueError, TypeError, IndexError):
        return False


def _mend_batch(mended: bytearray, at: int, seed: int, chain: int) -> int:
    length = int.from_bytes(mended[at + 4 : at + 8], "big")
    place, end = at + HEAD.size, min(at + HEAD.size + length, len(mended))
    while end - place >= RECORD_OVERHEAD_BYTES:
        crc_at = place + RECORD.size + int.from_bytes(mended[place : place + 4], "big")
        if crc_at + 4 > end:
            break
        chain = _extend(chain, bytes(mended[place:crc_at]))
        mended[crc_at : crc_at + 4] = chain.to_bytes(4, "big")
        place = crc_at + 4
    magic, length, zeros, position, synced, _, _ = HEAD.unpack_from(mended, at)
    head = HEAD.pack(magic, length, zeros, position, synced, chain, 0)[:-4]
    mended[at : at + HEAD.size] = head + _extend(seed, head).to_bytes(4, "big")
    return chain


# ---- snapshots and backups ----------------------------------------------------------------------

_FRAME = struct.Struct(">BII")


def _snapshot(image_bytes: int) -> bytes:
    disk = FakeDisk()
    header = SnapshotHeader(7, 2, ConfState((1, 2), (3,)), 9, EngineInfo("lmdb", "0.9", 4096))
    with SnapshotWriter(disk, _DIRECTORY, header) as writer:
        writer.write(bytes(range(256)) * (image_bytes // 256))
        return _read(disk, writer.finish())


def _snapshot_seeds() -> list[bytes]:
    return [_snapshot(0), _snapshot(512), _snapshot(3 * 4096)]


def _feed_snapshot(data: bytes) -> None:
    disk, path = FakeDisk(), _DIRECTORY / "it.kvs"
    _put(disk, path, data)
    header = verify(disk, path)
    target = _DIRECTORY / "image"
    assert extract_to(disk, path, target) == header
    assert _read(disk, target) == b"".join(image(disk, path))
    # As the file is read, so it is written.
    with SnapshotWriter(disk, _DIRECTORY, header) as writer:
        writer.write(_read(disk, target))
        assert verify(disk, writer.finish()) == header


def _mend_snapshot(data: bytes) -> bytes:
    mended, at, chain = bytearray(data), 8, 0
    while at + _FRAME.size <= len(data):
        _, length, _ = _FRAME.unpack_from(data, at)
        end = at + _FRAME.size + length
        if end > len(data):
            break
        chain = _extend(_extend(chain, data[at : at + 5]), data[at + _FRAME.size : end])
        mended[at + 5 : at + 9] = chain.to_bytes(4, "big")
        at = end
    return bytes(mended)


def _wrapped(snapshot: bytes) -> bytes:
    padded = snapshot + bytes(-len(snapshot) % 512)
    return padded + hashlib.sha256(padded).digest()


def _feed_backup(data: bytes) -> None:
    disk, path = FakeDisk(), _DIRECTORY / "backup"
    _put(disk, path, data)
    try:
        kept, header = unwrap(disk, path, _DIRECTORY)
        assert verify(disk, kept) == header
    finally:
        assert not disk.exists(_DIRECTORY / "backup.part")


def _mend_backup(data: bytes) -> bytes:
    return _wrapped(_mend_snapshot(data[:-32]).rstrip(b"\0"))


# ---- small files --------------------------------------------------------------------------------


def _feed_mark(data: bytes) -> None:
    disk, path = FakeDisk(), _DIRECTORY / "store.mark"
    _put(disk, path, data)
    trust = StoreMark(disk, path, "boot").read()
    if trust is StoreTrust.UNMARKED:
        raise Refused(trust.name)


def _mark_seeds() -> list[bytes]:
    bodies = (["clean", "boot"], ["in use", "boot"], ["in use", "other"], ["in use", ""])
    return [_mend_mark(b"...." + msgpack.packb(body)) for body in bodies]


def _mend_mark(data: bytes) -> bytes:
    return _crc(data[4:]).to_bytes(4, "big") + data[4:]


# ---- records of the store -----------------------------------------------------------------------

_TABLE = TableSpec("keys", long_keys=True)
_KEYS = (b"k", b"k" * 400, b"k" * 401, b"k" * 900)


@contextmanager
def _stored_records() -> Iterator[Feed]:
    """The input stands in the store's file where a record's sealed value should."""
    with TemporaryDirectory() as directory:
        store = LmdbStore(Path(directory) / "s", [_TABLE], map_bytes=1 << 20)
        raw: lmdb.Environment = store._env
        root = store._tables["keys"].root

        def feed(data: bytes) -> None:
            with raw.begin(write=True) as txn:
                txn.put(b"k", data, db=root)
            txn = store.read()
            try:
                found = txn.get("keys", b"k")
                assert found == data[:-4]
                assert txn.get_many("keys", [b"k"]) == [found]
                assert list(txn.scan("keys")) == [(b"k", found)]
            finally:
                txn.close()

        try:
            yield feed
        finally:
            store.close()


def _mend_record(data: bytes) -> bytes:
    return seal(table_seed("keys"), b"k", data[:-4])


@contextmanager
def _long_keys() -> Iterator[Feed]:
    """The input is a list of keys; the store must give them back in order, up and down."""
    with TemporaryDirectory() as directory:
        store = LmdbStore(Path(directory) / "s", [_TABLE], map_bytes=1 << 26)

        def feed(data: bytes) -> None:
            keys = sorted({key for key in data.split(b"|") if key})
            if not keys:
                raise Refused("no key")
            txn = store.write()
            for number, key in enumerate(keys):
                txn.put("keys", key, b"%d" % number)
            assert [key for key, _ in txn.scan("keys")] == keys
            assert [key for key, _ in txn.scan("keys", reverse=True)] == keys[::-1]
            start, stop = keys[len(keys) // 3], keys[-1]
            assert [k for k, _ in txn.scan("keys", start, stop)] == keys[len(keys) // 3 : -1]
            assert txn.seek("keys", start) == (start, b"%d" % (len(keys) // 3))
            assert txn.count("keys") == len(keys)
            for key in keys[::2]:
                txn.delete("keys", key)
            assert [key for key, _ in txn.scan("keys")] == keys[1::2]
            txn.close()

        try:
            yield feed
        finally:
            store.close()


def _long_key_seeds() -> list[bytes]:
    return [b"|".join(_KEYS), b"a|" + b"a" * 1300 + b"|" + b"a" * 1299 + b"b", b"b\0|b\0\0|b"]


# ---- commands -----------------------------------------------------------------------------------


def _feed_command(data: bytes) -> None:
    found = command.decode(data)
    if found is None:
        return
    if found.kind in tuple(CommandKind):
        assert command.encode(CommandKind(found.kind), found.request_id, found.payload) == data
    if found.kind == CommandKind.LEASE_EXPIRE:
        expiry = command.read_expiry(found.payload)
        assert command.read_expiry(command.expiry_payload(*expiry)) == expiry
    elif found.kind == CommandKind.BATCH:
        batch = command.read_batch(found.payload)
        assert command.read_batch(command.batch_payload(*batch)) == batch
    elif found.kind == CommandKind.MEMBER_ATTRIBUTES:
        attributes = command.read_member_attributes(found.payload)
        payload = command.member_attributes_payload(*attributes)
        assert command.read_member_attributes(payload) == attributes


def _command_seeds() -> Sequence[bytes]:
    expiry = command.expiry_payload(3, [1, 2**63 - 1], 1_700_000_000_000)
    attributes = command.member_attributes_payload(2**64 - 1, "name", ("http://a:1", "http://b:2"))
    item = command.BatchItem(b"k", -1, command.BatchAction.PUT_NEW_LEASE, b"v", 7, 60, "why")
    batch = command.batch_payload(1_700_000_000_000, 3, [item])
    return (
        command.encode(CommandKind.PUT, 2**64 - 1, b"\n\1k\x12\1v"),
        command.encode(CommandKind.BATCH, 2, batch),
        command.encode(CommandKind.LEASE_EXPIRE, 1, expiry),
        command.encode(CommandKind.MEMBER_ATTRIBUTES, 1, attributes),
        b"",
        b"\1short",
    )


def _feed_conf_change(data: bytes) -> None:
    assert ConfChange.decode(data).encode() == data


MSGPACK_WORDS = (
    *(b"\x90", b"\x91", b"\x92", b"\x93", b"\x80", b"\x81\x01", b"\x81\x90\x01", b"\xc0", b"\xc1"),
    *(b"\xc2", b"\xc3", b"\xa1x", b"\xa1\xff", b"\xc4\x01x", b"\xca\x7f\xc0\0\0", b"\xff", b"\xcf"),
    *(b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
    *(
        b"\xcf" + b"\xff" * 8,
        b"\xd3" + b"\x80" + b"\0" * 7,
        b"\xd6\xff\xff\xff\xff\xff",
        b"\xd4\x05a",
    ),
    *(b"\xd7\xff" + b"\xff" * 8, b"\xc7\x0c\xff" + b"\xff" * 12),
)

TARGETS = (
    Target(
        "write-ahead log",
        plain(_feed_log),
        (WalCorrupt, WalMissing, Refused),
        _log_seeds,
        (HEADER_MAGIC, BATCH_MAGIC, bytes(512), *MSGPACK_WORDS),
        mend=_mend_log,
        label=lambda error: str(error) if isinstance(error, Refused) else type(error).__name__,
        memory_mib=8,
        cost=2,
    ),
    Target(
        "snapshot file",
        plain(_feed_snapshot),
        (SnapshotCorrupt,),
        _snapshot_seeds,
        (b"KVSNAP\r\n", b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", *MSGPACK_WORDS),
        mend=_mend_snapshot,
        memory_mib=8,
        cost=2,
    ),
    Target(
        "backup file",
        plain(_feed_backup),
        (SnapshotCorrupt,),
        lambda: [_wrapped(each) for each in _snapshot_seeds()],
        MSGPACK_WORDS,
        mend=_mend_backup,
        memory_mib=8,
        cost=2,
    ),
    Target(
        "store mark",
        plain(_feed_mark),
        (Refused,),
        _mark_seeds,
        (b"clean", b"in use", *MSGPACK_WORDS),
        mend=_mend_mark,
    ),
    Target(
        "sealed record",
        _stored_records,
        (StoreCorrupt,),
        lambda: [_mend_record(payload + b"....") for payload in (b"", b"value", bytes(5000))],
        mend=_mend_record,
        cost=2,
    ),
    Target(
        "long keys",
        _long_keys,
        (Refused,),
        _long_key_seeds,
        (b"|", b"|k|", b"k" * 400, b"\0", b"\xff" * 400),
        cost=4,
    ),
    Target("command", plain(_feed_command), (CommandError,), _command_seeds, MSGPACK_WORDS),
    Target(
        "membership change",
        plain(_feed_conf_change),
        (ValueError,),
        lambda: [ConfChange(kind, 7, b"context").encode() for kind in ConfChangeKind],
    ),
)
