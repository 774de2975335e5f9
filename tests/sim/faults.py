"""What goes wrong and when: a list of decisions, drawn before anything happens.

A decision says when and what; whom it hits it decides by a stream of its own when its time comes.
So one can be left out (`shrink`) and the others still mean the same. `fired` in the world counts
what really happened, not what was planned.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Final

from kvstore.faults import POINTS
from kvstore.pb import rpc_pb2
from kvstore.storage.errors import CopyStopped, StorageError
from raft.types import Role
from tests.sim.cluster import Cluster, url_of
from tests.sim.disk import CrashPolicy
from tests.sim.frontdoor import FrontDoor
from tests.sim.operator import Operator
from tests.sim.params import Params
from tests.sim.points import Points
from tests.sim.prng import Prng
from tests.sim.process import Process
from tests.sim.rot import Rot
from tests.sim.world import MS, SECOND

__all__ = ("Decision", "Faults", "plan")

_POLICIES: Final = tuple(CrashPolicy)
_MAINTENANCE: Final = "/etcdserverpb.Maintenance/"
_MEMBER_ADD: Final = "/etcdserverpb.Cluster/MemberAdd"
_MEMBERS_MAX: Final = 8
_SUPERVISED_NS: Final = 20 * MS
_ROT_TRIES: Final = 30


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing that is to happen. `number` names it, whatever else is left out."""

    number: int
    at_ns: int
    kind: str


def plan(params: Params) -> list[Decision]:
    """All decisions of a seed, by time."""
    decisions: list[tuple[int, str]] = []
    for kind, often in params.rates.items():
        chance = Prng(params.seed).fork(f"plan {kind}")
        thousandths = int(often * params.ticks)
        count = thousandths // 1000 + chance.chance(thousandths % 1000, 1000)
        # Not in the first second: there should be something to break.
        decisions += [(chance.between(SECOND, params.safety_ns), kind) for _ in range(count)]
    decisions.sort()
    return [Decision(number, at_ns, kind) for number, (at_ns, kind) in enumerate(decisions)]


class Faults:
    """Carries the decisions out, restarts what has died, and ends everything when told to."""

    def __init__(
        self,
        cluster: Cluster,
        door: FrontDoor,
        operator: Operator,
        points: Points,
        decisions: list[Decision],
        skipped: Container[int] = (),
    ) -> None:
        self.cluster = cluster
        self.door = door
        self.operator = operator
        self.points = points
        self.over = False
        self._world = cluster.world
        self._network = cluster.network
        self._supervisor = self._world.prng.fork("supervisor")
        self._up_at: dict[str, int] = {}
        """When a machine that is down is started again."""
        self._gone: dict[str, None] = {}
        """Machines whose member is one no more."""
        self._undo: dict[int, Callable[[], None]] = {}
        self._undone = 0
        self._decay = Rot(cluster)
        for decision in decisions:
            if decision.number not in skipped:
                self._world.at(decision.at_ns, self._carry_out, decision)
        self._world.after(_SUPERVISED_NS, self._supervise)

    # ---- the frame -------------------------------------------------------------------------

    def _carry_out(self, decision: Decision) -> None:
        if self.over:
            return
        chance = self._world.prng.fork(f"fault {decision.number} {decision.kind}")
        act = getattr(self, "_" + decision.kind.replace(" ", "_"))
        if act(chance) is not False:
            self._world.fire(decision.kind)
            self._world.log(f"fault {decision.number} {decision.kind}")

    def _for_a_while(self, duration_ns: int, undo: Callable[[], None]) -> None:
        """Takes a fault back after a time, or when all faults end."""
        self._undone += 1
        number = self._undone
        self._undo[number] = undo
        self._world.after(duration_ns, self._take_back, number)

    def _take_back(self, number: int) -> None:
        undo = self._undo.pop(number, None)
        if undo is not None:
            undo()

    def end(self) -> None:
        """All faults stop; what was cut is mended, who sleeps wakes up. The dead come back."""
        self.over = True
        for number in list(self._undo):
            self._take_back(number)
        self.operator.before_promotion = None
        self.points.end()
        self._network.calm = True
        self.door.loss_rate = 0
        for process in self.cluster.processes.values():
            process.disk.disarm()
            process.disk.capacity_bytes = None
            process.disk.slowness_percent = 100
            process.spare()
            process.resume()
            process.set_clock_rate(100)
        now_ns = self._world.now_ns
        self._up_at = {name: min(at_ns, now_ns) for name, at_ns in self._up_at.items()}

    def _supervise(self) -> None:
        """Starts what has died, after a while."""
        now_ns = self._world.now_ns
        for process in list(self.cluster.processes.values()):
            joins = process.name not in self.cluster.founders
            if process.alive or process.spoilt or (joins and not process.begun):
                self._up_at.pop(process.name, None)
                continue
            if self._is_gone(process):
                continue
            due_ns = self._up_at.get(process.name)
            if due_ns is None:
                down_ns = self._supervisor.between(*self.cluster.params.down_ns)
                self._up_at[process.name] = now_ns + (50 * MS if self.over else down_ns)
            elif due_ns <= now_ns:
                del self._up_at[process.name]
                process.launch()
        self._world.after(_SUPERVISED_NS, self._supervise)

    def _is_gone(self, process: Process) -> bool:
        """Whether it has noticed that its member was removed, which is for ever."""
        if process.removed and process.name not in self._gone:
            members = self.cluster.members()
            if members and process.member_id not in members:
                self._gone[process.name] = None
        return process.name in self._gone

    def _stay_down(self, process: Process, duration_ns: int) -> None:
        self._up_at[process.name] = self._world.now_ns + duration_ns

    def _victim(self, chance: Prng) -> Process | None:
        """Some process that is up; the leader more often than its share."""
        leader = self.cluster.leader()
        if leader is not None and chance.chance(1, 4):
            return leader
        live = self.cluster.live()
        return chance.pick(live) if live else None

    # ---- ends of processes -----------------------------------------------------------------

    def _kill(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        victim.kill()
        return True

    def _power_loss(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        victim.power_loss(chance.pick(_POLICIES))
        return True

    def _crash_at_operation(self, chance: Prng) -> bool:
        """At some disk operation soon, the first one of a restart included."""
        victim = self._victim(chance)
        if victim is None:
            return False
        policy = chance.pick(_POLICIES) if chance.chance(2, 3) else None
        again = chance.chance(1, 3)
        victim.crash_at(chance.below(20), after=chance.chance(1, 2), policy=policy)
        if again:
            # And once more while it recovers.
            victim.crash_at_start(chance.below(25), after=chance.chance(1, 2), policy=policy)
        return True

    def _crash_at_point(self, chance: Prng) -> bool:
        """When it next passes a named point of the program, one that is passed in this seed."""
        victim = self._victim(chance)
        names = [name for name in POINTS if self.points.passed[name]]
        if victim is None or not names:
            return False
        victim.crash_point = (chance.pick(names), chance.between(1, 3))
        return True

    def _restart(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None or not victim.serving:
            return False
        victim.stop()
        return True

    def _long_outage(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        victim.kill()
        self._stay_down(victim, chance.between(10, 40) * SECOND)
        return True

    def _all_at_once(self, chance: Prng) -> bool:
        policy = chance.pick(_POLICIES)
        power = chance.chance(1, 2)
        for process in self.cluster.live():
            if power:
                process.power_loss(policy)
            else:
                process.kill()
        return True

    # ---- time ------------------------------------------------------------------------------

    def _pause(self, chance: Prng, suspend: bool = False) -> bool:
        victim = self._victim(chance)
        if victim is None or victim.paused:
            return False
        victim.pause(suspend=suspend)
        self._for_a_while(_duration(chance), victim.resume)
        return True

    def _suspend(self, chance: Prng) -> bool:
        return self._pause(chance, suspend=True)

    def _clock_rate(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None or victim.paused:
            return False
        victim.set_clock_rate(chance.pick((90, 95, 100, 105, 110)))
        return True

    def _wall_clock(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        victim.clock.wall_offset_s += chance.between(-3_600_000, 3_600_000) / 1_000
        return True

    # ---- the network -----------------------------------------------------------------------

    def _cut(self, pairs: list[tuple[str, str]], chance: Prng) -> None:
        if self.over:
            return
        for source, target in pairs:
            self._network.cut(source, target)

        def undo() -> None:
            for source, target in pairs:
                self._network.mend(source, target)

        self._for_a_while(_duration(chance), undo)
        if chance.chance(1, 3):
            for source, target in pairs:
                self._network.reset(source, target)

    def _others(self, process: Process) -> list[str]:
        return [name for name in self.cluster.processes if name != process.name]

    def _isolate(self, chance: Prng, victim: Process | None = None) -> bool:
        victim = victim or self._victim(chance)
        if victim is None:
            return False
        others = self._others(victim)
        pairs = [(victim.name, other) for other in others]
        self._cut(pairs + [(other, victim.name) for other in others], chance)
        return True

    def _isolate_leader(self, chance: Prng) -> bool:
        leader = self.cluster.leader()
        return leader is not None and self._isolate(chance, leader)

    def _cut_one_way(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        others = self._others(victim)
        outward = chance.chance(1, 2)
        pairs = [(victim.name, o) if outward else (o, victim.name) for o in others]
        self._cut(pairs, chance)
        return True

    def _partial(self, chance: Prng) -> bool:
        """Some pairs cannot talk, but everybody can talk to somebody."""
        names = chance.shuffled(list(self.cluster.processes))
        if len(names) < 3:
            return False
        pairs: list[tuple[str, str]] = []
        for first, second in zip(names[::2], names[1::2], strict=False):
            pairs += [(first, second), (second, first)]
        self._cut(pairs, chance)
        return True

    def _swizzle(self, chance: Prng) -> bool:
        """Clogs the links of some machines one after the other, and frees them in another order."""
        names = chance.shuffled(list(self.cluster.processes))
        chosen = names[: chance.between(1, max(1, len(names) - 1))]
        released = chance.shuffled(chosen)
        begin_ns = 0
        for name in chosen:
            begin_ns += chance.between(10, 300) * MS
            self._world.after(begin_ns, self._clog, name)
        for name in released:
            begin_ns += chance.between(10, 500) * MS
            self._for_a_while(begin_ns, lambda name=name: self._unclog(name))  # type: ignore[misc]
        return True

    def _clog(self, name: str) -> None:
        if not self.over:
            for other in self.cluster.processes:
                self._network.clog(name, other)
                self._network.clog(other, name)

    def _unclog(self, name: str) -> None:
        for other in self.cluster.processes:
            self._network.unclog(name, other)
            self._network.unclog(other, name)

    def _reset(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        for other in self._others(victim):
            if chance.chance(1, 2):
                self._network.reset(victim.name, other)
            if chance.chance(1, 2):
                self._network.reset(other, victim.name)
        return True

    # ---- disks -----------------------------------------------------------------------------

    def _slow_disk(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        disk = victim.disk
        disk.slowness_percent = chance.pick((1_000, 10_000, 50_000))

        def undo() -> None:
            disk.slowness_percent = 100

        self._for_a_while(_duration(chance), undo)
        return True

    def _disk_error(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        kind = chance.weighted(
            [(4, "write"), (6, "sync"), (2, "sync dir"), (2, "create"), (1, "rename"), (1, "read"),
             (2, "store commit"), (1, "unlink")]
        )  # fmt: skip
        victim.disk.arm(kind, skip=chance.below(10), errno=errno.EIO)
        return True

    def _disk_full(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None:
            return False
        disk = victim.disk
        disk.capacity_bytes = disk.used_bytes() + chance.below(20_000)

        def undo() -> None:
            disk.capacity_bytes = None

        self._for_a_while(_duration(chance), undo)
        return True

    def _rot(self, chance: Prng, tries: int = _ROT_TRIES) -> bool:
        """Damage at rest, as soon as the atlas allows it."""
        victims = self._decay.victims()
        if not victims:
            if tries and not self.over:
                self._world.after(200 * MS, self._rot_later, chance, tries - 1)
            return False
        victim = chance.pick(victims)
        damaged = self._decay.damage(victim, chance)
        if damaged:
            self._world.log(f"{victim.name} rots: {damaged}")
            # It is noticed when it is read: soon after, or much later.
            if chance.chance(2, 3):
                victim.kill()
        return bool(damaged)

    def _rot_later(self, chance: Prng, tries: int) -> None:
        if not self.over and self._rot(chance, tries):
            self._world.fire("rot")

    # ---- disturbances ----------------------------------------------------------------------

    def _transfer_leader(self, chance: Prng) -> bool:
        leader = self.cluster.leader()
        if leader is None or not leader.serving:
            return False
        self._move_leader(leader, chance.pick(leader.core.raft.conf.voters or (0,)))
        return True

    def _campaign(self, chance: Prng) -> bool:
        followers = [p for p in self.cluster.live() if p.core.role is Role.FOLLOWER]
        if not followers:
            return False
        victim = chance.pick(followers)

        def campaign() -> None:
            victim.core.raft.campaign()
            running = victim.running
            assert running is not None
            running.loop.wake()

        victim.loop.call_soon(campaign)
        return True

    def _defragment(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None or not victim.serving:
            return False
        self._ask(victim, _MAINTENANCE + "Defragment", b"")
        return True

    def _snapshot(self, chance: Prng) -> bool:
        victim = self._victim(chance)
        if victim is None or not victim.serving:
            return False
        running = victim.running
        assert running is not None

        async def make() -> None:
            try:
                await running.snapshots.make()
            except (StorageError, CopyStopped):
                return

        victim.loop.call_soon(lambda: victim.loop.create_task(make()))
        return True

    def _membership(self, chance: Prng) -> bool:
        return self.operator.churn()

    def _old_words(self, chance: Prng) -> bool:
        """What a follower says is held up until its leader has lost and regained its office; from
        then on the follower does not hear that leader for a while."""
        leader = self.cluster.leader()
        if leader is None:
            return False
        voters = [self.cluster.of_member(voter) for voter in leader.core.raft.conf.voters]
        others = [p for p in voters if p is not None and p is not leader and p.serving]
        if len(others) < 2 or not leader.serving:
            return False
        follower, deputy = chance.shuffled(others)[:2]
        says, hears = (follower.name, leader.name), (leader.name, follower.name)
        self._network.clog(*says)
        at_ns = chance.between(100, 500) * MS
        for process, target in ((leader, deputy), (deputy, leader)):
            self._world.after(at_ns, self._move_leader, process, target.member_id)
            at_ns += chance.between(100, 400) * MS
        self._for_a_while(at_ns, lambda: self._network.unclog(*says))
        self._world.after(at_ns // 2, self._cut, [hears], chance)
        return True

    def _move_leader(self, process: Process, target: int) -> None:
        if process.serving and not self.over:
            request = rpc_pb2.MoveLeaderRequest(targetID=target)
            self._ask(process, _MAINTENANCE + "MoveLeader", request.SerializeToString())

    def _two_changes(self, chance: Prng) -> bool:
        """Two operators who do not know of each other add a member at the same moment."""
        serving = [p for p in self.cluster.live() if p.serving]
        if not serving or len(self.cluster.members()) + 2 > _MEMBERS_MAX:
            return False
        for _ in range(2):
            request = rpc_pb2.MemberAddRequest(
                peerURLs=[url_of(self.cluster.new_name())], isLearner=chance.chance(1, 2)
            )
            self._ask(chance.pick(serving), _MEMBER_ADD, request.SerializeToString())
        return True

    def _lost_promotion(self, chance: Prng) -> bool:
        """The next learner that is made a voter does not hear of it, and the leader dies."""
        self.operator.before_promotion = lambda learner: self._forsake(learner, chance)
        self.operator.churn()
        return True

    def _forsake(self, learner: Process, chance: Prng) -> None:
        self._world.fire("learner forsaken")
        self._world.log(f"{learner.name} will not hear that it is a voter")
        pairs = [(learner.name, other) for other in self._others(learner)]
        pairs += [(other, learner.name) for other in self._others(learner)]
        for source, target in pairs:
            self._network.cut(source, target)
        leader_ends_ns = chance.between(50, 500) * MS

        def undo() -> None:
            for source, target in pairs:
                self._network.mend(source, target)

        self._world.after(leader_ends_ns, self._lose_leader, chance.between(1, 4) * SECOND)
        self._for_a_while(leader_ends_ns + chance.between(0, 200) * MS, undo)

    def _lose_leader(self, duration_ns: int) -> None:
        leader = self.cluster.leader()
        if leader is not None and not self.over:
            leader.kill()
            self._stay_down(leader, duration_ns)

    def _ask(self, process: Process, method: str, payload: bytes) -> None:
        def told(answer: Any) -> None:
            self._world.log(f"operator {method} at {process.name}: {answer.text}")

        self.door.call(process, method, payload, 10 * SECOND, told)


def _duration(chance: Prng) -> int:
    """How long something lasts: mostly short, sometimes many election timeouts."""
    return chance.weighted(
        [
            (4, chance.between(20, 500) * MS),
            (3, chance.between(500, 3_000) * MS),
            (1, chance.between(3_000, 12_000) * MS),
        ]
    )
