"""Inputs from seeds: the same for the same number, whatever the machine or the Python.

Half of what is wrong with bytes is wrong in one place: a flipped bit, a length that lies, an end
that is missing. So most inputs are a seed with one to four such changes; some are a format's
words in any order; some are one piece a thousand times, which is what deep nesting looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tests.sim.prng import Prng

__all__ = ("INPUT_BYTES_MAX", "Mutator")

INPUT_BYTES_MAX: Final = 96 * 1024
_REPEATS: Final = (2, 3, 10, 100, 1000, 5000)
_LENGTHS: Final = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    65_535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
_VARINTS: Final = (
    b"\xff" * 9 + b"\x01",
    b"\x80" * 9 + b"\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\x80" * 20,
)

_Change = Callable[[bytes], bytes]


class Mutator:
    """Makes inputs for one target."""

    def __init__(
        self,
        prng: Prng,
        seeds: Sequence[bytes],
        words: Sequence[bytes] = (),
        mend: _Change | None = None,
    ) -> None:
        assert seeds
        self._prng = prng
        self._seeds = list(seeds)
        self._words = [*words, *_VARINTS]
        self._mend = mend
        self._changes: list[tuple[int, _Change]] = [
            (4, self._flip),
            (3, self._byte),
            (3, self._truncate),
            (2, self._drop),
            (2, self._double),
            (3, self._splice),
            (4, self._insert),
            (3, self._length),
            (2, self._trail),
            (1, self._repeat),
        ]

    def inputs(self, count: int) -> Iterator[bytes]:
        """`count` inputs: the seeds themselves first, then their ends, then anything."""
        given = 0
        for data in self._planned():
            if given == count:
                return
            given += 1
            yield data
        for _ in range(count - given):
            yield self._mended(self._one())[:INPUT_BYTES_MAX]

    def _planned(self) -> Iterator[bytes]:
        yield from self._seeds
        yield b""
        for seed in self._seeds[:8]:
            yield self._mended(seed + b"\0")
            yield seed + seed
            yield seed[:-1]

    def _one(self) -> bytes:
        prng = self._prng
        kind = prng.below(20)
        if kind == 0:
            return bytes(prng.below(256) for _ in range(prng.below(64)))
        if kind == 1:
            return b"".join(prng.pick(self._words) for _ in range(prng.below(12)))
        data = prng.pick(self._seeds)
        for _ in range(1 + prng.below(4)):
            data = prng.weighted(self._changes)(data)[:INPUT_BYTES_MAX]
        return data

    def _mended(self, data: bytes) -> bytes:
        if self._mend is not None and self._prng.chance(3, 4):
            return self._mend(data)
        return data

    # The changes

    def _at(self, data: bytes) -> int:
        return self._prng.below(len(data) + 1)

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return data
        changed = bytearray(data)
        changed[self._prng.below(len(data))] ^= 1 << self._prng.below(8)
        return bytes(changed)

    def _byte(self, data: bytes) -> bytes:
        at = self._at(data)
        value = self._prng.pick((0, 1, 0x7F, 0x80, 0xFF, self._prng.below(256)))
        return data[:at] + bytes((value,)) + data[at + self._prng.below(2) :]

    def _truncate(self, data: bytes) -> bytes:
        return data[: self._at(data)]

    def _range(self, data: bytes) -> tuple[int, int]:
        start = self._at(data)
        return start, min(len(data), start + self._prng.pick((1, 2, 4, 8, 64, 512)))

    def _drop(self, data: bytes) -> bytes:
        start, end = self._range(data)
        return data[:start] + data[end:]

    def _double(self, data: bytes) -> bytes:
        start, end = self._range(data)
        return data[:end] + data[start:]

    def _splice(self, data: bytes) -> bytes:
        other = self._prng.pick(self._seeds)
        return data[: self._at(data)] + other[self._at(other) :]

    def _insert(self, data: bytes) -> bytes:
        at, word = self._at(data), self._prng.pick(self._words)
        return data[:at] + word + data[at + self._prng.pick((0, 0, len(word))) :]

    def _length(self, data: bytes) -> bytes:
        """Overwrites what may be a length with one that lies: big, huge, off by one."""
        size = self._prng.pick((1, 2, 4, 8))
        if len(data) < size:
            return data
        at = self._prng.below(len(data) - size + 1)
        old = int.from_bytes(data[at : at + size], "big")
        new = self._prng.pick((*_LENGTHS, old + 1, old - 1)) & ((1 << 8 * size) - 1)
        order = "big" if self._prng.below(4) else "little"
        return data[:at] + new.to_bytes(size, order) + data[at + size :]  # type: ignore[arg-type]

    def _trail(self, data: bytes) -> bytes:
        return data + bytes(self._prng.below(256) for _ in range(1 + self._prng.below(8)))

    def _repeat(self, data: bytes) -> bytes:
        """One piece many times: nesting, if the piece opens something."""
        start, end = self._range(data)
        piece = self._prng.pick((data[start:end][:8], self._prng.pick(self._words)))
        times = min(self._prng.pick(_REPEATS), INPUT_BYTES_MAX // (len(piece) + 1))
        return data[:start] + piece * times + data[start:]
