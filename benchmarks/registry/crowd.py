"""Many instances: registered, and kept alive in batches as the client library and agents do it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.registry.stage import Api
from kvstore.pb import registry_pb2 as pb

__all__ = ("Crowd", "Host", "instance_of")

_BEATS_PER_TTL = 3
_JITTER = 0.1
_REGISTERING = 4
"""Registrations that each host has under way."""
_HOSTS_REGISTERING = 16


def instance_of(service: str, id_: str, ttl_s: int, grace_s: int) -> pb.Instance:
    """As a small service would register."""
    return pb.Instance(
        name=pb.InstanceName(service=service, id=id_),
        address="10.0.0.1",
        ports=[pb.Port(name="http", number=8080)],
        zone="west",
        version="1.4",
        ttl_s=ttl_s,
        grace_s=grace_s,
    )


@dataclass
class Host:
    """A process with some instances and one connection; one heartbeat is for all of them."""

    api: Api
    instances: list[pb.Instance]
    leases: list[int] = field(default_factory=list)
    sent: float = 0.0
    """When its last heartbeat was sent (of those that were answered)."""
    answered: float = 0.0
    beats: int = 0
    lost: int = 0
    """Instances that were not registered any more, by the answers."""

    async def register(self) -> None:
        answers: list[int] = [0] * len(self.instances)
        places = iter(range(len(self.instances)))

        async def work() -> None:
            for place in places:
                request = pb.RegisterRequest(instance=self.instances[place])
                answers[place] = (await self.api("Register", request)).instance.lease

        await asyncio.gather(*(work() for _ in range(_REGISTERING)))
        self.leases = answers

    async def beat(self) -> None:
        sent = time.monotonic()
        answer = await self.api("Heartbeat", pb.HeartbeatRequest(leases=self.leases))
        self.sent, self.answered = sent, time.monotonic()
        self.beats += 1
        self.lost += sum(not ttl for ttl in answer.ttl_s)

    async def live(self, ttl_s: float) -> None:
        """Sends heartbeats until it is cancelled."""
        await asyncio.sleep(random.random() * ttl_s / _BEATS_PER_TTL)
        while True:
            await self.beat()
            pause = ttl_s / _BEATS_PER_TTL * random.uniform(1 - _JITTER, 1 + _JITTER)
            await asyncio.sleep(self.sent + pause - time.monotonic())


class Crowd:
    """Hosts that are spread over the members; `close` it."""

    def __init__(
        self, endpoints: Sequence[str], services: Sequence[str], per_service: int, ttl_s: int,
        grace_s: int, hosts: int,
    ) -> None:  # fmt: skip
        self.ttl_s = ttl_s
        self.grace_s = grace_s
        named = [
            instance_of(service, f"{service}-{number}", ttl_s, grace_s)
            for service in services
            for number in range(per_service)
        ]
        self.hosts = [
            Host(Api(endpoints[place % len(endpoints)]), named[place::hosts])
            for place in range(hosts)
        ]
        self.size = len(named)
        self._living: list[asyncio.Task[None]] = []

    async def arrive(self) -> float:
        """All register, and send heartbeats from then on; how long it took."""
        began = time.monotonic()
        waiting = iter(self.hosts)

        async def some() -> None:
            for host in waiting:
                await host.register()
                self._living.append(asyncio.ensure_future(host.live(self.ttl_s)))

        await asyncio.gather(*(some() for _ in range(_HOSTS_REGISTERING)))
        return time.monotonic() - began

    def check(self) -> None:
        """Raises what ended a host's heartbeats, if something did."""
        for task in self._living:
            if task.done() and not task.cancelled():
                task.result()

    async def fall_silent(self) -> None:
        """One more heartbeat of everybody at the same time, and no other."""
        self.check()
        await self._stop()
        await asyncio.gather(*(host.beat() for host in self.hosts))

    async def _stop(self) -> None:
        for task in self._living:
            task.cancel()
        await asyncio.gather(*self._living, return_exceptions=True)
        self._living.clear()

    @property
    def lost(self) -> int:
        return sum(host.lost for host in self.hosts)

    @property
    def beats(self) -> int:
        return sum(host.beats for host in self.hosts)

    async def close(self) -> None:
        await self._stop()
        await asyncio.gather(*(host.api.close() for host in self.hosts))
