"""The machines of one seed: who founds the cluster, who may join later, and who is what now."""

from __future__ import annotations

from pathlib import Path

from kvstore.machine import Member
from kvstore.node.config import NodeConfig
from raft.types import Role
from tests.sim.clock import Clock
from tests.sim.network import SimNetwork
from tests.sim.params import Params
from tests.sim.process import Process
from tests.sim.world import World

__all__ = ("Cluster", "config_of", "url_of")


def url_of(name: str) -> str:
    """Where the machine of this name listens for peers."""
    return f"http://{name}:2380"


def config_of(params: Params, name: str, cluster: list[str], *, joins: bool = False) -> NodeConfig:
    """A member's settings; `cluster` names all members, itself included."""
    return NodeConfig(
        name=name,
        data_dir=Path("/sim") / name,
        listen_peer_urls=(url_of(name),),
        advertise_peer_urls=(url_of(name),),
        advertise_client_urls=(f"http://{name}:2379",),
        initial_cluster={each: (url_of(each),) for each in cluster},
        initial_cluster_state="existing" if joins else "new",
        heartbeat_ms=params.heartbeat_ms,
        election_ms=params.election_ms,
        pre_vote=params.pre_vote,
        snapshot_count=params.snapshot_count,
        snapshot_min_wal_bytes=params.snapshot_min_wal_bytes,
        snapshot_catchup_entries=params.catchup_entries,
        wal_segment_bytes=params.wal_segment_bytes,
        quota_bytes=params.quota_bytes,
        watch_progress_interval_s=params.watch_progress_interval_s,
        compact_hash_check_s=params.hash_check_s,
    )


class Cluster:
    """A world with its network and machines. `founders` begin it; `add_machine` makes more."""

    def __init__(self, params: Params, *, keep_log: bool = False) -> None:
        self.params = params
        self.world = World(params, keep_log=keep_log)
        self.network = SimNetwork(self.world, params.network)
        self._chance = self.world.prng.fork("machines")
        self._machines = 0
        self.founders = [self.new_name() for _ in range(params.nodes)]
        for name in self.founders:
            self.add_machine(config_of(params, name, self.founders))

    @property
    def processes(self) -> dict[str, Process]:
        """All machines by name, in the order in which they came."""
        return self.world.processes

    def new_name(self) -> str:
        """A name that no machine ever had."""
        self._machines += 1
        return f"n{self._machines}"

    def add_machine(self, config: NodeConfig) -> Process:
        """A machine with an empty disk; nothing runs there yet."""
        rate = self._chance.pick(self.params.clock_rates_percent)
        uptime_s = 1.0 + self._chance.below(1_000_000) / 1_000
        clock = Clock(self.world, rate_percent=rate, uptime_s=uptime_s)
        process = Process(self.world, self.network, config, clock)
        for url in config.advertise_peer_urls:
            self.network.at_url[url] = process
        return process

    def launch(self) -> None:
        """Starts all founders."""
        for name in self.founders:
            self.processes[name].launch()

    def live(self) -> list[Process]:
        """All processes that are up, paused or not, and have recovered."""
        return [p for p in self.processes.values() if p.alive and p.running is not None]

    def leader(self) -> Process | None:
        """Who leads in the highest term, as far as it believes itself."""
        leaders = [p for p in self.live() if p.core.is_leader]
        return max(leaders, key=lambda p: p.core.term, default=None)

    def members(self) -> dict[int, Member]:
        """The members as the most advanced live process has them applied."""
        live = self.live()
        if not live:
            return {}
        return dict(max(live, key=lambda p: p.core.applier.applied_index).machine.members)

    def of_member(self, member_id: int) -> Process | None:
        """The process that is this member."""
        for process in self.processes.values():
            if process.member_id == member_id:
                return process
        return None

    def is_follower(self, process: Process) -> bool:
        """Whether it runs and follows somebody."""
        return process in self.live() and process.core.role is Role.FOLLOWER

    def bury(self) -> None:
        """At the end of the seed."""
        for process in self.processes.values():
            process.bury()
