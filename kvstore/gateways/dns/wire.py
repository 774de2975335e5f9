"""Messages as bytes: reads questions, and puts finished answers together for who asks.

Nearly all questions are plain: one name, perhaps an EDNS record, nothing else. They are read here,
in a few microseconds; anything else is left to dnspython, and most of it gets an error.

An answer is kept in pieces, one for each record. What differs from one who asks to the next is
added when it is sent: the id, the name as he spelt it (0x20), how much he takes. Records point to
the name of the question alone, so they may be turned, and cut off behind any of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import dns.exception
import dns.message
from dns.opcode import Opcode
from dns.rcode import Rcode
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from kvstore.gateways.dns.answers import Answer
from kvstore.gateways.dns.limits import UDP_BYTES_MAX, UDP_BYTES_PLAIN
from kvstore.gateways.dns.records import Record

__all__ = ("Finished", "Malformed", "Query", "error_answer", "read_plain", "read_query", "refuse")

_HEAD = struct.Struct(">HHHHHH")
_FIXED = struct.Struct(">HHLH")
_QR, _AA, _TC, _RD, _CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0010
_OPCODE_SHIFT = 11
_KEPT = _RD | _CD
"""Flags that an answer repeats."""
_HEAD_BYTES: Final = 12
_EDNS_BYTES: Final = 11
_PLAIN_COUNTS = (b"\0\1\0\0\0\0\0\0", b"\0\1\0\0\0\0\0\1")
_POINTER = 0xC000


class Query(NamedTuple):
    """A question as it was asked."""

    id: int
    flags: int
    """Those that an answer repeats."""
    question: bytes
    """Name, type and class, the name as it was spelt."""
    name_bytes: int
    """How much of that is the name."""
    edns: int
    """How many bytes he takes over UDP; 0: he does not speak EDNS."""
    wants_dnssec: bool
    """The DO bit: an answer repeats it."""
    bad_version: bool = False
    """He speaks an EDNS of the future."""


class Malformed(NamedTuple):
    """A message that gets no other answer than an error; `message` is its beginning."""

    message: bytes
    rcode: Rcode


def read_plain(message: bytes) -> Query | None:
    """Reads a plain question; None if it is anything else."""
    if message[4:12] not in _PLAIN_COUNTS:
        return None
    flags = message[2] << 8 | message[3]
    if flags & 0xF800:  # an answer, or not a query
        return None
    at = _HEAD_BYTES
    try:
        while length := message[at]:
            if length > 63:
                return None
            at += length + 1
    except IndexError:
        return None
    at += 1
    end = at + 4
    if at - _HEAD_BYTES > 255 or len(message) < end:
        return None
    edns, wants_dnssec = 0, False
    if message[11]:
        # Root name, type OPT, the size, an extended rcode of 0, version 0; then the options.
        if message[end : end + 3] != b"\0\0\x29" or message[end + 5 : end + 7] != b"\0\0":
            return None
        if not _options_are_whole(message, end + _EDNS_BYTES):
            return None
        edns = max(message[end + 3] << 8 | message[end + 4], UDP_BYTES_PLAIN)
        wants_dnssec = message[end + 7] >= 0x80
    elif len(message) != end:
        return None
    question = message[_HEAD_BYTES:end]
    name_bytes = at - _HEAD_BYTES
    query_id = message[0] << 8 | message[1]
    return Query(query_id, flags & _KEPT, question, name_bytes, edns, wants_dnssec)


def _options_are_whole(message: bytes, at: int) -> bool:
    """Whether the options of EDNS, which begin there, end where the message does.

    What they say is of no account here.
    """
    if len(message) < at or message[at - 2] << 8 | message[at - 1] != len(message) - at:
        return False
    while at + 4 <= len(message):
        at += 4 + (message[at + 2] << 8 | message[at + 3])
    return at == len(message)


def read_query(message: bytes) -> Query | Malformed | None:
    """Reads any message; None: it is not to be answered."""
    if len(message) < _HEAD_BYTES or message[2] & 0x80:
        return None
    opcode = message[2] >> 3 & 15
    if opcode != Opcode.QUERY:
        return Malformed(message, Rcode.NOTIMP)
    try:
        read = dns.message.from_wire(message)
    except dns.message.UnknownTSIGKey:
        return Malformed(message, Rcode.NOTAUTH)
    except (dns.exception.DNSException, ValueError, IndexError, struct.error):
        return Malformed(message, Rcode.FORMERR)
    if len(read.question) != 1:
        return Malformed(message, Rcode.FORMERR)
    asked = read.question[0]
    name = asked.name.to_wire()
    assert name is not None
    question = name + struct.pack(">HH", asked.rdtype, asked.rdclass)
    edns = max(read.payload, UDP_BYTES_PLAIN) if read.edns >= 0 else 0
    dnssec = bool(read.ednsflags & 0x8000)
    flags = int(read.flags) & _KEPT
    return Query(read.id, flags, question, len(name), edns, dnssec, read.edns > 0)


def error_answer(wrong: Malformed) -> bytes:
    """An answer without records: what was asked could not be read, or is not done here."""
    flags = wrong.message[2] << 8 | wrong.message[3]
    kept = flags & (_RD | 0xF << _OPCODE_SHIFT)
    query_id = wrong.message[0] << 8 | wrong.message[1]
    return _HEAD.pack(query_id, _QR | kept | wrong.rcode, 0, 0, 0, 0)


def refuse(query: Query, rcode: Rcode) -> bytes:
    """An answer without records to a question; not authoritative."""
    flags = _QR | query.flags | rcode & 15
    head = _HEAD.pack(query.id, flags, 1, 0, 0, int(query.edns > 0))
    edns = _edns(rcode, wants_dnssec=query.wants_dnssec) if query.edns else b""
    return head + query.question + edns


def _edns(rcode: int, *, wants_dnssec: bool) -> bytes:
    # Where other records have their TTL: the rcode's upper bits, the version, the flags.
    ttl = rcode >> 4 << 24 | (0x8000 if wants_dnssec else 0)
    return b"\0" + _FIXED.pack(RdataType.OPT, UDP_BYTES_MAX, ttl, 0)


_EDNS = _edns(0, wants_dnssec=False)
_EDNS_DNSSEC = _edns(0, wants_dnssec=True)


class Finished:
    """An answer, ready for anybody who asks the same; from turn to turn others come first."""

    def __init__(self, answer: Answer, name: bytes) -> None:
        """`name` is that of the question, on the wire; how it is spelt does not matter."""
        self.rcode = answer.rcode
        suffixes = {name[at:]: _HEAD_BYTES + at for at in _labels(name)}
        self._groups = [[_piece(each, suffixes) for each in group] for group in answer.groups]
        self._authority = [_piece(each, suffixes) for each in answer.authority]
        self._extras = _extras(answer, suffixes)
        self._count = sum(map(len, self._groups))
        # Put together once, in no special order: how long it is, and what never turns.
        extra = [piece for pieces in self._additional_of(self._extras) for piece in pieces]
        self._extra_count = len(extra)
        self._tail = b"".join([*self._authority, *extra])
        self.bytes = len(self._tail) + sum(len(each) for group in self._groups for each in group)
        self._turn = 0

    def message(self, query: Query, limit: int) -> bytes:
        """The whole message, of at most `limit` bytes."""
        turn = self._turn
        self._turn = turn + 1
        pieces: list[bytes] = []
        for group in self._groups:
            begin = turn % len(group)
            pieces += group[begin:]
            if begin:
                pieces += group[:begin]
        room = limit - _HEAD_BYTES - len(query.question)
        if query.edns:
            room -= _EDNS_BYTES
        if self.bytes > room:
            return self._cut(query, pieces, room)
        flags = _QR | _AA | query.flags | self.rcode
        counts = self._count, len(self._authority), self._extra_count
        pieces.append(self._tail)
        return _join(query, flags, counts, pieces)

    def _cut(self, query: Query, pieces: list[bytes], room: int) -> bytes:
        """As many records as fit. TC if one of the answer does not; the rest may stay away."""
        flags = _QR | _AA | query.flags | self.rcode
        kept: list[bytes] = []
        for piece in pieces:
            if len(piece) > room:
                flags |= _TC
                break
            room -= len(piece)
            kept.append(piece)
        authority = 0
        for piece in self._authority:
            if len(piece) <= room:
                room -= len(piece)
                kept.append(piece)
                authority += 1
        answers = len(kept) - authority
        additional = 0
        for extra in self._additional_of(kept[:answers]) if not flags & _TC else ():
            size = sum(map(len, extra))
            if size > room:
                break
            room -= size
            kept += extra
            additional += len(extra)
        return _join(query, flags, (answers, authority, additional), kept)

    def _additional_of(self, pieces: list[bytes] | dict[bytes, list[bytes]]) -> list[list[bytes]]:
        """What the records lead to, each once."""
        found = {id(extra): extra for each in pieces if (extra := self._extras.get(each))}
        return list(found.values())


def _join(query: Query, flags: int, counts: tuple[int, int, int], pieces: list[bytes]) -> bytes:
    answers, authority, additional = counts
    if query.edns:
        pieces.append(_EDNS_DNSSEC if query.wants_dnssec else _EDNS)
        additional += 1
    head = _HEAD.pack(query.id, flags, 1, answers, authority, additional)
    return b"".join((head, query.question, *pieces))


def _labels(name: bytes) -> Iterator[int]:
    """Where the labels of a name begin, the root's left out."""
    at = 0
    while name[at]:
        yield at
        at += name[at] + 1


def _piece(record: Record, suffixes: dict[bytes, int]) -> bytes:
    """The record; its owner is shortened if it ends as the name of the question does."""
    owner = record.owner
    for at in _labels(owner):
        found = suffixes.get(owner[at:])
        if found is not None:
            owner = owner[:at] + (_POINTER | found).to_bytes(2, "big")
            break
    fixed = _FIXED.pack(record.type, RdataClass.IN, record.ttl_s, len(record.data))
    return owner + fixed + record.data


def _extras(answer: Answer, suffixes: dict[bytes, int]) -> dict[bytes, list[bytes]]:
    """Additional records by the piece of the answer that leads to them."""
    if not answer.additional:
        return {}
    made = {
        target: [_piece(each, suffixes) for each in found]
        for target, found in answer.additional.items()
    }
    extras: dict[bytes, list[bytes]] = {}
    for group in answer.groups:
        for record in group:
            target = record.data[6:] if record.type == RdataType.SRV else record.data
            if target in made:
                extras[_piece(record, suffixes)] = made[target]
    return extras
