"""What an invariant is: an observer of the simulated cluster that may object.

The kernel calls the hooks below on every invariant it was given, in order. A hook that sees a
promise broken raises `Violated`, which ends the seed. Invariants keep books of their own and
trust none of the product's checks; they never change anything they are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from kvstore.machine import Result
    from raft.messages import Message
    from raft.types import Entry
    from tests.linear.history import Operation, WatchRecord, WatchResponse
    from tests.sim.process import Process
    from tests.sim.registry_history import Call, Past, Reading, Watch, WatchAnswer
    from tests.sim.world import World

__all__ = ("Invariant", "Violated")


class Violated(AssertionError):  # noqa: N818 - a verdict, named as one reads it
    """A promise was broken: `number` says which, `sentence` how, with ids, indexes and terms."""

    def __init__(self, number: str, sentence: str) -> None:
        super().__init__(f"{number}: {sentence}")
        self.number = number
        self.sentence = sentence

    def __reduce__(self) -> tuple[type[Violated], tuple[str, str]]:
        """Travels from one process to another."""
        return (Violated, (self.number, self.sentence))


class Invariant:
    """One promise, watched over a whole seed; every hook is a no-op until overridden.

    The letters say when a hook is called: T after a step, A at an apply, R at a restart, E at the
    end of a phase.
    """

    number: ClassVar[str] = "I0"
    title: ClassVar[str] = ""
    """The promise in one sentence."""
    source: ClassVar[str] = ""
    """Where it comes from: a section of Raft's thesis, or an issue of another system."""

    def __init__(self, world: World) -> None:
        self.world = world

    def violated(self, sentence: str) -> Violated:
        """The exception to raise: `raise self.violated("...")`."""
        return Violated(self.number, sentence)

    def stepped(self, p: Process) -> None:
        """T: a process did something in a loop iteration."""

    def changed(self, p: Process) -> None:
        """T: like `stepped`, but only when Raft or the state machine looks different since.

        For whatever follows from role, term, vote, leader, configuration, the log and its
        indexes, or the revisions; most steps change none of these.
        """

    def sent(self, p: Process, message: Message) -> None:
        """T: a Raft message leaves a process."""

    def received(self, p: Process, message: Message) -> None:
        """T: a Raft message has reached a process, which looks at it in its next turn."""

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        """A: a batch of entries was committed to the store of a process."""

    def installed(self, p: Process, index: int, term: int) -> None:
        """A: a snapshot as of (index, term) replaced the state of a process."""

    def started(self, p: Process) -> None:
        """R: recovery is done, the node runs; `p.start` holds what the disk remembered."""

    def stopped(self, p: Process, why: str) -> None:
        """R: a crash, kill or power loss ended a process, or it ended by itself."""

    def invoked(self, op: Operation) -> None:
        """T: a client sent a request."""

    def completed(self, op: Operation) -> None:
        """T: a client got its answer, or gave up on one."""

    def watched(self, record: WatchRecord, response: WatchResponse) -> None:
        """T: a watch response reached a client; `record.responses` ends with it."""

    def lease_event(self, kind: str, lease_id: int, ttl_s: float, p: Process) -> None:
        """T: a client was told that a lease is "granted", "renewed" or "revoked"."""

    def registry_asked(self, call: Call) -> None:
        """T: a client asks the registry to change something, or says that it is alive."""

    def registry_told(self, call: Call) -> None:
        """T: it has its answer, or has given up."""

    def registry_read(self, p: Process, reading: Reading) -> None:
        """T: the registry, or its DNS, has answered a question."""

    def registry_watched(self, watch: Watch, answer: WatchAnswer) -> None:
        """T: a response of a registry watch has reached its client."""

    def registry_past(self, past: Past) -> None:
        """T: the registry has told its history."""

    def phase_ended(self, name: str) -> None:
        """E: the phase "safety", "liveness" (with a registry "silence", too) or "end" is over."""
