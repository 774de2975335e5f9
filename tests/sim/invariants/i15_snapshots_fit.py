"""I15 (reliability R13): a snapshot install never lowers commit, and what it says is true.

(index, term, configuration) in a snapshot are those of the witness list: of the one that is
offered, of the one that was installed, and of the state that a process starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raft.messages import InstallSnapshot, Message
from raft.types import ConfState, Entry
from tests.sim.books.witness import witness_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("SnapshotsFit",)


class SnapshotsFit(Invariant):
    """Learns the configurations from those who apply a change, each index from its first."""

    number = "I15"
    title = (
        "A snapshot install never lowers commit, and (index, term, config) in it match the "
        "witness list."
    )
    source = "reliability R13"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._witness = witness_of(world)
        self._commit: dict[str, int] = {}

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        self._witness.take(p, entries)
        changes = [
            entry.index
            for entry, result in zip(entries, results, strict=True)
            if result.conf_change is not None
        ]
        if changes:
            # Where one batch holds several, only the configuration after the last is to be seen.
            self._learn(p, changes[-1], p.machine.conf_state())

    def _learn(self, p: Process, index: int, conf: ConfState) -> None:
        known = self._witness.confs.setdefault(index, conf)
        if known != conf:
            raise self.violated(
                f"{p.name} has configuration {conf} after entry {index}, others have {known}"
            )

    def changed(self, p: Process) -> None:
        self._commit[p.name] = p.raft.commit_index

    def sent(self, p: Process, message: Message) -> None:
        if isinstance(message, InstallSnapshot):
            meta = message.meta
            self._check(p, "offers a snapshot", meta.index, meta.term, meta.conf)

    def installed(self, p: Process, index: int, term: int) -> None:
        if p.raft.commit_index < self._commit.get(p.name, 0):
            raise self.violated(
                f"{p.name} installed a snapshot of {index} and its commit index fell from "
                f"{self._commit[p.name]} to {p.raft.commit_index}"
            )
        self._check(p, "installed a snapshot", index, term, p.machine.conf_state())

    def started(self, p: Process) -> None:
        self._commit.pop(p.name, None)
        machine = p.machine
        if machine.applied_index:
            self._witness.adopt(machine.applied_index, machine.conf_state())
            self._check(
                p, "starts from", machine.applied_index, machine.applied_term, machine.conf_state()
            )

    def _check(self, p: Process, what: str, index: int, term: int, conf: ConfState) -> None:
        known = self._witness.term_at(index)
        if known is not None and known != term:
            raise self.violated(
                f"{p.name} {what} ({index}, term {term}), but the entry committed there is of "
                f"term {known}"
            )
        expected = self._witness.conf_at(index)
        if expected is not None and expected != conf:
            raise self.violated(
                f"{p.name} {what} ({index}, term {term}) with configuration {conf}, but it was "
                f"{expected}"
            )
