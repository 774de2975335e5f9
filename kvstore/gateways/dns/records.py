"""Resource records as they stand in a message.

An answer may hold a thousand of them, so they are put together as bytes. No name inside of a record
is compressed: a record means the same wherever in the message it stands, so the records of a
finished answer can be turned and cut.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from dns.rdatatype import RdataType

__all__ = ("Record", "address", "name_record", "soa", "srv", "txt")

_SRV = struct.Struct(">HHH")
_SOA = struct.Struct(">IIIII")
_STRING_BYTES_MAX: Final = 255
_HOUR_S: Final = 3_600


class Record(NamedTuple):
    """One record; its class is IN."""

    owner: bytes
    """The name it belongs to, on the wire, uncompressed."""
    type: int
    ttl_s: int
    data: bytes


def address(owner: bytes, ttl_s: int, packed: bytes) -> Record:
    """A or AAAA."""
    return Record(owner, RdataType.A if len(packed) == 4 else RdataType.AAAA, ttl_s, packed)


def srv(owner: bytes, ttl_s: int, priority: int, weight: int, port: int, target: bytes) -> Record:
    """SRV (RFC 2782)."""
    return Record(owner, RdataType.SRV, ttl_s, _SRV.pack(priority, weight, port) + target)


def name_record(owner: bytes, kind: RdataType, ttl_s: int, target: bytes) -> Record:
    """One whose data is a name: CNAME, NS, PTR."""
    return Record(owner, kind, ttl_s, target)


def txt(owner: bytes, ttl_s: int, strings: Sequence[str]) -> Record:
    """TXT; a string that is longer than can be is cut into several."""
    pieces = [
        whole[at : at + _STRING_BYTES_MAX]
        for whole in (string.encode() for string in strings)
        for at in range(0, len(whole) or 1, _STRING_BYTES_MAX)
    ]
    data = b"".join(bytes((len(piece),)) + piece for piece in pieces)
    return Record(owner, RdataType.TXT, ttl_s, data)


def soa(zone: bytes, server: bytes, people: bytes, serial: int, ttl_s: int) -> Record:
    """SOA; its TTL is how long others may remember that something is not there."""
    times = _SOA.pack(serial % 2**32, _HOUR_S, _HOUR_S // 6, 24 * _HOUR_S, ttl_s)
    return Record(zone, RdataType.SOA, ttl_s, server + people + times)
