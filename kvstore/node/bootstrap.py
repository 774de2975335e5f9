"""How a member begins: as part of a new cluster, by joining one, or from its own files.

*New*: every member computes the same ids and the same first state from --initial-cluster, so
that no first message is needed; their logs begin behind that state.
*Join*: the cluster already knows this member (`member add`); it is asked for the ids, and the
state comes by itself, as a snapshot from the leader.
*Restart*: the files decide (`recovery`); an --initial-cluster that is given is only compared, to
notice the files of another cluster.

A member that has run before but finds its files, or its log alone, gone must not begin again
under its old id: it would have forgotten what it voted for. It is refused with the advice to
replace it. Only a beginning that was interrupted before there was a log is begun anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kvstore.machine import Machine
from kvstore.machine.membership import Member
from kvstore.node.config import NodeConfig
from kvstore.node.errors import (
    BadConfiguration,
    ClusterUnreachable,
    ForeignDataDir,
    NotAMember,
)
from kvstore.node.files import MemberFiles
from kvstore.node.host import Host
from kvstore.node.limits import JOIN_ATTEMPT_PAUSE_S, JOIN_TIMEOUT_S, LOOK_FOR_CLUSTER_S
from kvstore.node.membership import cluster_id_of, member_id_of
from kvstore.node.recovery import Start, recover
from kvstore.node.threads import Worker
from kvstore.node.transport import Cluster, PeerNetwork
from kvstore.storage.fault_points import disk_point
from kvstore.storage.store import Store
from kvstore.storage.wal import Wal, WalIdentity
from raft.types import NO_NODE, ConfState, HardState

__all__ = ("Opened", "first_members", "open_member")

_LOG = logging.getLogger(__name__)

GENESIS = (1, 1)
"""Index and term of the state that the members of a new cluster begin with."""


@dataclass(slots=True)
class Opened:
    """The open files of a member and what they hold."""

    files: MemberFiles
    cluster_id: int
    member_id: int
    wal: Wal
    start: Start
    machine: Machine
    seeds: tuple[Member, ...]
    """Members to connect to until the state itself names them."""

    @property
    def store(self) -> Store:
        """The open store."""
        return self.files.store


async def open_member(
    config: NodeConfig, host: Host, worker: Worker, network: PeerNetwork
) -> Opened:
    """Locks the data directory and opens or creates everything in it.

    Raises StartupError or a StorageError.
    """
    if config.initial_cluster_state not in ("new", "existing"):
        raise BadConfiguration(
            f"--initial-cluster-state is {config.initial_cluster_state!r}; it must be 'new' or "
            "'existing'."
        )
    files = await worker.run(lambda: MemberFiles.lock(config, host))
    try:
        if await worker.run(files.has_log):
            return await _restart(config, files, worker, network)
        own = _own_urls(config)
        if config.initial_cluster_state == "existing":
            return await _join(config, files, worker, network, own)
        return await _found(config, files, worker, network, own)
    except BaseException:
        await worker.run(files.close)
        raise


def _own_urls(config: NodeConfig) -> tuple[str, ...]:
    """This member's peer URLs as --initial-cluster has them, checked against its own flags."""
    if not config.initial_cluster:
        return config.advertise_peer_urls
    urls = config.initial_cluster.get(config.name)
    if urls is None:
        known = ", ".join(sorted(config.initial_cluster))
        raise BadConfiguration(
            f"this member is called {config.name!r}, but --initial-cluster names {known}. Make "
            "--name one of them, or add this member to --initial-cluster."
        )
    if sorted(urls) != sorted(config.advertise_peer_urls):
        raise BadConfiguration(
            f"--initial-cluster has {config.name} at {', '.join(urls)}, but "
            f"--initial-advertise-peer-urls is {', '.join(config.advertise_peer_urls)}. They "
            "must be the same."
        )
    return tuple(urls)


# ---- a new cluster ----------------------------------------------------------------------------


def first_members(initial_cluster: Mapping[str, tuple[str, ...]], token: str) -> dict[int, Member]:
    """The members of a new cluster, by the ids that all of them compute alike."""
    members: dict[int, Member] = {}
    for name, urls in initial_cluster.items():
        member_id = member_id_of(urls, token)
        if member_id in members:
            raise BadConfiguration(
                f"--initial-cluster gives {name} and {members[member_id].name} the same peer URLs."
            )
        members[member_id] = Member(member_id, name, tuple(urls))
    return members


async def _found(
    config: NodeConfig,
    files: MemberFiles,
    worker: Worker,
    network: PeerNetwork,
    own: tuple[str, ...],
) -> Opened:
    cluster = config.initial_cluster or {config.name: own}
    members = first_members(cluster, config.initial_cluster_token)
    member_id = member_id_of(own, config.initial_cluster_token)
    cluster_id = cluster_id_of(members)
    others = _other_urls(config)
    running = await _ask_any(network, others, LOOK_FOR_CLUSTER_S) if others else None
    if running is not None and running.cluster_id == cluster_id:
        _refuse_amnesia(member_id, running.members)
    _LOG.info("new cluster %x, this is member %x", cluster_id, member_id)
    hard_state = HardState(term=GENESIS[1], vote=NO_NODE, commit=GENESIS[0])

    def create() -> Opened:
        files.begin()
        machine = Machine(files.open_store(), files.machine_config)
        machine.bootstrap(members.values(), index=GENESIS[0], term=GENESIS[1])
        disk_point("bootstrap.store_made", config.data_dir)
        # The log, which is what makes the directory count, comes last.
        files.write_snapshot(cluster_id)
        disk_point("bootstrap.snapshot_made", config.data_dir)
        wal = files.create_log(WalIdentity(cluster_id, member_id), GENESIS, hard_state)
        start = Start(hard_state, machine.conf_state(), GENESIS, [])
        seeds = tuple(members.values())
        return Opened(files, cluster_id, member_id, wal, start, machine, seeds)

    return await worker.run(create)


def _refuse_amnesia(member_id: int, members: Iterable[Member]) -> None:
    """A member that was seen running, and comes with empty files, has forgotten its votes."""
    for member in members:
        if member.id == member_id and member.client_urls:
            raise NotAMember(
                f"member {member_id:x} has run in this cluster before, but its data directory is "
                "empty: what it promised is lost. On a healthy member run `member remove "
                f"{member_id:x}`, then `member add`, and start this one with "
                "--initial-cluster-state=existing."
            )


# ---- joining ----------------------------------------------------------------------------------


async def _join(
    config: NodeConfig,
    files: MemberFiles,
    worker: Worker,
    network: PeerNetwork,
    own: tuple[str, ...],
) -> Opened:
    others = _other_urls(config)
    if not others:
        raise BadConfiguration(
            "--initial-cluster-state=existing, but --initial-cluster names no other member."
        )
    cluster = await _ask_any(network, others, JOIN_TIMEOUT_S)
    if cluster is None:
        raise ClusterUnreachable(
            f"none of {', '.join(others)} answered with the members of the cluster. Check that "
            "they run and that this machine reaches their peer ports."
        )
    member = next((m for m in cluster.members if sorted(m.peer_urls) == sorted(own)), None)
    if member is None:
        known = "; ".join(", ".join(m.peer_urls) for m in cluster.members)
        raise NotAMember(
            f"the cluster has no member at {', '.join(own)} (it has {known}). Run `member add` "
            "for this member first."
        )
    if len(cluster.members) != len(config.initial_cluster):
        raise BadConfiguration(
            f"the cluster has {len(cluster.members)} members, --initial-cluster has "
            f"{len(config.initial_cluster)}. Use the line that `member add` printed."
        )
    _refuse_amnesia(member.id, cluster.members)
    _LOG.info("joining cluster %x as member %x", cluster.cluster_id, member.id)
    hard_state = HardState(0, NO_NODE, 0)

    def create() -> Opened:
        files.begin()
        machine = Machine(files.open_store(), files.machine_config)
        disk_point("bootstrap.store_made", config.data_dir)
        identity = WalIdentity(cluster.cluster_id, member.id)
        wal = files.create_log(identity, (0, 0), hard_state)
        start = Start(hard_state, ConfState(()), (0, 0), [])
        return Opened(files, cluster.cluster_id, member.id, wal, start, machine, cluster.members)

    return await worker.run(create)


def _other_urls(config: NodeConfig) -> list[str]:
    return [
        url for name, urls in config.initial_cluster.items() if name != config.name for url in urls
    ]


async def _ask_any(network: PeerNetwork, urls: list[str], patience_s: float) -> Cluster | None:
    """The first answer of any of these; None when nobody answers in time."""

    async def ask(url: str) -> Cluster:
        while True:
            try:
                return await network.fetch_cluster(url)
            except (OSError, EOFError, TimeoutError) as error:
                _LOG.debug("no answer from %s: %s", url, error)
                await asyncio.sleep(JOIN_ATTEMPT_PAUSE_S)

    tasks = [asyncio.ensure_future(ask(url)) for url in urls]
    try:
        done, _ = await asyncio.wait(tasks, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        # By the order asked, not by that of a set: which answer counts must be repeatable.
        return next((task.result() for task in tasks if task in done), None)
    finally:
        for task in tasks:
            task.cancel()


# ---- restarting -------------------------------------------------------------------------------


async def _restart(
    config: NodeConfig, files: MemberFiles, worker: Worker, network: PeerNetwork
) -> Opened:
    wal, start, machine = await worker.run(lambda: recover(files, config))
    cluster_id, member_id = wal.identity.cluster_id, wal.identity.member_id
    seeds = tuple(machine.members.values())
    if member_id in machine.removed_members:
        raise NotAMember(
            f"member {member_id:x} was removed from its cluster. To use this machine again, move "
            f"the data directory {config.data_dir} aside, run `member add`, and start it with "
            "--initial-cluster-state=existing."
        )
    _refuse_foreign(config, cluster_id, member_id, seeds)
    if not seeds:
        # It crashed before the leader's first snapshot arrived.
        cluster = await _ask_any(network, _other_urls(config), JOIN_TIMEOUT_S)
        if cluster is not None and cluster.cluster_id == cluster_id:
            seeds = cluster.members
    _LOG.info(
        "restarting member %x of cluster %x at index %d, term %d",
        member_id,
        cluster_id,
        machine.applied_index,
        start.hard_state.term,
    )
    return Opened(files, cluster_id, member_id, wal, start, machine, seeds)


def _refuse_foreign(
    config: NodeConfig, cluster_id: int, member_id: int, members: tuple[Member, ...]
) -> None:
    """Refuses files that have nothing in common with a cluster that is to be founded.

    Flags that merely went out of date (a member was added or moved since) are normal, and only
    noted: after the first start the files know better.
    """
    if config.initial_cluster_state != "new" or not config.initial_cluster:
        return
    wanted = first_members(config.initial_cluster, config.initial_cluster_token)
    if cluster_id_of(wanted) == cluster_id:
        return
    known_urls = {url for member in members for url in member.peer_urls}
    wanted_urls = {url for urls in config.initial_cluster.values() for url in urls}
    if members and known_urls.isdisjoint(wanted_urls):
        raise ForeignDataDir(
            f"the data directory {config.data_dir} belongs to member {member_id:x} of cluster "
            f"{cluster_id:x}, which has none of the peer URLs of --initial-cluster. Start with "
            "the right --data-dir, or move this one aside to found a new cluster."
        )
    _LOG.warning("--initial-cluster differs from the members in the data directory: not used")
