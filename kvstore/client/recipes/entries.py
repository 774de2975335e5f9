"""The entries of a queue: lower priority first, then in the order in which they were put.

An entry's key is PRIORITY-NUMBER-INDEX. The number is the revision of the queue's last put: each
put changes it in the transaction that makes the entries, so numbers are unique and grow without
anybody counting. Who puts at the same time as another learns the new one from the refusal.
"""

from __future__ import annotations

from collections.abc import Iterable

from kvstore.client import operations
from kvstore.client.call import Unary
from kvstore.client.keys import Key, to_bytes
from kvstore.client.recipes.line import line_prefix, strange_answer
from kvstore.client.recipes.steps import Program
from kvstore.client.txn import Get, ModRevision, Put, Txn
from kvstore.client.values import RangeResult, TxnResult

__all__ = ("PRIORITY_DEFAULT", "PRIORITY_MAX", "EntriesRecipe", "entry_id")

PRIORITY_DEFAULT = 100
PRIORITY_MAX = 999


class EntriesRecipe:
    """Keys: NAME/sequence, and NAME/entries/PRIORITY-NUMBER-INDEX with the value."""

    def __init__(self, name: Key) -> None:
        self.prefix = line_prefix(name) + b"entries/"
        self._sequence = line_prefix(name) + b"sequence"
        self._seen = 0

    def put(self, value: Key, priority: int = PRIORITY_DEFAULT) -> Program[None]:
        """Add an entry; those of a lower `priority` (0 to 999) are taken before it."""
        return self.put_all((value,), priority)

    def put_all(self, values: Iterable[Key], priority: int = PRIORITY_DEFAULT) -> Program[None]:
        """Add entries in this order, all or none.

        How many is limited by the server's `--max-txn-ops` (128 by default, one is ours).
        An error whose `outcome` is UNKNOWN means that they may have been added.
        """
        if not 0 <= priority <= PRIORITY_MAX:
            raise ValueError(f"priority must be between 0 and {PRIORITY_MAX}, not {priority}")
        contents = [to_bytes(each) for each in values]
        while contents:
            puts = [
                Put(self.prefix + entry_id(priority, self._seen, index), each)
                for index, each in enumerate(contents)
            ]
            txn = (
                Txn()
                .when(ModRevision(self._sequence) == self._seen)
                .then(Put(self._sequence), *puts)
                .otherwise(Get(self._sequence))
            )
            answer: TxnResult = yield txn.build()
            if answer.succeeded:
                self._seen = answer.header.revision
                return
            match answer.responses:
                case (RangeResult() as last,):
                    self._seen = last.first.mod_revision if last.first else 0
                case _:
                    raise strange_answer()

    def first(self) -> Unary[RangeResult]:
        """The entry to take next."""
        return operations.range(self.prefix, prefix=True, limit=1)

    def size(self) -> Program[int]:
        """How many entries there are."""
        found: RangeResult = yield operations.range(self.prefix, prefix=True, count_only=True)
        return found.count


def entry_id(priority: int, number: int, index: int) -> bytes:
    """The last part of an entry's key; sorts as entries are to be taken."""
    return b"%03d-%016x-%04x" % (priority, number, index)
