"""The one source of chance in the simulator: small, its own, the same on every Python.

The generator is splitmix64 (Steele, Lea and Flood, 2014): one 64-bit state, one multiply-mix per
number. The standard library's convenience methods may change between versions, and with them
every seed that was ever written down; this one never does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, TypeVar

__all__ = ("Prng",)

T = TypeVar("T")

_MASK: Final = (1 << 64) - 1
_STEP: Final = 0x9E3779B97F4A7C15


class Prng:
    """A stream of random numbers that the seed alone decides."""

    __slots__ = ("_state", "seed")

    def __init__(self, seed: int) -> None:
        self.seed = seed & _MASK
        self._state = self.seed

    def fork(self, name: str) -> Prng:
        """An independent stream for one purpose.

        It depends on the seed and the name, not on what was drawn before: one more draw here
        changes nothing there. The same name gives the same stream.
        """
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=self.seed.to_bytes(8, "big"))
        return Prng(int.from_bytes(digest.digest(), "big"))

    def copy(self) -> Prng:
        """The same stream from here on."""
        twin = Prng(self.seed)
        twin._state = self._state
        return twin

    def next64(self) -> int:
        """64 random bits."""
        self._state = mixed = (self._state + _STEP) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def below(self, limit: int) -> int:
        """One of 0 … limit - 1, for a limit far below 2⁶⁴."""
        assert limit > 0, limit
        return (self.next64() * limit) >> 64

    def between(self, low: int, high: int) -> int:
        """One of low … high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, numerator: int, denominator: int) -> bool:
        """True in `numerator` of `denominator` cases."""
        return self.below(denominator) < numerator

    def pick(self, choices: Sequence[T]) -> T:
        """One of these."""
        return choices[self.below(len(choices))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All of these in a random order."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result

    def weighted(self, choices: Sequence[tuple[int, T]]) -> T:
        """One of these (weight, choice); a choice of weight 0 never."""
        left = self.below(sum(weight for weight, _ in choices))
        for weight, choice in choices:
            left -= weight
            if left < 0:
                return choice
        raise AssertionError("weights are not negative")
