"""One member's machine and the processes that run on it, one after the other.

The machine is a virtual disk and two clocks; a process is a Node with its API on a `SimLoop`.
Killing it ends its disk session and its loop at once, so nothing of it has any further effect. A
process that ends by itself must have a reason that a fault explains; otherwise that is a bug.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kvstore.api.call import MethodTable
from kvstore.api.services.registration import build_api
from kvstore.machine import Machine
from kvstore.metrics import Metrics
from kvstore.node.config import NodeConfig
from kvstore.node.errors import (
    ClusterUnreachable,
    DataDirUnusable,
    NotAMember,
    StartupError,
    StopKind,
)
from kvstore.node.lifecycle import Running
from kvstore.node.member import MemberCore
from kvstore.node.node import Node
from kvstore.node.recovery import Start
from kvstore.registry.registry import Registry
from kvstore.storage.errors import DiskFailed, StorageError
from kvstore.storage.wal import Wal
from kvstore.watch.hub import WatchHub
from raft.node import RaftNode
from tests.sim.books.inside import fingerprint
from tests.sim.clock import Clock
from tests.sim.disk import CrashPolicy, DiskSession, ProcessDied, VirtualDisk
from tests.sim.host import SimHost
from tests.sim.loop import SimLoop
from tests.sim.observer import Violated
from tests.sim.prng import Prng
from tests.sim.world import SECOND, World

if TYPE_CHECKING:
    from tests.sim.network import SimNetwork

__all__ = ("Process",)

_NEVER: Final = sys.maxsize
_STOPPED_NS: Final = 60 * SECOND
"""A process that is not paused has stopped after so long, whatever its disk and peers do."""
_DAMAGE: Final = ("flipped", "zeroed", "stale", "misdirected", "EIO", "out of space", "cut short")
"""Words in the names of those disk faults that a member may stop for."""


class Process:
    """One member: its machine, and the process that runs there now, if any."""

    def __init__(self, world: World, network: SimNetwork, config: NodeConfig, clock: Clock) -> None:
        self.world = world
        self.name = config.name
        self.config = config
        self.clock = clock
        self.chance = world.prng.fork(f"process {self.name}")
        self.disk = VirtualDisk(world.prng.fork(f"disk {self.name}"))
        self.incarnation = 0
        self.alive = False
        self.paused = False
        self.serving = False
        """True while clients are let in."""
        self.member_id = 0
        self.node: Node | None = None
        self.registry: Registry | None = None
        self.table: MethodTable | None = None
        self.loop: SimLoop
        self.ended_with = ""
        """Why the last process here ended by itself; empty when it did not."""
        self.spoilt = False
        """The files here are refused: only a replacement of the member helps."""
        self.begun = False
        """A process here has recovered or founded its files: it may be started again as it is."""
        self.removed = False
        """The member was removed from the cluster, and its process has noticed."""
        self.guests: dict[int, Callable[[], None]] = {}
        """Clients that are connected now: whom to tell when the process is gone."""
        self.iteration_ns = world.params.iteration_ns
        self.drag_ns = 0
        """How much longer the present turn takes."""
        self.crash_point = ("", 0)
        """The named point of the program at which the process dies, and at which passage."""
        self._tickets = 0
        self._crash_at_start: tuple[int, bool, CrashPolicy | None] | None = None
        self._network = network
        self._metrics = Metrics()
        self._session: DiskSession | None = None
        self._looked: tuple[Any, ...] = ()
        self._armed_ns = _NEVER
        self._busy_until_ns = 0
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._graves: list[SimLoop] = []
        world.processes[self.name] = self

    # ---- what observers ask ----------------------------------------------------------------

    @property
    def running(self) -> Running | None:
        """The parts of the started node; None before they are put together and after a death."""
        return self.node._running if self.node is not None else None

    def _parts(self) -> Running:
        running = self.running
        assert running is not None, f"{self.name} does not run"
        return running

    @property
    def core(self) -> MemberCore:
        return self._parts().core

    @property
    def raft(self) -> RaftNode:
        return self._parts().core.raft

    @property
    def machine(self) -> Machine:
        return self._parts().core.machine

    @property
    def hub(self) -> WatchHub:
        return self._parts().core.hub

    @property
    def wal(self) -> Wal:
        return self._parts().opened.wal

    @property
    def start(self) -> Start:
        """What the present process found on the disk."""
        return self._parts().opened.start

    @property
    def session(self) -> DiskSession:
        """The disk as the present process uses it."""
        assert self._session is not None, f"{self.name} never ran"
        return self._session

    def true_now(self) -> int:
        """True time in nanoseconds."""
        return self.world.now_ns

    # ---- life and death --------------------------------------------------------------------

    def launch(self) -> None:
        """Starts a process; whether it comes up shows later."""
        assert not self.alive, f"{self.name} runs already"
        self.incarnation += 1
        self.clock.thaw_if_frozen()  # A machine that was killed in its sleep is awake now.
        self.alive = True
        self.paused = False
        self.ended_with = ""
        self._session = session = self.disk.session()
        self.loop = SimLoop(self.clock.now, self._wanted, self._failed)
        self._armed_ns = _NEVER
        self._busy_until_ns = self.world.now_ns
        if self._crash_at_start is not None:
            (operations, after, policy), self._crash_at_start = self._crash_at_start, None
            self.crash_at(operations, after=after, policy=policy)
        host = SimHost(self, session)
        network = self._network.of(self)
        self.node = Node(self.config, self._metrics, network=network, host=host)
        self.world.log(f"{self.name} launched #{self.incarnation}")
        self.loop.call_soon(self._begin, self.node)

    def _begin(self, node: Node) -> None:
        self.loop.create_task(self._live(node))

    async def _live(self, node: Node) -> None:
        """What the daemon does: starts the node, serves from it, stops it when it must end."""
        try:
            await node.start()
        except (StartupError, StorageError) as error:
            self._refused(error)
            return
        self.registry = Registry(node)
        self.registry.start()
        self.table = build_api(node, self.registry.service).table
        self.serving = True
        self.world.log(f"{self.name} serves")
        reason = await node.wait_stopped()
        self.serving = False
        if reason.kind is not StopKind.ASKED:
            await self._stop(node)
        if not self.alive:
            return
        self._ended_by_itself(reason.kind, reason.message)

    def wire_up(self) -> None:
        """Recovery is done: whoever watches is put in place before the first turn."""
        running = self._parts()
        self.member_id = running.member_id
        self.begun = True
        core, world = running.core, self.world
        applier = core.applier
        finish, installed = applier._finish, core.installed

        def finished(batch: Any) -> None:
            entries = applier._entries
            world.chronicle.note(self.name, batch.changes)
            finish(batch)
            world.log(f"{self.name} applied {entries[-1].index} revision {core.machine.revision}")
            world.show("applied", self, entries, batch.results)

        def replaced(persist: Any, machine: Machine) -> Any:
            batch = installed(persist, machine)
            meta = persist.snapshot
            world.chronicle.catch_up(self.name, machine)
            world.log(f"{self.name} installed {meta.index} term {meta.term}")
            world.fire("snapshot installed")
            world.show("installed", self, meta.index, meta.term)
            return batch

        applier._finish = finished  # type: ignore[method-assign]
        core.installed = replaced  # type: ignore[method-assign]
        start = running.opened.start
        world.log(
            f"{self.name} recovered member {self.member_id:x} base {start.base[0]} "
            f"entries {len(start.entries)} term {start.hard_state.term} "
            f"applied {core.applier.applied_index}"
        )
        world.chronicle.catch_up(self.name, core.machine)
        world.show("started", self)

    def stop(self) -> None:
        """Asks the process to stop in order; it may take a while."""
        if self.serving and self.node is not None:
            self.world.log(f"{self.name} asked to stop")
            self.serving = False
            node = self.node
            self.loop.call_soon(lambda: self.loop.create_task(self._stop(node)))
            self.later(_STOPPED_NS, self._still_there)

    async def _stop(self, node: Node) -> None:
        """A stop that fails ends the process all the same, with another exit code."""
        try:
            registry, self.registry = self.registry, None
            if registry is not None:
                await registry.stop()
            await node.stop()
        except StorageError as error:
            self._ended_by_itself(StopKind.DISK, str(error))
        except Exception as error:
            self._failed("stopping", error)

    def _still_there(self) -> None:
        """It was asked to stop long ago."""
        self.world.violate(Violated("K5", f"{self.name} has not stopped for a minute"))

    def kill(self) -> None:
        """SIGKILL: the page cache stays."""
        if self.alive:
            self.disk.kill()
            self._die("killed")

    def power_loss(self, policy: CrashPolicy) -> None:
        """The machine loses power: what was not synced is as the policy has it."""
        was_alive = self.alive
        self._end_process()
        self.disk.power_loss(policy)
        self.clock.reboot()
        self.world.log(f"{self.name} power loss: {policy.value}")
        if was_alive:
            self._tell_stopped(f"power loss: {policy.value}", notice=False)

    def crash_at(self, operations: int, *, after: bool, policy: CrashPolicy | None) -> None:
        """Dies at the disk operation that comes after so many others, before or after its effect;
        with a policy it is the power that goes."""
        left = operations

        def hook(kind: str, path: Any) -> None:
            nonlocal left
            left -= 1
            if left >= 0 or not self.alive:
                return
            self.disk.on_operation = self.disk.after_operation = None
            self.world.log(f"{self.name} crashes {'after' if after else 'before'} {kind} {path}")
            self.world.fire(f"crash at {kind}")
            if policy is None:
                self.kill()
            else:
                self.power_loss(policy)
            raise ProcessDied

        if after:
            self.disk.after_operation = hook
        else:
            self.disk.on_operation = hook

    def crash_at_start(self, operations: int, *, after: bool, policy: CrashPolicy | None) -> None:
        """The same for the next process, counted from its first disk operation."""
        self._crash_at_start = (operations, after, policy)

    def spare(self) -> None:
        """No crash is planned for this machine any more."""
        self.crash_point = ("", 0)
        self.disk.on_operation = self.disk.after_operation = None
        self._crash_at_start = None

    def _die(self, why: str) -> None:
        self._end_process()
        self.world.log(f"{self.name} {why}")
        self._tell_stopped(why, notice=True)

    def _end_process(self) -> None:
        """Nothing of the present process has any effect from here on."""
        if not self.alive:
            return
        self.alive = self.paused = self.serving = False
        self.crash_point = ("", 0)
        self.disk.on_operation = self.disk.after_operation = None
        assert self._session is not None
        self._session.end()
        self.loop.die()
        self._graves.append(self.loop)
        self._held.clear()

    def admit(self, cut_off: Callable[[], None]) -> int:
        """A client has connected; `cut_off` is called if the process dies first."""
        self._tickets += 1
        self.guests[self._tickets] = cut_off
        return self._tickets

    def _tell_stopped(self, why: str, *, notice: bool) -> None:
        self._network.died(self, notice=notice)
        guests, self.guests = self.guests, {}
        for cut_off in guests.values():
            cut_off()
        self.world.show("stopped", self, why)
        self.node = None
        self.registry = None
        self.table = None

    def _refused(self, error: Exception) -> None:
        """The start has failed. Only some reasons are good ones."""
        self.ended_with = f"{type(error).__name__}: {error}"
        if isinstance(error, StorageError | DataDirUnusable):
            # An operation that failed may do better next time; what is damaged stays so.
            self.spoilt = not isinstance(error, DiskFailed)
            if not self.damaged():
                self._unexplained(self.ended_with)
            self.world.fire("start refused")
        elif not self.begun or isinstance(error, ClusterUnreachable):
            pass  # It found nobody, or members that do not know of it yet: it is tried again.
        elif isinstance(error, NotAMember):
            self.removed = True
        else:
            self._unexplained(self.ended_with)
        self._die(f"did not start: {self.ended_with}")

    def _ended_by_itself(self, kind: StopKind, message: str) -> None:
        self.ended_with = f"{kind.value}: {message}"
        if kind is StopKind.REMOVED:
            self.removed = True
        elif kind is StopKind.BUG or (kind is not StopKind.ASKED and not self.damaged()):
            self._unexplained(self.ended_with)
        elif kind is not StopKind.ASKED:
            self.world.fire("stopped by itself")
        self._die(f"ended, {self.ended_with}")

    def damaged(self) -> bool:
        """Whether this disk has ever done something that a member may stop for."""
        return any(word in kind for kind in self.disk.fired for word in _DAMAGE)

    def _unexplained(self, what: str) -> None:
        self.world.violate(
            Violated("K1", f"{self.name} ended without a fault that explains it: {what}")
        )

    def _failed(self, what: str, error: BaseException | None) -> None:
        """Something raised on the loop and nobody caught it."""
        if isinstance(error, ProcessDied) or not self.alive:
            return
        self.world.violate(Violated("K2", f"{self.name}: {what}: {error!r}"))

    def bury(self) -> None:
        """At the end of the seed: lets go of what dead processes left."""
        if self.alive:
            self._end_process()
        for loop in self._graves:
            loop.bury()
        self._graves.clear()

    # ---- turns -----------------------------------------------------------------------------

    def later(self, delay_ns: int, event: Callable[..., None], *args: Any) -> None:
        """Something that this process does after a while, if it lives and is not paused then."""
        self.world.after(delay_ns, self._do, self.incarnation, event, args)

    def _do(self, incarnation: int, event: Callable[..., None], args: tuple[Any, ...]) -> None:
        if incarnation != self.incarnation or not self.alive:
            return
        if self.paused:
            self._held.append((event, args))
        else:
            event(*args)

    def _wanted(self) -> None:
        if not self.paused:
            self._arm()

    def _arm(self) -> None:
        """Makes sure that the loop's next turn is in the world's queue."""
        loop = self.loop
        if loop.busy:
            due_ns = self.world.now_ns
        else:
            when = loop.next_due()
            if when is None:
                return
            due_ns = self.clock.true_ns(when)
        due_ns = max(due_ns, self._busy_until_ns, self.world.now_ns)
        if due_ns < self._armed_ns:
            self._armed_ns = due_ns
            self.world.at(due_ns, self._turn, self.incarnation)

    def _turn(self, incarnation: int) -> None:
        world = self.world
        if incarnation != self.incarnation or world.now_ns != self._armed_ns:
            return  # Another process, or an earlier turn took this one's place.
        self._armed_ns = _NEVER
        if self.paused or not self.alive:
            return
        self.drag_ns = 0
        world.acting = self
        did = self.loop.run_once()
        world.acting = None
        if not self.alive:
            return
        if did:
            self._busy_until_ns = world.now_ns + self.iteration_ns + self.drag_ns
            running = self.running
            if running is not None:
                world.show("stepped", self)
                looks = fingerprint(running.core)
                if looks != self._looked:
                    self._looked = looks
                    world.show("changed", self)
        self._arm()

    # ---- pauses and clocks -----------------------------------------------------------------

    def pause(self, *, suspend: bool) -> None:
        """SIGSTOP, or (`suspend`) the whole machine sleeps, its monotonic clock too."""
        if self.alive and not self.paused:
            self.paused = True
            self._armed_ns = _NEVER
            if suspend:
                self.clock.freeze()
            self.world.log(f"{self.name} {'suspended' if suspend else 'paused'}")

    def resume(self) -> None:
        """Goes on; what arrived meanwhile comes all at once."""
        self.clock.thaw_if_frozen()
        if self.alive and self.paused:
            self.paused = False
            self.world.log(f"{self.name} goes on")
            held, self._held = self._held, []
            for event, args in held:
                event(*args)
                if not self.alive:
                    return
            self._arm()

    def set_clock_rate(self, percent: int) -> None:
        """The monotonic clock goes at this speed from now on."""
        self.clock.set_rate(percent)
        self._armed_ns = _NEVER
        if self.alive:
            self._wanted()

    def disk_ns(self, spent_ns: int, chance: Prng) -> int:
        """How long disk work of this cost takes now: between half and twice of it, rarely more."""
        factor = chance.between(50, 200)
        if chance.chance(self.world.params.slow_disk_per_mille, 1000):
            factor *= chance.between(10, 100)
        return min(spent_ns * factor // 100, SECOND)
