"""A power loss, played on the files of a member that was killed: what it may leave behind."""

from __future__ import annotations

import random
from pathlib import Path

import google_crc32c
import msgpack

__all__ = ("another_boot", "log_end", "newest_segment", "scramble_store", "store_path", "tear_log")

_PAGE_BYTES = 4096
_SECTOR_BYTES = 512


def store_path(data_dir: Path) -> Path:
    return data_dir / "member" / "db" / "store.mdb"


def another_boot(data_dir: Path) -> None:
    """As if the machine had restarted since: the mark names a boot that is not this one."""
    mark = data_dir / "member" / "db" / "store.mark"
    state, boot = msgpack.unpackb(mark.read_bytes()[4:])
    assert (state, bool(boot)) == ("in use", True)
    body = msgpack.packb([state, "00000000-0000-0000-0000-000000000000"])
    mark.write_bytes(google_crc32c.value(body).to_bytes(4, "big") + body)


def scramble_store(data_dir: Path, seed: int = 5) -> None:
    """Pages of different ages: what a power loss may leave of a file that was not synced."""
    chance = random.Random(seed)
    data = bytearray(store_path(data_dir).read_bytes())
    pages = range(0, len(data) - _PAGE_BYTES, _PAGE_BYTES)
    for at in chance.sample(pages, max(1, len(pages) // 3)):
        other = chance.choice(pages)
        data[at : at + _PAGE_BYTES] = data[other : other + _PAGE_BYTES]
    store_path(data_dir).write_bytes(data)


def newest_segment(data_dir: Path) -> Path:
    return max((data_dir / "member" / "wal").glob("*.wal"))


def log_end(data_dir: Path) -> int:
    """Where the last sector that holds anything ends, in the newest segment."""
    used = len(newest_segment(data_dir).read_bytes().rstrip(b"\0"))
    return -(-used // _SECTOR_BYTES) * _SECTOR_BYTES


def tear_log(data_dir: Path) -> None:
    """Of the last write, which was never synced, the last sector did not reach the disk."""
    end = log_end(data_dir)
    with newest_segment(data_dir).open("r+b") as file:
        file.seek(end - _SECTOR_BYTES)
        file.write(bytes(_SECTOR_BYTES))
