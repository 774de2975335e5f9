"""How single instances end: a crash, a crash beside a leader's, a lost majority, a clean stop."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode
import grpc
import grpc.aio

from benchmarks.registry.crowd import Host, instance_of
from benchmarks.registry.stage import Api, Notes, Stage, milliseconds, percentile, start
from benchmarks.registry.watcher import Watcher
from kvstore.pb import registry_pb2 as pb
from tests.support.agents import Agent

__all__ = ("crash", "quorum", "stop")

_ROUNDS = 20
_KILLS = 6
_STOPS = 100
_TTL_S = 4
_GRACE_S = 4
_SLACK_S = 1.0
"""What the registry may take beyond a deadline."""


async def crash(notes: Notes, directory: Path, scale: float) -> None:
    """Heartbeats that stop: once with nothing else, then with kills of the leader in between."""
    async with start(directory / "crash") as stage:
        watchers = [await Watcher(api).ready() for api in stage.apis]
        hosts = [_host(stage.servers[n % 3].endpoint, f"plain-{n}") for n in range(_ROUNDS)]
        try:
            await asyncio.gather(*(host.register() for host in hosts))
            await asyncio.gather(*(_live_for(host, random.uniform(3, 8)) for host in hosts))
            ids = [host.instances[0].name.id for host in hosts]
            await _until_all(watchers, ids, "expired", _TTL_S + _GRACE_S + 10)
            for event, after in (("unhealthy", _TTL_S), ("expired", _TTL_S + _GRACE_S)):
                late = [
                    watcher.heard_after(id_, event) - host.sent - after
                    for host, id_ in zip(hosts, ids, strict=True)
                    for watcher in watchers
                ]
                _judge_span(notes, f"{_ROUNDS} crashes: {event} after its deadline, s", late)
        finally:
            await asyncio.gather(*(watcher.close() for watcher in watchers))
            await asyncio.gather(*(host.api.close() for host in hosts))
        for event in ("unhealthy", "expired"):
            early, late = [], []
            for number in range(max(1, int(_KILLS * scale) // 2)):
                one_early, one_late = await _kill_round(stage, f"{event}-{number}", event)
                early.append(one_early)
                late.append(one_late)
            name = f"{len(late)} crashes with the leader killed, {event}"
            first = round(min(early), 2)
            notes.check(f"{name}: after its own deadline, s", first, first >= 0, "never early")
            notes.judge(f"{name}: after the new leader's, s", round(max(late), 2), _SLACK_S)


def _host(endpoint: str, name: str) -> Host:
    return Host(Api(endpoint), [instance_of(name, name, _TTL_S, _GRACE_S)])


async def _live_for(host: Host, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await host.beat()
        await asyncio.sleep(_TTL_S / 3)


async def _until_all(
    watchers: Sequence[Watcher], ids: Sequence[str], event: str, timeout_s: float
) -> None:
    for watcher in watchers:
        done = await watcher.until(
            lambda w=watcher: all(w.first(id_, event) is not None for id_ in ids), timeout_s
        )
        if not done:
            raise RuntimeError(f"no member told {event} of {ids} in {timeout_s:g} s")


def _judge_span(notes: Notes, name: str, late: Sequence[float]) -> None:
    holds = min(late) >= 0 and max(late) <= _SLACK_S
    notes.check(name, f"{min(late):.2f}-{max(late):.2f}", holds, f"between 0 and {_SLACK_S:g}")


async def _kill_round(stage: Stage, name: str, event: str) -> tuple[float, float]:
    """One instance is silent, the leader is killed before `event`.

    Returns how much later than its own deadline the first member told of it, and how much later
    than the new leader's deadline (its time counts from when it was known to lead) the last did.
    """
    leader = await stage.leader()
    others = [place for place in range(3) if place != leader]
    watchers = [await Watcher(stage.apis[place], name).ready() for place in others]
    host = _host(stage.servers[others[0]].endpoint, name)
    try:
        await host.register()
        await host.beat()
        if event == "expired":
            await _until_all(watchers, [name], "unhealthy", _TTL_S + 5)
        await asyncio.sleep(0.5)
        stage.servers[leader].kill()
        await stage.leader()
        elected = time.monotonic()
        own = _TTL_S if event == "unhealthy" else _TTL_S + _GRACE_S
        await _until_all(watchers, [name], event, own + 15)
        told = [watcher.heard_after(name, event) for watcher in watchers]
        return min(told) - host.sent - own, max(told) - elected - own
    finally:
        await asyncio.gather(*(watcher.close() for watcher in watchers))
        await host.api.close()
        if not stage.servers[leader].running:
            await asyncio.to_thread(stage.servers[leader].start)


async def quorum(notes: Notes, directory: Path, _scale: float) -> None:
    """Two of three members are stopped: what the third one still answers, and what it refuses."""
    async with start(directory / "quorum", dns=True) as stage:
        leader = await stage.leader()
        for number in range(3):
            instance = instance_of("payment", f"payment-{number}", 10, 30)
            await stage.apis[leader]("Register", pb.RegisterRequest(instance=instance))
        api = stage.apis[leader]
        watcher = await Watcher(api, "payment").ready()
        try:
            for place, server in enumerate(stage.servers):
                if place != leader:
                    await asyncio.to_thread(server.stop)
            began = time.monotonic()
            told = await watcher.until(lambda: watcher.no_leader, 15)
            took = round(time.monotonic() - began, 2)
            notes.check("no majority: an open Watch is told no_leader after, s", took, told, "told")
            await _what_is_left(notes, api, stage.dns_ports[leader])
        finally:
            await watcher.close()


async def _what_is_left(notes: Notes, api: Api, dns_port: int) -> None:
    answer = await api("GetInstances", pb.GetInstancesRequest(service=_PAYMENT), 5)
    found = f"{len(answer.instances)}, no_leader={answer.header.no_leader}"
    holds = len(answer.instances) == 3 and answer.header.no_leader
    notes.check("no majority: GetInstances", found, holds, "3, said to have no leader")
    anew = await Watcher(api, "payment").ready()
    said = "state, said to have no leader"
    notes.check("no majority: a new Watch", f"no_leader={anew.no_leader}", anew.no_leader, said)
    await anew.close()
    reply = await _ask(dns_port, "payment")
    notes.check("no majority: DNS", dns.rcode.to_text(reply.rcode()), bool(reply.answer), "answers")
    for method, request in (
        ("Register", pb.RegisterRequest(instance=instance_of("payment", "payment-9", 10, 30))),
        ("Deregister", pb.DeregisterRequest(name=_NAME)),
        ("Heartbeat", pb.HeartbeatRequest(instances=[_NAME])),
    ):
        began = time.monotonic()
        try:
            await api(method, request, 30)
            code, text = grpc.StatusCode.OK, "not refused"
        except grpc.aio.AioRpcError as error:
            code, text = error.code(), error.details() or ""
        refused = code is grpc.StatusCode.UNAVAILABLE
        took = time.monotonic() - began
        notes.check(f"no majority: {method} after {took:.1f} s", code.name, refused, "UNAVAILABLE")
        notes.tell(f"no majority: {method} says", text)


_PAYMENT = pb.ServiceName(service="payment")
_NAME = pb.InstanceName(service="payment", id="payment-1")


async def _ask(port: int, service: str) -> dns.message.Message:
    question = dns.message.make_query(f"{service}.default.svc.kv.local", "A")
    return await dns.asyncquery.udp(question, "127.0.0.1", timeout=5, port=port)


async def stop(notes: Notes, directory: Path, scale: float) -> None:
    """SIGTERM of a program that an agent runs: until the last watcher and all DNS answers know."""
    rounds = max(1, int(_STOPS * scale))
    async with start(directory / "stop", dns=True) as stage:
        watchers = [await Watcher(api).ready() for api in stage.apis]
        try:
            took = [await _stop_round(stage, watchers, number) for number in range(rounds)]
        finally:
            await asyncio.gather(*(watcher.close() for watcher in watchers))
    for name, values in (
        ("the last watcher knows", [each[0] for each in took]),
        ("no member's DNS answers it", [each[1] for each in took]),
    ):
        title = f"{rounds} stops: SIGTERM until {name}"
        notes.tell(f"{title}, median, ms", milliseconds(percentile(values, 50)))
        notes.judge(f"{title}, p99, ms", milliseconds(percentile(values, 99)), 100)
        notes.tell(f"{title}, slowest, ms", milliseconds(max(values)))


async def _stop_round(
    stage: Stage, watchers: Sequence[Watcher], number: int
) -> tuple[float, float]:
    service, id_ = f"stop-{number}", f"stop-{number}-1"
    agent = Agent(
        stage.directory / id_, stage.cluster.endpoints, f"--service={service}", f"--id={id_}",
        "--port=8080", "--address=10.0.0.1", "--drain=0s", "--", "sleep", "60",
    )  # fmt: skip
    try:
        await _until_all(watchers, [id_], "registered", 30)
        for port in stage.dns_ports:
            await _until_answer(port, service, lambda reply: bool(reply.answer))
        sent = time.monotonic()
        agent.send(signal.SIGTERM)
        by_dns = await asyncio.gather(
            *(
                _until_answer(port, service, lambda reply: not reply.answer)
                for port in stage.dns_ports
            )
        )
        await _until_all(watchers, [id_], "deregistered", 30)
        told = [watcher.heard_after(id_, "deregistered") for watcher in watchers]
        await asyncio.to_thread(agent.wait)
        return max(told) - sent, max(by_dns) - sent
    finally:
        agent.close()


async def _until_answer(
    port: int, service: str, holds: Callable[[dns.message.Message], bool]
) -> float:
    """Asks again and again; when the answer was so, in seconds of the monotonic clock."""
    deadline = time.monotonic() + 30
    while not holds(await _ask(port, service)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"DNS at port {port} did not come to know of {service} in 30 s")
        await asyncio.sleep(0.002)
    return time.monotonic()
