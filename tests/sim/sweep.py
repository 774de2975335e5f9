"""A crash after every single disk operation of a workload, under every policy of what is lost.

The workload runs once; after each operation the disk is copied. Each copy then loses its power
(or just its process), the member recovers with the product's own code, and is compared with what
is known: every answered write is there, nothing is that was never asked for, and the state is
the one that the log leads to. It goes on from there, crashes again somewhere, also in the middle
of a recovery, and is compared once more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kvstore.errors import COMPACTED, EtcdError
from kvstore.machine import Machine, run
from kvstore.node.bootstrap import GENESIS, first_members
from kvstore.node.config import NodeConfig
from kvstore.storage.memory_store import MemoryStore
from raft.types import Entry, EntryKind
from tests.sim.disk import CrashPolicy, ProcessDied, VirtualDisk
from tests.sim.prng import Prng
from tests.sim.solo import Solo, solo_config
from tests.sim.sweep_model import Model, draw, pairs_of

__all__ = ("CRASHES", "Life", "Moment", "record_workload", "sweep", "sweep_recoveries")

CRASHES: Final = (None, *CrashPolicy)
"""None: only the process dies, and the page cache stays."""
_GO_ON_OPERATIONS: Final = 50
_RECOVERY_OPERATIONS: Final = 25
_REPLAYED_IN: Final = 10
"""One second recovery in so many is held against a replay of its log as well."""
_NAME_CHANGES: Final = ("make dir", "create", "rename", "unlink")
_CONFIG: Final = solo_config(Path("/sim/solo"))


@dataclass
class Journal:
    """Every entry that a member was about to log; a later one of an index replaces the rest."""

    entries: list[Entry] = field(default_factory=list)
    requests: list[int] = field(default_factory=lambda: [0])
    """How many of the first n entries are requests of clients."""

    def note(self, entry: Entry) -> None:
        """One more entry."""
        self.cut(entry.index - 1)
        assert entry.index == GENESIS[0] + len(self.entries) + 1, "a gap in the log"
        is_request = entry.kind == EntryKind.NORMAL and bool(entry.data)
        self.entries.append(entry)
        self.requests.append(self.requests[-1] + is_request)

    def cut(self, last: int) -> None:
        """Forgets what comes behind this index."""
        kept = last - GENESIS[0]
        del self.entries[kept:], self.requests[kept + 1 :]

    def at(self, index: int) -> Entry | None:
        """The entry of this index."""
        place = index - GENESIS[0] - 1
        return self.entries[place] if 0 <= place < len(self.entries) else None

    def requests_through(self, index: int) -> int:
        """How many clients' requests the log holds up to there."""
        return self.requests[max(index - GENESIS[0], 0)]

    def copy(self) -> Journal:
        return Journal(self.entries.copy(), self.requests.copy())


@dataclass
class Life:
    """A member on its disk through all its incarnations, and what is known about it."""

    disk: VirtualDisk
    chance: Prng
    journal: Journal = field(default_factory=Journal)
    states: list[Model] = field(default_factory=lambda: [Model()])
    """`states[n]` is what the first n requests lead to; none of them changes any more."""
    answered: int = 0
    term: int = 0
    """The newest term that was certainly on the disk."""
    config: NodeConfig = _CONFIG
    member: Solo | None = None

    def branch(self, chance: Prng) -> Life:
        """The same past on a copy of the disk; no process runs there."""
        return Life(
            self.disk.copy(),
            chance,
            self.journal.copy(),
            self.states.copy(),
            self.answered,
            max(self.term, self.member.persisted_term if self.member is not None else 0),
        )

    # ---- running ---------------------------------------------------------------------------

    def begin(self) -> Solo:
        """Opens the member as it is."""
        self.member = Solo(self.disk, self.config, self.journal.note)
        return self.member

    def write_some(self) -> None:
        """One to three requests that reach the log together."""
        member = self._running()
        for _ in range(self.chance.pick((1, 1, 2, 3))):
            state = self.states[-1].copy()
            request = draw(state, self.chance)
            state.apply(request)
            self.states.append(state)
            member.write(request.kind, request.payload(), self._answer)
        member.settle()
        self.term = member.persisted_term

    def _answer(self) -> None:
        self.answered += 1

    def restart(self) -> None:
        """An orderly end and a new start."""
        self._running().stop()
        self.begin().lead()

    def go_on(self, operations: int) -> None:
        """Writes, and now and then what else a member does, for so many disk operations."""
        end = self.disk.operations + operations
        while self.disk.operations < end:
            dice = self.chance.below(40)
            if dice == 0:
                self.restart()
            elif dice <= 2:
                self._running().snapshot()
            elif dice == 3:
                self._running().defragment()
            else:
                self.write_some()

    def _running(self) -> Solo:
        assert self.member is not None, "no process runs"
        return self.member

    # ---- crashes ---------------------------------------------------------------------------

    def arm(self, within: int) -> None:
        """The process will die at one of the next disk operations, before or after its effect."""
        self.die_at(self.chance.below(within), after=self.chance.chance(1, 2))

    def die_at(self, operations: int, *, after: bool = False) -> None:
        """The process will die at the disk operation behind so many others."""
        left = operations

        def hook(_kind: str, _path: Path) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise ProcessDied

        if after:
            self.disk.after_operation = hook
        else:
            self.disk.on_operation = hook

    def crash(self, policy: CrashPolicy | None) -> None:
        """The process is gone, and with a policy the machine was down."""
        self.disk.on_operation = self.disk.after_operation = None
        if self.member is not None:
            self.term = max(self.term, self.member.persisted_term)
            self.member = None
        if policy is None:
            self.disk.kill()
        else:
            self.disk.power_loss(policy)

    def recover(self, replay: Replay | None = None) -> None:
        """Starts it and compares what is there with what must and may be."""
        member = self.begin()
        if replay is not None:
            index, state_hash = self.state_hash()
            assert replay.hashes[index] == state_hash, f"another state at entry {index}"
        start = member.start
        last = start.entries[-1].index if start.entries else start.base[0]
        assert start.hard_state.term >= self.term, "the term went back"
        assert self.journal.at(last) or last == GENESIS[0], f"entry {last} was never written"
        for entry in start.entries:
            known = self.journal.at(entry.index)
            assert entry == known, f"entry {entry.index} is {entry} and was {known}"
        there = self.journal.requests_through(last)
        assert there >= self.answered, f"{self.answered} writes were answered, {there} are there"
        assert there < len(self.states), "requests that nobody made"
        machine = member.machine
        assert machine.applied_index <= last, "the state is ahead of the log"
        self._compare(member, self.journal.requests_through(machine.applied_index))
        # What the crash has cut off never happened.
        self.journal.cut(last)
        del self.states[there + 1 :]
        member.lead()
        self.answered = there
        self._compare(member, there)

    def _compare(self, member: Solo, requests: int) -> None:
        state = self.states[requests]
        machine = member.machine
        assert machine.compact_revision == state.compacted
        assert machine.revision == state.revision
        assert frozenset(machine.leases) == state.leases
        oldest = max(state.compacted, 1)
        with member.view() as view:
            for revision in (state.revision, self.chance.between(oldest, state.revision)):
                assert pairs_of(view, revision) == state.history[revision], revision
            if oldest > 1:
                try:
                    pairs_of(view, oldest - 1)
                except EtcdError as error:
                    assert error == COMPACTED
                else:
                    raise AssertionError("a compacted revision was served")

    def state_hash(self) -> tuple[int, int]:
        """The applied index and the hash of the whole state."""
        machine = self._running().machine
        with machine.view() as view:
            return machine.applied_index, run(view.hash())


class Replay:
    """The journal's entries applied one by one to an empty store, as a second opinion."""

    def __init__(self, config: NodeConfig, journal: Journal) -> None:
        members = first_members(config.initial_cluster, config.initial_cluster_token)
        self._machine = Machine(MemoryStore(Machine.TABLES))
        self._machine.bootstrap(members.values(), index=GENESIS[0], term=GENESIS[1])
        self.hashes = dict([self._hash()])
        for entry in journal.entries:
            batch = self._machine.begin([entry], ())
            while not batch.step():
                pass
            index, state_hash = self._hash()
            self.hashes[index] = state_hash

    def _hash(self) -> tuple[int, int]:
        with self._machine.view() as view:
            return self._machine.applied_index, run(view.hash())


# ---- the campaign ---------------------------------------------------------------------------


@dataclass
class Moment:
    """A member's life right after a disk operation."""

    operation: int
    kind: str
    life: Life


def record_workload(seed: int, operations: int) -> tuple[list[Moment], Life]:
    """A life from an empty disk over about so many operations, and a copy after each of them."""
    chance = Prng(seed)
    life = Life(VirtualDisk(chance.fork("disk")), chance.fork("requests"))
    moments: list[Moment] = []

    def copied(kind: str, _path: Path) -> None:
        number = len(moments) + 1
        moments.append(Moment(number, kind, life.branch(chance.fork(f"moment {number}"))))

    life.disk.after_operation = copied
    life.begin().lead()
    for turn in range(1, operations):
        life.write_some()
        if turn % 18 == 0:
            life._running().snapshot()
        if turn % 29 == 0:
            life._running().defragment()
        if turn % 41 == 0:
            life.restart()
        if life.disk.operations >= operations:
            break
    life._running().stop()
    life.disk.after_operation = None
    return moments, life


def sweep(moments: list[Moment], whole: Life) -> Counter[str]:
    """Every moment under every crash; what ran and what happened."""
    replay = Replay(whole.config, whole.journal)
    seen: Counter[str] = Counter()
    for moment in moments:
        for policy in CRASHES:
            name = policy.value if policy is not None else "kill"
            try:
                seen.update(_one(moment.life.branch(moment.life.chance.fork(name)), policy, replay))
            except Exception as error:
                where = f"after operation {moment.operation} ({moment.kind}), {name}"
                raise AssertionError(f"{where}: {error}") from error
    return seen


def sweep_recoveries(moments: list[Moment]) -> Counter[str]:
    """Wherever names were being changed: kills the process, and then loses the power at every
    single operation of the recovery. What the first process had not synced is there for the
    second, and gone for the third."""
    seen: Counter[str] = Counter()
    for moment in moments:
        if moment.kind not in _NAME_CHANGES:
            continue
        operations = 0
        while True:
            life = moment.life.branch(Prng(operations))
            life.crash(None)
            life.die_at(operations)
            try:
                life.begin().lead()
            except ProcessDied:
                died = True
            else:
                died = False
            life.crash(CrashPolicy.DROP_ALL)
            try:
                life.recover()
            except Exception as error:
                where = f"killed after operation {moment.operation} ({moment.kind})"
                then = f"power lost at operation {operations} of the recovery"
                raise AssertionError(f"{where}, {then}: {error}") from error
            seen["recoveries"] += 1
            operations += 1
            if not died:
                break
    return seen


def _one(life: Life, policy: CrashPolicy | None, replay: Replay) -> Iterator[str]:
    """One crash, what comes after it, and a second one; names what happened, for counting."""
    chance = life.chance
    life.disk.prng = chance.fork("disk")
    life.crash(policy)
    crashed_twice = chance.chance(1, 4)
    if crashed_twice:  # it may have begun to write what the replay does not know
        life.arm(_RECOVERY_OPERATIONS)
        try:
            life.begin().lead()
        except ProcessDied:
            yield "crashes in a recovery"
        life.crash(chance.pick(CRASHES))
    life.recover(None if crashed_twice else replay)
    yield "recoveries"
    life.arm(_GO_ON_OPERATIONS)
    try:
        life.go_on(_GO_ON_OPERATIONS)
    except ProcessDied:
        yield "second crashes"
    # What a killed process left unsynced must not be taken for durable by the next one.
    life.crash(CrashPolicy.DROP_ALL if policy is None else chance.pick(CRASHES))
    life.recover()
    yield "recoveries"
    if chance.chance(1, _REPLAYED_IN):
        index, state_hash = life.state_hash()
        assert Replay(life.config, life.journal).hashes[index] == state_hash
        yield "replays compared"
    for kind in life.disk.fired.elements():
        yield f"fault {kind}"
