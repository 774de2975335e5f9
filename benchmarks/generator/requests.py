"""Requests as pieces that only lack their stream id, with keys drawn from a stated space.

A `Method` is a gRPC method and its request message with holes for keys. Drawing number n from the
space fills hole i with the key of n + offsets[i]: one hole for a put, two equal ones for a
compare-and-put, 0 and 1000 for a range of a thousand keys.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle
from typing import Any

from kvstore.api.http2 import frames
from kvstore.api.http2.headers import encode

__all__ = ("KEY_BYTES", "Method", "Request", "Space", "draw", "framed", "key_of", "request")

Request = tuple[tuple[bytes, ...], int, int]
"""(pieces to be joined by the stream id's four bytes, DATA bytes, revisions it will make)"""

KEY_BYTES = 18
_READY_BYTES = 32 * 1024 * 1024
"""Requests made before the run; when they would be larger, each is made when it is sent."""
_DRAWN = 100_000
"""Numbers drawn before the run, used in a circle."""


def key_of(number: int) -> bytes:
    """A key, `KEY_BYTES` long, in the order of its number."""
    return b"bench/%012d" % number


def framed(message: bytes) -> bytes:
    """A gRPC message: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4, "big") + message


@dataclass(frozen=True, slots=True)
class Method:
    """One kind of request. `parts` surround the keys; len(parts) == len(offsets) + 1."""

    path: str
    parts: tuple[bytes, ...]
    offsets: tuple[int, ...]
    writes: int
    """Revisions that one call makes."""
    share: int = 1
    """How often it is drawn beside other methods of the same job."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Method:
        return cls(
            value["path"],
            tuple(bytes.fromhex(part) for part in value["parts"]),
            tuple(value["offsets"]),
            value["writes"],
            value["share"],
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "parts": [part.hex() for part in self.parts],
            "offsets": list(self.offsets),
            "writes": self.writes,
            "share": self.share,
        }

    def often(self, share: int) -> Method:
        """The same, drawn `share` times as often as a method with share 1."""
        return replace(self, share=share)

    def message(self, number: int) -> bytes:
        """The request for a number of the space, without gRPC's five bytes."""
        parts = self.parts
        if not any(self.offsets):
            return key_of(number).join(parts) if self.offsets else parts[0]
        out = [parts[0]]
        for offset, part in zip(self.offsets, parts[1:], strict=True):
            out += key_of(number + offset), part
        return b"".join(out)


@dataclass(frozen=True, slots=True)
class Space:
    """The numbers that keys are drawn from: at random with a fixed seed, or one after another."""

    keys: int
    seed: int = 1
    step: int = 0
    """0: at random. Otherwise 0, step, 2 × step, … below `keys`, each once."""

    def numbers(self) -> Iterator[int]:
        if self.step:
            return iter(range(0, self.keys, self.step))
        chance = random.Random(self.seed).random
        keys = self.keys
        return cycle([int(chance() * keys) for _ in range(_DRAWN)])


@lru_cache
def header_block(path: str) -> bytes:
    """Request headers without dynamic indexing: the same bytes on every stream."""
    return encode(
        (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"127.0.0.1"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )


def _prefix(length: int, kind: int, flags: int) -> bytes:
    """A frame's head up to its stream id."""
    return length.to_bytes(3, "big") + bytes((kind, flags))


def request(path: str, body: bytes, writes: int = 0, *, last: bool = True) -> Request:
    """HEADERS and DATA of a call; `last` says that nothing more follows on its stream."""
    block = header_block(path)
    pieces = [_prefix(len(block), frames.HEADERS, frames.END_HEADERS)]
    before = block
    size = len(body)
    for start in range(0, size, frames.MAX_FRAME):
        part = body[start : start + frames.MAX_FRAME]
        end = last and start + len(part) == size
        flags = frames.END_STREAM if end else 0
        pieces.append(before + _prefix(len(part), frames.DATA, flags))
        before = part
    pieces.append(before)
    return tuple(pieces), size, writes


def draw(methods: list[Method], space: Space) -> Iterator[Request]:
    """Requests without end (or until the space is used up), methods by their shares."""
    chance = random.Random(space.seed + 1)
    turns = [method for method in methods for _ in range(method.share)]
    numbers = space.numbers()

    def one(number: int) -> Request:
        method = turns[0] if len(turns) == 1 else turns[int(chance.random() * len(turns))]
        return request(method.path, framed(method.message(number)), method.writes)

    largest = max(len(method.message(0)) for method in methods)
    count = -(-space.keys // space.step) if space.step else _DRAWN
    if count * largest > _READY_BYTES:
        return map(one, numbers)
    ready = [one(number) for number, _ in zip(numbers, range(count), strict=False)]
    return iter(ready) if space.step else cycle(ready)
