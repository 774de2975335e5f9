"""The cluster's operator: keeps as many members as are wanted, and replaces those that are lost.

Looks at what is, and takes one step towards what should be, through the API like anybody: adds a
learner, starts its machine, promotes it, removes who is too much or cannot come back. So a
request whose outcome stayed unknown is no trouble: the next look shows what became of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvstore.pb import rpc_pb2
from tests.sim.clients import Ask, Clients, Script, Sleep, run_script
from tests.sim.cluster import Cluster, config_of, url_of
from tests.sim.frontdoor import Answer, Told
from tests.sim.process import Process
from tests.sim.world import MS, SECOND

__all__ = ("Operator",)

_CLUSTER: Final = "/etcdserverpb.Cluster/"
_TIMEOUT_NS: Final = 10 * SECOND
_LOOK_NS: Final = (300 * MS, 1_500 * MS)
_SMALLEST, _LARGEST = 1, 7


class Operator:
    """One operator for the whole seed."""

    def __init__(self, cluster: Cluster, clients: Clients) -> None:
        self.cluster = cluster
        self.stopped = False
        self.wanted = cluster.params.nodes
        """How many voters there should be."""
        self.to_replace: dict[int, None] = {}
        """Members that are to leave although nothing is wrong with them."""
        self.before_promotion: Callable[[Process], None] | None = None
        """Called once, with the learner that is to become a voter."""
        self._clients = clients
        self._chance = cluster.world.prng.fork("operator")
        run_script(cluster.world, clients.door, self._work())

    def stop(self) -> None:
        """No further step."""
        self.stopped = True

    def churn(self) -> bool:
        """Decides on a change of the membership; False if there is one under way."""
        cluster, chance = self.cluster, self._chance
        voters = [m for m in cluster.members().values() if not m.is_learner]
        if not voters or len(voters) != self.wanted or self.to_replace:
            return False
        what = chance.weighted([(3, "replace"), (2, "more"), (2, "fewer")])
        if what == "more" and self.wanted < _LARGEST:
            self.wanted += 1
        elif what == "fewer" and self.wanted > max(_SMALLEST, self.cluster.params.nodes - 1):
            self.wanted -= 1
        else:
            self.to_replace[chance.pick(voters).id] = None
        return True

    # ---- the work --------------------------------------------------------------------------

    def _work(self) -> Script:
        while not self.stopped:
            yield Sleep(self._chance.between(*_LOOK_NS))
            serving = [p for p in self.cluster.processes.values() if p.serving]
            if self.stopped or not serving:
                continue
            step = self._next_step()
            if step is None:
                continue
            method, request, what = step
            process = self._chance.pick(serving)
            answer: Answer = yield Ask(
                process, _CLUSTER + method, request.SerializeToString(), _TIMEOUT_NS
            )
            self.cluster.world.log(f"operator {what} at {process.name}: {answer.text}")
            if answer.told is Told.OK:
                self.cluster.world.fire(method)

    def _next_step(self) -> tuple[str, Any, str] | None:
        """What to ask for, if anything; machines that are missing are started on the way."""
        cluster = self.cluster
        members = cluster.members()
        voters = [m for m in members.values() if not m.is_learner]
        learners = [m for m in members.values() if m.is_learner]
        for member in members.values():
            process = self._machine_of(member.peer_urls[0])
            joins = process.name not in cluster.founders
            if joins and not process.alive and not process.begun:
                self._launch(process)
                return None
            if process.spoilt or (process.removed and process.member_id != member.id):
                return self._remove(member.id, f"removes the lost {member.id:x}")
        for learner in learners:
            process = self._machine_of(learner.peer_urls[0])
            if process.serving:
                before, self.before_promotion = self.before_promotion, None
                if before is not None:
                    before(process)
                promote = rpc_pb2.MemberPromoteRequest(ID=learner.id)
                return "MemberPromote", promote, f"promotes {learner.id:x}"
            return None
        for member_id in list(self.to_replace):
            if member_id not in members:
                del self.to_replace[member_id]
            elif len(voters) > self.wanted:
                return self._remove(member_id, f"replaces {member_id:x}")
        if len(voters) < self.wanted + (1 if self.to_replace else 0):
            return self._add()
        if len(voters) > self.wanted and not self.to_replace:
            victim = self._chance.pick(voters)
            return self._remove(victim.id, f"removes {victim.id:x}")
        return None

    def _remove(self, member_id: int, what: str) -> tuple[str, Any, str]:
        return "MemberRemove", rpc_pb2.MemberRemoveRequest(ID=member_id), what

    def _add(self) -> tuple[str, Any, str]:
        name = self.cluster.new_name()
        learner = self._chance.chance(4, 5)
        add = rpc_pb2.MemberAddRequest(peerURLs=[url_of(name)], isLearner=learner)
        return "MemberAdd", add, f"adds {name}"

    def _machine_of(self, url: str) -> Process:
        """The machine behind a member's address; set up now if nobody has yet."""
        process = self.cluster.network.at_url.get(url)
        if process is None:
            name = url.removeprefix("http://").partition(":")[0]
            process = self.cluster.add_machine(config_of(self.cluster.params, name, [name]))
        return process

    def _launch(self, process: Process) -> None:
        """Starts a machine that is to join, told of the members that there are now."""
        names = [
            member.peer_urls[0].removeprefix("http://").partition(":")[0]
            for member in self.cluster.members().values()
        ]
        process.config = config_of(self.cluster.params, process.name, names, joins=True)
        process.launch()
