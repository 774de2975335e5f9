"""Many instances and many subscribers: heartbeats, all silent at once, a change told to all."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median
from typing import Any

import grpc.aio

from benchmarks.registry.beside import beside
from benchmarks.registry.crowd import Crowd, instance_of
from benchmarks.registry.stage import Api, Notes, Stage, cpu_s, milliseconds, percentile, start
from benchmarks.registry.watcher import Watcher
from kvstore.pb import registry_pb2 as pb

__all__ = ("heartbeats", "subscribers", "vanish")

_MEASURED_S = 30.0
_SETTLING_S = 3.0
_LEADER_SHARE = 25.0
_HOSTS = 100
_CHANGES = 20
_SUBSCRIBERS = 1000
_ELSEWHERE = 100
_CHANNELS = 20
_VANISH_TTL_S = 10
_VANISH_GRACE_S = 10


async def heartbeats(notes: Notes, directory: Path, scale: float) -> None:
    """CPU of the leader while so many instances live, in services of 100."""
    for size, ttl_s in ((10_000, 10), (50_000, 30)):
        wanted = int(size * scale)
        async with start(directory / str(size)) as stage:
            await _live(notes, stage, wanted, ttl_s)


async def _live(notes: Notes, stage: Stage, size: int, ttl_s: int) -> None:
    services = [f"service-{number}" for number in range(max(1, size // 100))]
    endpoints = [server.endpoint for server in stage.servers]
    crowd = Crowd(endpoints, services, 100, ttl_s, 30, _HOSTS)
    name = f"{crowd.size} instances, TTL {ttl_s} s"
    watcher = await Watcher(stage.apis[0]).ready()
    try:
        took = await crowd.arrive()
        notes.tell(f"{name}: registrations/s", round(crowd.size / took))
        await asyncio.sleep(max(_SETTLING_S, ttl_s / 3))
        leader = await stage.leader()
        before = [cpu_s(stage.pid(place)) for place in range(3)]
        beats, began = crowd.beats, time.monotonic()
        # Three rounds of heartbeats at least.
        await asyncio.sleep(max(_MEASURED_S, ttl_s))
        took = time.monotonic() - began
        shares = [100 * (cpu_s(stage.pid(place)) - before[place]) / took for place in range(3)]
        crowd.check()
        beats = crowd.beats - beats
        members = (await stage.apis[0]("ListServices", pb.ListServicesRequest())).services
        up = sum(each.by_status["UP"] for each in members)
        bad = watcher.count("unhealthy", "expired")
        each = crowd.size / len(crowd.hosts)
        notes.tell(f"{name}: heartbeats/s", round(each * beats / took))
        notes.tell(f"{name}: calls/s, each with {each:.0f}", round(beats / took))
        notes.judge(f"{name}: leader, % of a core", round(shares[leader], 1), _LEADER_SHARE)
        others = [round(share, 1) for place, share in enumerate(shares) if place != leader]
        notes.tell(f"{name}: followers, % of a core", others)
        lost = crowd.size - up + bad + crowd.lost
        notes.check(f"{name}: lost", lost, not lost, "none")
        if leader != await stage.leader():
            notes.check(f"{name}: leader stayed", "no", holds=False, wanted="yes")
    finally:
        await watcher.close()
        await crowd.close()


async def vanish(notes: Notes, directory: Path, scale: float) -> None:
    """All of one service fall silent at once, with its guard off and on."""
    size = int(10_000 * scale)
    for guarded in (False, True):
        async with start(directory / f"guard-{guarded}") as stage:
            await _vanish(notes, stage, size, guarded=guarded)


async def _vanish(notes: Notes, stage: Stage, size: int, *, guarded: bool) -> None:
    leader = await stage.leader()
    api = stage.apis[leader]
    service = pb.ServiceName(service="many")
    settings = pb.Settings(guard_enabled=guarded)
    await api("SetSettings", pb.SetSettingsRequest(service=service, settings=settings))
    endpoints = [server.endpoint for server in stage.servers]
    crowd = Crowd(endpoints, ["many"], size, _VANISH_TTL_S, _VANISH_GRACE_S, _HOSTS)
    watcher = await Watcher(stage.apis[(leader + 1) % 3], "many").ready()
    name = f"{size} silent at once, guard {'on' if guarded else 'off'}"
    try:
        await crowd.arrive()
        await watcher.until(lambda: len(watcher.heard) == size, 60)
        async with beside(stage.servers[leader].endpoint) as load:
            await asyncio.sleep(2)
            await crowd.fall_silent()
            if guarded:
                first, last = await _held(notes, name, api, watcher, crowd)
            else:
                first, last = await _removed(notes, name, watcher, crowd)
        everything = [call.took_s for call in load.calls]
        busy = load.between(first, last)
        p99 = milliseconds(percentile(everything, 99))
        notes.judge(f"{name}: p99 of {len(everything)} other calls, ms", p99, 100)
        p99 = milliseconds(percentile(busy, 99))
        notes.judge(f"{name}: … of those {len(busy)} while removing, ms", p99, 100)
        notes.tell(f"{name}: slowest of all, ms", milliseconds(max(everything)))
    finally:
        await watcher.close()
        await crowd.close()


async def _removed(notes: Notes, name: str, watcher: Watcher, crowd: Crowd) -> tuple[float, float]:
    """Waits for DOWN and removal; returns when they were removed, from and to."""
    ttl, grace = crowd.ttl_s, crowd.grace_s
    await watcher.until(lambda: watcher.count("expired") == crowd.size, ttl + grace + 60)
    for event, after in (("unhealthy", ttl), ("expired", ttl + grace)):
        late = _lateness(watcher, crowd, event, after)
        notes.check(f"{name}: {event}", len(late), len(late) == crowd.size, f"all {crowd.size}")
        notes.judge(f"{name}: last {event} after its deadline, s", round(max(late), 2), 10)
        notes.check(f"{name}: first {event}, s", round(min(late), 2), min(late) >= 0, "never early")
    return _span(watcher, "expired")


def _lateness(watcher: Watcher, crowd: Crowd, event: str, after_s: float) -> list[float]:
    """How long after its deadline each was told; counted from when its heartbeat was sent."""
    late = []
    for host in crowd.hosts:
        for instance in host.instances:
            at = watcher.first(instance.name.id, event)
            if at is not None:
                late.append(at - host.sent - after_s)
    return late or [float("inf")]


def _span(watcher: Watcher, event: str) -> tuple[float, float]:
    times = [each.at for some in watcher.heard.values() for each in some if each.event == event]
    return (min(times), max(times)) if times else (0.0, 0.0)


async def _held(
    notes: Notes, name: str, api: Api, watcher: Watcher, crowd: Crowd
) -> tuple[float, float]:
    """What the answers say while they are held, and what confirming does."""
    silent_at = time.monotonic()
    everybody_stale = await watcher.until(lambda: _stale(watcher) == crowd.size, crowd.ttl_s + 30)
    took = time.monotonic() - silent_at - crowd.ttl_s
    notes.check(f"{name}: told as stale", _stale(watcher), everybody_stale, "all")
    notes.tell(f"{name}: last of them after the TTL, s", round(took, 2))
    await asyncio.sleep(max(0.0, silent_at + crowd.ttl_s + crowd.grace_s + 5 - time.monotonic()))
    answer = await api("GetInstances", pb.GetInstancesRequest(service=_MANY))
    stale = sum(each.stale and each.routable for each in answer.instances)
    later = f"{name}: 5 s past TTL and grace"
    notes.check(f"{later}, healthy and stale", stale, stale == crowd.size, "all")
    guard = answer.guard
    longest_s = (guard.until_ms - guard.since_ms) / 1000
    held = f"{guard.state}: {guard.held} of {guard.total}, for {longest_s:.0f} s at most"
    notes.tell(f"{name}: the answer's guard", held)
    # Who is silent before it is too many at once is DOWN, until the guard holds them, too.
    notes.tell(f"{name}: DOWN for a moment before", watcher.count("unhealthy"))
    bad = watcher.count("expired")
    notes.check(f"{name}: removed meanwhile", bad, not bad, "none")
    began = time.monotonic()
    await api("EndGuard", pb.EndGuardRequest(service=_MANY, confirm=True))
    await watcher.until(lambda: watcher.count("expired") == crowd.size, 60)
    gone = watcher.count("expired")
    down = sum(watcher.first(each, "unhealthy", "confirmed") is not None for each in watcher.heard)
    took = time.monotonic() - began
    notes.check(f"{name}: confirmed, DOWN first", down, down == crowd.size, "all")
    notes.check(f"{name}: confirmed, then removed", gone, gone == crowd.size, "all")
    notes.judge(f"{name}: last removed after confirming, s", round(took, 2), 10)
    return began, time.monotonic()


_MANY = pb.ServiceName(service="many")


def _stale(watcher: Watcher) -> int:
    return sum(some[-1].stale for some in watcher.heard.values())


class _Crier:
    """Counts what many streams are told, and when the last of them was."""

    def __init__(self) -> None:
        self.arrived = 0
        self.other = 0
        self.last = 0.0
        self.all = asyncio.Event()
        self.wanted = 0

    async def read(self, stream: Any, *, elsewhere: bool) -> None:
        try:
            async for message in stream:
                now = time.monotonic()
                if elsewhere:
                    self.other += not pb.WatchResponse.FromString(message).is_progress
                elif not pb.WatchResponse.FromString(message).is_progress:
                    self._count(now)
        except grpc.aio.AioRpcError:
            pass  # The cluster ends.

    def _count(self, now: float) -> None:
        self.arrived += 1
        self.last = now
        if self.arrived == self.wanted:
            self.all.set()

    async def next(self, count: int) -> None:
        """Waits until so many more have arrived."""
        await asyncio.wait_for(self.all.wait(), 60)
        self.expect(count)

    def expect(self, count: int) -> None:
        self.arrived = 0
        self.wanted = count
        self.all.clear()


async def subscribers(notes: Notes, directory: Path, scale: float) -> None:
    """1,000 who watch one service on 20 connections over all members; 100 watch another one."""
    count = int(_SUBSCRIBERS * scale)
    async with start(directory / "subscribers") as stage:
        leader = stage.apis[await stage.leader()]
        instance = instance_of("payment", "payment-1", 3600, 30)
        await leader("Register", pb.RegisterRequest(instance=instance))
        other = instance_of("cart", "cart-1", 3600, 30)
        await leader("Register", pb.RegisterRequest(instance=other))
        channels = [Api(stage.servers[n % 3].endpoint) for n in range(_CHANNELS)]
        crier = _Crier()
        crier.expect(count)
        tasks = []
        for number in range(count + _ELSEWHERE):
            elsewhere = number >= count
            service = "cart" if elsewhere else "payment"
            stream = channels[number % _CHANNELS].watch(
                pb.WatchRequest(
                    service=pb.ServiceName(service=service), subscriber_id=f"s-{number}"
                )
            )
            tasks.append(asyncio.ensure_future(crier.read(stream, elsewhere=elsewhere)))
        try:
            await crier.next(count)
            await asyncio.sleep(_SETTLING_S)
            assert crier.other == _ELSEWHERE, "each has had its first state"
            crier.other = 0
            took = []
            for change in range(_CHANGES):
                instance.version = f"2.{change}"
                began = time.monotonic()
                await leader("Register", pb.RegisterRequest(instance=instance))
                await asyncio.wait_for(crier.all.wait(), 60)
                took.append(crier.last - began)
                crier.expect(count)
                await asyncio.sleep(0.2)
            name = f"{count} subscribers, {_CHANGES} changes"
            notes.judge(f"{name}: last told, median, ms", milliseconds(median(took)), 1000)
            notes.judge(f"{name}: last told, slowest, ms", milliseconds(max(took)), 1000)
            name = f"{_ELSEWHERE} subscribers of another service: messages"
            notes.check(name, crier.other, not crier.other, "none")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(channel.close() for channel in channels))
