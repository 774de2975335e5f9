"""The frames that members exchange: their form, their kinds, and what a handshake says.

A frame is a length and a CRC-32C, 4 bytes each and big-endian, and as many bytes of msgpack as
the length says: an array whose first element is the kind. The checksum covers length and array:
TCP's own is weak, and what a follower is told here it puts into its log as the truth.

A connection begins with a HELLO of the side that dialled and a WELCOME or REFUSED of the other;
nothing else counts before. Whoever is not connected to the cluster yet may send ASK_CLUSTER
instead, gets one CLUSTER, and that is all.

    after the handshake     dialling side           accepting side
    purpose PEER            MESSAGES, PING, CALL    PONG, ANSWER, FAILURE
    purpose SNAPSHOT        SNAPSHOT, CHUNK …       BUSY …, RECEIVED

Parsing is pure, and total: any bytes are frames, incomplete, or a FrameError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

import google_crc32c
import msgpack

from kvstore.machine import Member
from kvstore.node.peer_limits import FRAME_BYTES_MAX
from kvstore.node.transport import Cluster

__all__ = (
    "MAGIC",
    "VERSION",
    "FrameError",
    "FrameReader",
    "Hello",
    "Kind",
    "Purpose",
    "check_types",
    "cluster_frame",
    "frame",
    "hello_frame",
    "read_cluster",
    "read_hello",
    "unpack",
)

MAGIC: Final = "kvstore peer"
VERSION: Final = 1
"""Of this protocol; both sides must speak the same."""

_LENGTH_BYTES: Final = 4
_HEAD_BYTES: Final = _LENGTH_BYTES + 4


class FrameError(ValueError):
    """Bytes that no member sends."""


class Kind(IntEnum):
    """What a frame is; its fields stand behind."""

    HELLO = 1
    """magic, version, purpose, cluster id, sender, target, sender's peer URLs"""
    WELCOME = 2
    """cluster id, member id"""
    REFUSED = 3
    """text"""
    ASK_CLUSTER = 4
    """magic, version"""
    CLUSTER = 5
    """cluster id, members"""
    MESSAGES = 6
    """Raft messages as `raft.messages.to_wire` makes them"""
    PING = 7
    """number"""
    PONG = 8
    """the ping's number"""
    CALL = 9
    """number, method, payload"""
    ANSWER = 10
    """the call's number, payload"""
    FAILURE = 11
    """the call's number, gRPC code, text"""
    SNAPSHOT = 12
    """InstallSnapshot as `to_wire` makes it, size of the file in bytes"""
    CHUNK = 13
    """CRC-32C, bytes of the file"""
    BUSY = 14
    """Nothing: the receiver is at it."""
    RECEIVED = 15
    """whether the snapshot is whole and was taken, text if not"""


class Purpose(IntEnum):
    """What a connection is for."""

    PEER = 1
    SNAPSHOT = 2


class Hello(NamedTuple):
    """Who dials whom, and what for."""

    version: int
    purpose: int
    cluster_id: int
    sender: int
    target: int
    peer_urls: tuple[str, ...]
    """Where the sender can be reached, for a receiver that has not heard of it yet."""


def frame(kind: Kind, *fields: Any) -> bytes:
    """An encoded frame. Raises FrameError if it is larger than a receiver would take."""
    packed = msgpack.packb((int(kind), *fields))
    if len(packed) > FRAME_BYTES_MAX:
        raise FrameError(f"a {kind.name} frame of {len(packed)} bytes")
    length = len(packed).to_bytes(_LENGTH_BYTES, "big")
    return b"".join((length, _checksum(length, packed), packed))


def _checksum(length: bytes, packed: bytes) -> bytes:
    crc: int = google_crc32c.extend(google_crc32c.value(length), packed)
    return crc.to_bytes(4, "big")


class FrameReader:
    """Cuts a stream of bytes into frames, however they are torn."""

    __slots__ = ("_buffer", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._buffer = bytearray()
        self.limit_bytes = limit_bytes
        """The largest frame that is taken; raised once the sender is known."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that `data` completes, still packed; draw them all before feeding again.

        Raises FrameError behind the last sound one.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH_BYTES:
            length = bytes(buffer[start : start + _LENGTH_BYTES])
            size_bytes = int.from_bytes(length, "big")
            if size_bytes > self.limit_bytes:
                raise FrameError(
                    f"a frame of {size_bytes} bytes, where at most {self.limit_bytes} belong"
                )
            body = start + _HEAD_BYTES
            if len(buffer) < body + size_bytes:
                break
            packed = bytes(buffer[body : body + size_bytes])
            if buffer[start + _LENGTH_BYTES : body] != _checksum(length, packed):
                raise FrameError("a frame that does not match its checksum")
            start = body + size_bytes
            yield packed
        del buffer[:start]


def unpack(packed: bytes) -> tuple[int, list[Any]]:
    """Kind and fields of a frame; raises FrameError."""
    try:
        fields = msgpack.unpackb(packed)
    except (ValueError, TypeError, OverflowError) as error:
        raise FrameError(f"a frame that is not msgpack ({type(error).__name__})") from error
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise FrameError("a frame without a kind")
    return fields[0], fields[1:]


def check_types(fields: Sequence[Any], *types: type) -> None:
    """Holds the fields of a frame to their number and types; raises FrameError."""
    if len(fields) != len(types):
        raise FrameError(f"{len(fields)} fields where {len(types)} belong")
    for value, wanted in zip(fields, types, strict=True):
        if type(value) is not wanted:
            raise FrameError(f"{type(value).__name__} where {wanted.__name__} belongs")


def hello_frame(hello: Hello) -> bytes:
    """The first frame of whoever dials."""
    return frame(Kind.HELLO, MAGIC, *hello)


def read_hello(fields: Sequence[Any]) -> Hello:
    """Reads HELLO's fields; its claims are for the caller to judge. Raises FrameError."""
    if fields[:1] != [MAGIC]:
        raise FrameError("a HELLO of another protocol")
    if len(fields) > 1 and fields[1] != VERSION:
        # Only this much of it is the same in every version.
        version = fields[1] if type(fields[1]) is int else 0
        return Hello(version, 0, 0, 0, 0, ())
    check_types(fields[1:], int, int, int, int, int, list)
    version, purpose, cluster_id, sender, target, urls = fields[1:]
    return Hello(version, purpose, cluster_id, sender, target, _strings(urls))


def cluster_frame(cluster: Cluster) -> bytes:
    """The answer to ASK_CLUSTER."""
    return frame(Kind.CLUSTER, cluster.cluster_id, [list(member) for member in cluster.members])


def read_cluster(fields: Sequence[Any]) -> Cluster:
    """Reads CLUSTER's fields; raises FrameError."""
    check_types(fields, int, list)
    members = []
    for member in fields[1]:
        if type(member) is not list:
            raise FrameError("a member that is not a list")
        check_types(member, int, str, list, list, bool)
        id_, name, peer_urls, client_urls, is_learner = member
        members.append(Member(id_, name, _strings(peer_urls), _strings(client_urls), is_learner))
    return Cluster(fields[0], tuple(members))


def _strings(values: list[Any]) -> tuple[str, ...]:
    check_types(values, *[str] * len(values))
    return tuple(values)
