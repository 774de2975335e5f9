"""A number that many change at once: each change is atomic, none is lost.

A change is a transaction on the revision that was read. Who comes too late learns the new number
from the refusal and tries again at once, so somebody always gets on.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from kvstore.client import operations
from kvstore.client.errors import PreconditionError
from kvstore.client.keys import Key, to_bytes
from kvstore.client.recipes.line import strange_answer
from kvstore.client.recipes.steps import Program
from kvstore.client.txn import Get, ModRevision, Put, Txn
from kvstore.client.values import KeyValue, RangeResult, TxnResult

__all__ = ("CounterRecipe", "Number")

Number: TypeAlias = int | float


class CounterRecipe:
    """Key: NAME with the number as text. It is an int or a float as `default` is."""

    def __init__(self, name: Key, default: Number = 0) -> None:
        self.name = to_bytes(name)
        self.default = default
        self.pre_value: Number | None = None
        """The number before the last change by this object."""
        self.post_value: Number | None = None
        """The number after it."""
        if isinstance(default, bool) or not isinstance(default, (int, float)):
            raise TypeError(f"{self._what}: default must be int or float, not {default!r}")

    @property
    def _what(self) -> str:
        return f"counter {self.name.decode(errors='backslashreplace')!r}"

    def value(self) -> Program[Number]:
        """The number now; `default` as long as nobody changed it."""
        found: RangeResult = yield operations.range(self.name)
        return self._parse(found.first)

    def add(self, delta: Number) -> Program[Number]:
        """Add (a negative number subtracts); returns the new number.

        An error whose `outcome` is UNKNOWN means that the change may have happened.
        """
        kinds = (int,) if isinstance(self.default, int) else (int, float)
        if isinstance(delta, bool) or not isinstance(delta, kinds) or not math.isfinite(delta):
            wanted = "whole numbers" if kinds == (int,) else "finite numbers"
            raise TypeError(f"{self._what} counts in {wanted}, not {delta!r}")
        found: RangeResult = yield operations.range(self.name)
        while True:
            stored = found.first
            before = self._parse(stored)
            after = before + delta
            txn = (
                Txn()
                .when(ModRevision(self.name) == (stored.mod_revision if stored else 0))
                .then(Put(self.name, repr(after)))
                .otherwise(Get(self.name))
            )
            answer: TxnResult = yield txn.build()
            if answer.succeeded:
                self.pre_value, self.post_value = before, after
                return after
            match answer.responses:
                case (RangeResult() as found,):
                    pass
                case _:
                    raise strange_answer()

    def _parse(self, stored: KeyValue | None) -> Number:
        if stored is None:
            return self.default
        kind = type(self.default)
        try:
            return kind(stored.value)
        except ValueError:
            text = stored.value[:40].decode(errors="backslashreplace")
            raise PreconditionError(
                f"{self._what}: its key holds {text!r}, which is no {kind.__name__}; "
                "is it another counter, or another thing's key?"
            ) from None
