"""The faults of a round on a cluster of processes: kills, pauses, cuts, bad links, full disks.

Each fault is a function of the field. It does its damage, waits as long as that lasts, and takes
it back; members that it left dead are started afterwards by whoever runs the round. What really
happened is counted (`Field.fired`, and `PeerProxy.fired` for what only bytes can show).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import combinations, permutations

import grpc

from kvstore.pb import rpc_pb2
from tests.support.battlefield import Field, until
from tests.support.proxy import STRANGER, Cut, Rules
from tests.support.rpc import Rpc
from tests.support.servers import Server

__all__ = ("BAD_LINKS", "DISKS", "KILLS", "PARTITIONS", "PAUSES", "Fault")

Fault = Callable[[Field], None]


# ---- kill -9 ----------------------------------------------------------------------------------


def kill(field: Field, victims: Sequence[Server]) -> None:
    """All at once; the files that they leave are looked over."""
    for server in victims:
        server.signal(signal.SIGKILL)
    for server in victims:
        server.wait()
        field.fired["kill"] += 1
    for server in victims:
        field.check_offline(server)


def kill_leader(field: Field) -> None:
    kill(field, [field.leader()])
    field.leader()


def kill_follower(field: Field) -> None:
    kill(field, field.followers()[:1])
    time.sleep(field.chance.uniform(0.2, 1.5))


def kill_majority(field: Field) -> None:
    """The leader and as many others that the rest cannot go on."""
    kill(field, [field.leader(), *field.followers()][: field.size // 2 + 1])
    time.sleep(field.chance.uniform(0.0, 1.0))


def kill_all(field: Field) -> None:
    kill(field, field.servers)


def restart_storm(field: Field) -> None:
    """Members die and come back faster than the cluster settles."""
    for server in [*field.shuffled(), *field.shuffled()][: field.size + 2]:
        if server.running:
            kill(field, [server])
        server.start(wait=False)
        field.fired["storm restart"] += 1
        time.sleep(field.chance.uniform(0.05, 0.6))


def kill_leader_until_a_snapshot_is_needed(field: Field) -> None:
    """It stays away until the others have forgotten the entries that it misses."""
    leader = field.leader()
    kill(field, [leader])
    wait_for_entries(field, 150)


def wait_for_entries(field: Field, count: int) -> None:
    """Until the cluster has applied so many more entries."""
    with Rpc(field.leader().endpoint) as rpc:
        goal = rpc.status().raftAppliedIndex + count
        until(lambda: rpc.status().raftAppliedIndex >= goal, f"{count} more entries", 30)


KILLS: dict[str, Fault] = {
    "kill leader": kill_leader,
    "kill majority": kill_majority,
    "restart storm": restart_storm,
    "kill all": kill_all,
    "kill leader until a snapshot is needed": kill_leader_until_a_snapshot_is_needed,
    "kill follower": kill_follower,
}


# ---- SIGSTOP ----------------------------------------------------------------------------------


@contextmanager
def stopped(field: Field, servers: Sequence[Server]) -> Iterator[None]:
    """These do not run; whatever reaches their sockets waits there."""
    try:
        for server in servers:
            server.signal(signal.SIGSTOP)
            field.fired["pause"] += 1
        yield
    finally:
        for server in servers:
            server.signal(signal.SIGCONT)


def pause_leader(field: Field) -> None:
    """Until others have elected another; its readers wait, and are answered when it wakes."""
    leader = field.leader()
    with stopped(field, [leader]):
        until(lambda: field.leader() is not leader, "no other leader", 20)
        time.sleep(field.chance.uniform(0.2, 2.0))


def pause_leader_shortly(field: Field) -> None:
    """About as long as an election takes: it may wake as the leader, or just not any more."""
    for _ in range(3):
        with stopped(field, [field.leader()]):
            time.sleep(field.chance.uniform(0.5, 2.2))
        time.sleep(field.chance.uniform(0.0, 0.5))


def pause_follower(field: Field) -> None:
    with undisturbed(field), stopped(field, field.followers()[:1]):
        time.sleep(field.chance.uniform(1.0, 10.0))


@contextmanager
def undisturbed(field: Field) -> Iterator[None]:
    """What happens to one follower must not cost the others their leader."""
    with Rpc(field.leader().endpoint) as rpc:
        before = rpc.status()
        yield
        after = rpc.status()
    assert (after.leader, after.raftTerm) == (before.leader, before.raftTerm)


def pause_majority(field: Field) -> None:
    chosen = [field.leader(), *field.followers()][: field.size // 2 + 1]
    with stopped(field, chosen):
        time.sleep(field.chance.uniform(1.0, 4.0))


def pause_all(field: Field) -> None:
    with stopped(field, field.servers):
        time.sleep(field.chance.uniform(1.5, 5.0))


PAUSES: dict[str, Fault] = {
    "pause leader": pause_leader,
    "pause leader shortly, again and again": pause_leader_shortly,
    "pause majority": pause_majority,
    "pause follower": pause_follower,
    "pause all": pause_all,
}


# ---- partitions -------------------------------------------------------------------------------


def cut(field: Field, source: str, target: str, how: Cut) -> None:
    """From now on `target` hears nothing of what `source` sends of its own accord."""
    field.proxy.set(source, target, Rules(cut=how))
    field.fired["link cut"] += 1


def cut_between(field: Field, some: Sequence[Server], others: Sequence[Server], how: Cut) -> None:
    """Both ways between each of some and each of others."""
    for one in some:
        for other in others:
            cut(field, one.name, other.name, how)
            cut(field, other.name, one.name, how)


def halves(field: Field, minority: Sequence[Server], how: Cut) -> None:
    rest = [server for server in field.servers if server not in minority]
    with field.proxy.hurting():
        cut_between(field, minority, rest, how)
        field.fired["partition"] += 1
        stay(field)


def stay(field: Field) -> None:
    """Long enough for a leader without followers to notice, and for a new one."""
    time.sleep(field.chance.uniform(2.5, 5.0))


def minority_with_leader(field: Field) -> None:
    """Swallowed: both sides believe for a while that the others are only slow."""
    count = max(1, (field.size - 1) // 2)
    halves(field, [field.leader(), *field.followers()][:count], Cut.SWALLOW)


def minority_without_leader(field: Field) -> None:
    halves(field, field.followers()[: max(1, (field.size - 1) // 2)], Cut.REFUSE)


def late_messages(field: Field) -> None:
    """A leader behind a wall; what was said meanwhile arrives when the wall is gone."""
    halves(field, [field.leader()], Cut.HOLD)


def mute_leader(field: Field) -> None:
    """One way: the leader hears the others, who do not hear it."""
    leader = field.leader()
    with field.proxy.hurting():
        for other in field.servers:
            if other is not leader:
                cut(field, leader.name, other.name, Cut.SWALLOW)
        field.fired["one-way partition"] += 1
        stay(field)


def deaf_leader(field: Field) -> None:
    """One way: the leader's word arrives, and no acknowledgement comes back."""
    leader = field.leader()
    with field.proxy.hurting():
        for other in field.servers:
            if other is not leader:
                cut(field, other.name, leader.name, Cut.SWALLOW)
        cut(field, STRANGER, leader.name, Cut.SWALLOW)
        field.fired["one-way partition"] += 1
        stay(field)


def deaf_follower(field: Field) -> None:
    """One way: it hears nothing, asks for votes in vain, and must not unseat the leader."""
    follower = field.followers()[0]
    with undisturbed(field), field.proxy.hurting():
        for other in field.servers:
            if other is not follower:
                cut(field, other.name, follower.name, Cut.HOLD)
        field.fired["one-way partition"] += 1
        stay(field)


def bridge(field: Field) -> None:
    """Two halves that only one member, not the leader, reaches."""
    middle, *rest = [*field.followers(), field.leader()]
    half = len(rest) // 2
    assert middle not in rest
    with field.proxy.hurting():
        cut_between(field, rest[:half], rest[half:], Cut.SWALLOW)
        field.fired["partition"] += 1
        stay(field)


def ring(field: Field) -> None:
    """Each reaches only its two neighbours; of three members, who all are neighbours: a row."""
    circle = field.shuffled()
    with field.proxy.hurting():
        for one, other in combinations(range(field.size), 2):
            closes_it = field.size > 3 and other - one == field.size - 1
            if other - one > 1 and not closes_it:
                cut_between(field, [circle[one]], [circle[other]], Cut.SWALLOW)
        field.fired["partition"] += 1
        stay(field)


PARTITIONS: dict[str, Fault] = {
    "mute leader (one way)": mute_leader,
    "bridge": bridge,
    "minority with the leader": minority_with_leader,
    "deaf leader (one way)": deaf_leader,
    "late messages": late_messages,
    "ring": ring,
    "deaf follower (one way)": deaf_follower,
    "minority without the leader": minority_without_leader,
}


# ---- bad links --------------------------------------------------------------------------------


def on_every_link(rules: Rules) -> Fault:
    """All links of the cluster are as bad as this, in both directions."""

    def fault(field: Field) -> None:
        names = [server.name for server in field.servers]
        with field.proxy.hurting():
            for source, target in permutations(names, 2):
                field.proxy.set(source, target, rules, rules)
            field.fired["bad links"] += 1
            stay(field)

    return fault


BAD_LINKS: dict[str, Fault] = {
    "flipped bits": on_every_link(Rules(flip_chance=0.02)),
    "delay": on_every_link(Rules(delay_s=0.075, jitter_s=0.05)),
    "resets": on_every_link(Rules(reset_chance=0.02)),
    "torn frames": on_every_link(Rules(tear_chance=0.02)),
    "throttle": on_every_link(Rules(bytes_per_s=100_000)),
}


# ---- a full disk ------------------------------------------------------------------------------


def full_disk(field: Field) -> None:
    """The disk of one member, a small one of its own, has no byte left.

    The member raises the alarm or ends; nobody else does. Then there is room again.
    """
    victim = next(server for server in field.servers if server.data_dir.is_mount())
    free = shutil.disk_usage(victim.data_dir).free
    ballast = victim.data_dir / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free)
    field.fired["disk full"] += 1

    def noticed() -> bool:
        if not victim.running:
            field.fired["ended by a full disk"] += 1
            return True
        with Rpc(victim.endpoint) as rpc, suppress(grpc.RpcError):
            return bool(rpc.call("Maintenance", "Alarm", rpc_pb2.AlarmRequest()).alarms)
        return False

    until(noticed, "nobody noticed the full disk", 30)
    time.sleep(field.chance.uniform(0.5, 2.0))
    ballast.unlink()
    field.start_all()
    field.leader()
    until(lambda: disarmed(field), "the alarm stays", 30)


def disarmed(field: Field) -> bool:
    """Takes back every alarm; whether every member is healthy then."""
    with suppress(grpc.RpcError):
        field.disarm()
    return all(server.healthy() for server in field.servers)


DISKS: dict[str, Fault] = {"full disk": full_disk}
