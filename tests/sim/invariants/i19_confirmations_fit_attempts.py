"""I19 (etcd #20418; reliability R6): a read confirmation is for the attempt that asked.

On the wire: no member ever uses a number twice, restarts included; the answer comes from the
leader that was asked, in the term in which it was asked, and with an index no lower than what
anybody knew to be committed when the question left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from raft.messages import ForwardRead, Message, ReadReply
from tests.sim.books.witness import witness_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("ConfirmationsFitAttempts",)


class _Attempt(NamedTuple):
    term: int
    leader: int
    committed: int


class ConfirmationsFitAttempts(Invariant):
    """Remembers every question."""

    number = "I19"
    title = (
        "A read confirmation is used only for the attempt that asked, in the same term, with the "
        "same leader."
    )
    source = "etcd #20418; reliability R6"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._witness = witness_of(world)
        self._asked: dict[int, dict[int, _Attempt]] = {}

    def sent(self, p: Process, message: Message) -> None:
        if isinstance(message, ForwardRead):
            asked = self._asked.setdefault(message.sender, {})
            for context in message.contexts:
                if context in asked:
                    raise self.violated(
                        f"member {message.sender:x} asks in term {message.term} with number "
                        f"{context}, as it did in term {asked[context].term}"
                    )
                asked[context] = _Attempt(message.term, message.to, self._witness.last)
        elif isinstance(message, ReadReply):
            asked = self._asked.get(message.to, {})
            for context in message.contexts:
                attempt = asked.get(context)
                if attempt is not None:
                    self._check(message, context, attempt)

    def _check(self, reply: ReadReply, context: int, attempt: _Attempt) -> None:
        if (reply.term, reply.sender) != (attempt.term, attempt.leader):
            raise self.violated(
                f"member {reply.sender:x} of term {reply.term} confirms read attempt {context} of "
                f"member {reply.to:x}, which asked {attempt.leader:x} in term {attempt.term}"
            )
        if reply.index < attempt.committed:
            raise self.violated(
                f"read attempt {context} of member {reply.to:x} is confirmed at entry "
                f"{reply.index}, though {attempt.committed} was committed when it was made"
            )
