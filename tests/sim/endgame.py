"""After the faults: a healed quorum must lead, agree and serve, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raft.types import ConfChange, ConfChangeKind, EntryKind
from tests.linear.history import Outcome, Put, Range
from tests.sim.books.instances import instances_of
from tests.sim.clients import Clients, Script, Sleep, run_script
from tests.sim.cluster import Cluster
from tests.sim.faults import Faults
from tests.sim.frontdoor import FrontDoor
from tests.sim.observer import Violated
from tests.sim.operator import Operator
from tests.sim.process import Process
from tests.sim.registrants import Registrants
from tests.sim.world import MS, SECOND

__all__ = ("Endgame",)

_LEADER_ELECTIONS: Final = 10
_EQUAL_ELECTIONS: Final = 50
_SETTLE_ELECTIONS: Final = 30
_SERVED: Final = 10
_START_NS: Final = 20 * SECOND
"""For everybody in the core to come up again: recovery is no election."""
_CLIENT: Final = 900


class Endgame:
    """Plays the phases after safety on one cluster."""

    def __init__(
        self,
        cluster: Cluster,
        clients: Clients,
        registrants: Registrants,
        operator: Operator,
        faults: Faults,
        door: FrontDoor,
    ) -> None:
        self.cluster = cluster
        self._chosen: list[Process] = []
        self._clients = clients
        self._registrants = registrants
        self._operator = operator
        self._faults = faults
        self._door = door
        self._world = cluster.world
        self._chance = cluster.world.prng.fork("endgame")

    def play(self) -> bool:
        """True once liveness was shown; False if this seed cannot demand it, or a violation."""
        world, params = self._world, self.cluster.params
        self._faults.end()
        self._operator.stop()
        world.log("faults end")
        if not self._wait(self._core_can_be_chosen, _START_NS):
            # Everybody talks to everybody now: what was half done gets done.
            world.run(world.now_ns + _SETTLE_ELECTIONS * params.election_ns)
        if world.violation is not None:
            return False
        if not self._core_can_be_chosen():
            world.fire("liveness not demanded")
            self._quieten()
            return False
        self._choose_core()
        election_ns = params.election_ns
        if not self._wait(self._core_is_up, _START_NS):
            return self._failed(f"the core did not come up: {self._state()}")
        if not self._wait(self._core_is_connected, _START_NS):
            return self._failed("the members of the core do not find each other")
        if not self._wait(self._core_has_leader, (_LEADER_ELECTIONS + 2) * election_ns):
            return self._failed(
                f"no leader within {_LEADER_ELECTIONS} election timeouts: {self._state()}"
            )
        served: list[int] = []
        run_script(world, self._door, self._serve(served))
        if not self._wait(
            lambda: len(served) == 2 * _SERVED, _EQUAL_ELECTIONS * election_ns + SECOND
        ):
            return self._failed(f"{len(served)} of {2 * _SERVED} requests served: {self._state()}")
        self._clients.stop()
        if not self._wait(self._core_is_equal, _EQUAL_ELECTIONS * election_ns + 10 * SECOND):
            return self._failed(f"the core does not agree: {self._state()}")
        world.show("phase_ended", "liveness")
        if params.registrants:
            self._fall_silent()
        self._compare()
        self._quieten()
        return world.violation is None

    def _fall_silent(self) -> None:
        """No instance sends heartbeats any more: time passes until all should be gone."""
        world, params = self._world, self.cluster.params
        self._wait(lambda: not self._registrants.outstanding, params.client_timeout_ns + SECOND)
        book = instances_of(world)
        # Twice: a guard that ends in the middle gives the grace time once more.
        longest_s = params.ttl_s[1] + 2 * params.grace_s[1] + params.guard_hold_s
        self._wait(
            lambda: not any(state.owned for state in book.now().values()),
            longest_s * SECOND + _SETTLE_ELECTIONS * params.election_ns,
        )
        if world.violation is None and self._core_has_leader():
            world.show("phase_ended", "silence")

    # ---- the core --------------------------------------------------------------------------

    @property
    def core(self) -> list[Process]:
        """The chosen, but for those whose removal was on its way and has come."""
        return [process for process in self._chosen if not process.removed]

    def _able(self) -> list[Process]:
        """Machines that can run a member that there is."""
        members = self.cluster.members()
        return [
            process
            for process in self.cluster.processes.values()
            if process.begun and not process.spoilt and process.member_id in members
        ]

    def _configurations(self) -> list[list[int]]:
        """The voters of every configuration that is in force, or may come, at some member."""
        found: list[list[int]] = []
        for process in self._able():
            if not process.alive or process.running is None:
                continue
            raft = process.core.raft
            voters = list(raft.conf.voters)
            found.append(list(voters))
            for index in range(max(raft.first_index, raft.applied_index + 1), raft.last_index + 1):
                entry = raft._state.log.slice_from(index, 1)[0][0]
                if entry.kind != EntryKind.CONF_CHANGE:
                    continue
                change = ConfChange.decode(entry.data)
                if change.kind == ConfChangeKind.ADD_VOTER and change.node_id not in voters:
                    voters = [*voters, change.node_id]
                elif change.kind == ConfChangeKind.REMOVE:
                    voters = [each for each in voters if each != change.node_id]
                found.append(list(voters))
        return found

    def _core_can_be_chosen(self) -> bool:
        able = self._able()
        if any(not process.alive or process.running is None for process in able):
            return False
        return self._is_quorum(able)

    def _is_quorum(self, processes: list[Process]) -> bool:
        ids = [process.member_id for process in processes]
        configurations = self._configurations()
        return bool(configurations) and all(
            sum(voter in ids for voter in voters) > len(voters) // 2 for voters in configurations
        )

    def _choose_core(self) -> None:
        chance, network = self._chance, self.cluster.network
        core = chance.shuffled(self._able())
        for candidate in list(core):
            fewer = [process for process in core if process is not candidate]
            if self._is_quorum(fewer) and chance.chance(1, 2):
                core = fewer
        self._chosen = core
        names = [process.name for process in core]
        for process in self.cluster.processes.values():
            if process.name in names:
                continue
            # Nobody outside may keep some of the core as its quorum and starve the rest of it: a
            # leader that half of a cluster hears well is one that Raft has no means against.
            kinds = [(2, "cut"), (1, "hears only"), (1, "well"), (1, "dead")]
            if self.cluster.params.pre_vote:
                # Whoever is heard but hears nobody asks for votes for ever; without the round of
                # questions before an election, nothing in Raft can stop it from getting some.
                kinds += [(1, "heard only")]
            how = chance.weighted(kinds)
            self._world.log(f"outside the core: {process.name} {how}")
            if how == "dead":
                process.kill()
                self._faults._stay_down(process, 1_000_000 * SECOND)
            for name in names:
                if how in ("cut", "hears only") or (how == "heard only" and chance.chance(1, 3)):
                    network.cut(process.name, name)
                if how in ("cut", "heard only"):
                    network.cut(name, process.name)
        self._world.log(f"core {' '.join(names)}")

    def _core_is_up(self) -> bool:
        return all(process.serving for process in self.core)

    def _core_is_connected(self) -> bool:
        listening = self.cluster.network.listening
        for process in self.core:
            transport = listening.get(process.name)
            if transport is None:
                return False
            for other in self.core:
                link = transport.link_to(other.name)
                if link is not None and not link.connected_to(listening.get(other.name)):
                    return False
        return True

    def _core_has_leader(self) -> bool:
        """Whether all of the core follow the same one, who may be outside if that works."""
        live = self.cluster.live()
        if any(process not in live for process in self.core):
            return False
        followed = {process.core.leader_id for process in self.core}
        if len(followed) != 1:
            return False
        leader = self.cluster.of_member(followed.pop())
        return leader is not None and leader in live and leader.core.is_leader

    def _core_is_equal(self) -> bool:
        if not (self._core_is_up() and self._core_has_leader()):
            return False
        applied = [process.core.applier.applied_index for process in self.core]
        commits = [process.core.raft.last_index for process in self.core]
        idle = all(p.core.applier.idle and p.machine.swept for p in self.core)
        return idle and min(applied) == max(applied) == max(commits)

    # ---- work ------------------------------------------------------------------------------

    def _serve(self, served: list[int]) -> Script:
        """Writes and reads at members of the core until enough of each have been answered."""
        voters = [p for p in self.core if not self.cluster.members()[p.member_id].is_learner]
        for number in range(2 * _SERVED):
            while True:
                process = self._chance.pick(voters)
                key = b"end%d" % (number // 2)
                value = b"%d.%d.%d" % (_CLIENT, number, self._world.now_ns)
                request = Range(key) if number % 2 else Put(key, value)
                done = yield from self._clients.request(_CLIENT, process, request)
                if done.outcome is Outcome.OK:
                    break
                yield Sleep(10 * MS)
            served.append(number)

    def _wait(self, condition: Callable[[], bool], patience_ns: int) -> bool:
        """Lets the world go on until the condition holds; False when time runs out."""
        world = self._world
        deadline_ns = world.now_ns + patience_ns
        while not condition():
            if world.now_ns >= deadline_ns or world.violation is not None:
                return False
            world.run(world.now_ns + 10 * MS)
        return world.violation is None

    def _quieten(self) -> None:
        """Nobody asks for anything any more, and what is under way comes to its end."""
        self._clients.stop()
        self._world.run(self._world.now_ns + self.cluster.params.client_timeout_ns + SECOND)

    def _compare(self) -> None:
        """Members of the core that have applied the same hold the same."""
        hashes: dict[int, tuple[str, int]] = {}
        for process in self.core:
            applied = process.core.applier.applied_index
            value = _state_hash(process)
            known = hashes.setdefault(applied, (process.name, value))
            if known[1] != value:
                self._world.violate(
                    Violated("I28", f"{known[0]} and {process.name} differ at entry {applied}")
                )

    def _state(self) -> str:
        parts = []
        for process in self.core:
            if not process.alive or process.running is None:
                parts.append(f"{process.name} down {process.ended_with}")
                continue
            core = process.core
            parts.append(
                f"{process.name} {core.role.name} term {core.term} leader {core.leader_id:x} "
                f"applied {core.applier.applied_index} commit {core.raft.commit_index} "
                f"last {core.raft.last_index}"
            )
        return "; ".join(parts)

    def _failed(self, sentence: str) -> bool:
        self._world.violate(Violated("I12", sentence))
        return False


def _state_hash(process: Process) -> int:
    """The hash that members compare, of all that the member holds."""
    view = process.machine.view()
    try:
        job = view.hash()
        while True:
            try:
                next(job)
            except StopIteration as finished:
                return int(finished.value)
    finally:
        view.close()
