"""Values with a checksum at their end: what LMDB does not do for us.

A stored value is the payload and the CRC-32C of (table name, key, payload), little-endian. So a
record that turns up under another key or in another table is as bad as a flipped bit. Running
the CRC over a payload *and* its own little-endian CRC always gives the same number, so checking
takes one call and no slicing.
"""

from __future__ import annotations

from typing import Final

import google_crc32c

__all__ = ("CRC_BYTES", "RESIDUE", "seal", "table_seed")

CRC_BYTES: Final = 4
RESIDUE: Final = 0x48674BC7
"""CRC-32C of anything followed by its own CRC-32C, little-endian."""

_extend = google_crc32c.extend


def table_seed(table: str) -> int:
    """Where the CRC of a table's records starts."""
    seed: int = google_crc32c.value(table.encode() + b"\0")
    return seed


def seal(seed: int, key: bytes, payload: bytes) -> bytes:
    """The payload with its checksum, as stored under `key`."""
    crc: int = _extend(seed, key + payload)
    return payload + crc.to_bytes(CRC_BYTES, "little")
