"""I41 (Jepsen on etcd 3.4.3): a lock's fencing token grows, and an older one opens nothing.

A lock key is taken by a transaction that compares its creation with 0 and puts it; its token is
the create revision. A fenced write compares the lock key's create revision with the token. What
a paused holder still sends with its old token must be refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.linear.history import Compare, Operation, Outcome, Put, Txn
from tests.sim.books.canon import canon_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ("FencingTokensGrow",)


class FencingTokensGrow(Invariant):
    """Judges what clients were told; the log's own transactions are judged by I30."""

    number = "I41"
    title = (
        "A lock's fencing token grows with every acquisition, and a fenced write with an older "
        "token is refused."
    )
    source = "Jepsen, etcd 3.4.3"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canon = canon_of(world)
        self._acquired: dict[int, bytes] = {}
        """Revision of an acquisition → its lock."""
        self._tokens: dict[bytes, tuple[int, int]] = {}
        """Lock → (true time of the answer, token) of the newest acquisition that is known."""

    def completed(self, op: Operation) -> None:
        request, response = op.request, op.response
        if op.outcome is not Outcome.OK or not isinstance(request, Txn) or response is None:
            return
        if not response.succeeded:
            return
        for compare in request.compares:
            if compare.target != "create" or compare.relation != "=":
                continue
            if compare.operand == 0:
                self._acquisition(op, request, compare)
            else:
                self._fenced_write(op, compare)

    def _acquisition(self, op: Operation, request: Txn, compare: Compare) -> None:
        lock, token = compare.key, op.response.revision
        if not any(isinstance(part, Put) and part.key == lock for part in request.success):
            return
        other = self._acquired.setdefault(token, lock)
        known = self._tokens.get(lock)
        if known is not None and token <= known[1] and known[0] <= op.call:
            raise self.violated(
                f"client {op.client} took lock {lock!r} with token {token}, after one with token "
                f"{known[1]} had been taken"
            )
        if other != lock:
            raise self.violated(f"the locks {lock!r} and {other!r} were taken at revision {token}")
        if op.ret is not None and (known is None or token > known[1]):
            self._tokens[lock] = (op.ret, token)

    def _fenced_write(self, op: Operation, compare: Compare) -> None:
        held = self._canon.state_of_key(compare.key, op.response.revision - 1)
        now = self._canon.state_of_key(compare.key, op.response.revision)
        creates = [kv.create for kv in (held, now) if kv is not None]
        if op.response.revision <= self._canon.last_revision and compare.operand not in creates:
            raise self.violated(
                f"client {op.client} wrote at revision {op.response.revision} with token "
                f"{compare.operand!r} of lock {compare.key!r}, which then had {creates}"
            )
