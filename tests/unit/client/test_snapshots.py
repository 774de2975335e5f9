"""A snapshot is accepted only when it is whole and its checksum is right."""

from __future__ import annotations

import hashlib
import io
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.client.errors import SnapshotCorruptError
from kvstore.client.snapshots import SnapshotCheck, SnapshotTarget
from kvstore.pb import rpc_pb2 as pb

DATABASE = bytes(range(256)) * 8
WHOLE = DATABASE + hashlib.sha256(DATABASE).digest()


def feed(data: bytes, cuts: list[int]) -> SnapshotCheck:
    check = SnapshotCheck()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        check.feed(pb.SnapshotResponse(blob=data[start:end], remaining_bytes=len(data) - end))
    return check


@given(st.lists(st.integers(0, 5000), max_size=8))
def test_however_it_is_cut(cuts: list[int]) -> None:
    info = feed(WHOLE, cuts).finish()
    assert info.size_bytes == len(WHOLE)
    assert info.sha256 == WHOLE[-32:].hex()


@given(st.integers(0, len(WHOLE) - 1))
def test_any_flipped_byte_is_noticed(where: int) -> None:
    broken = bytearray(WHOLE)
    broken[where] ^= 1
    with pytest.raises(SnapshotCorruptError, match="checksum"):
        feed(bytes(broken), [100]).finish()


def test_an_early_end_is_noticed() -> None:
    check = SnapshotCheck()
    check.feed(pb.SnapshotResponse(blob=WHOLE[:-100], remaining_bytes=100))
    with pytest.raises(SnapshotCorruptError, match="not complete"):
        check.finish()
    with pytest.raises(SnapshotCorruptError, match="not complete"):
        feed(WHOLE[:-1], []).finish()
    with pytest.raises(SnapshotCorruptError):
        SnapshotCheck().finish()


def save_half(path: Path) -> None:
    with SnapshotTarget(path) as out:
        out.write(b"part")
        SnapshotCheck().finish()


def test_a_path_gets_its_file_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "snap.db"
    path.write_bytes(b"older")
    with pytest.raises(SnapshotCorruptError):
        save_half(path)
    assert path.read_bytes() == b"older"
    with SnapshotTarget(str(path)) as out:
        out.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    memory = io.BytesIO()
    with SnapshotTarget(memory) as out:
        out.write(b"new")
    assert memory.getvalue() == b"new"
