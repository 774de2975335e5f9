"""Members on real loopback sockets: what arrives, who is let in, what is bounded."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvstore.errors import LEASE_NOT_FOUND, TOO_MANY_REQUESTS, Code, EtcdError
from kvstore.machine import Member
from kvstore.metrics import Metrics
from kvstore.node import peer_link, peer_server, snapshot_transfer, wire
from kvstore.node.config import NodeConfig
from kvstore.node.peers import Peers, TcpNetwork
from kvstore.node.transport import Cluster, LocalMember
from kvstore.node.wire import Hello, Kind
from kvstore.storage.disk import OsDisk
from kvstore.storage.snapshot import SnapshotHeader, SnapshotWriter
from kvstore.storage.store import EngineInfo
from raft.messages import Append, Heartbeat, InstallSnapshot, Message, to_wire
from raft.types import ConfState, Entry, EntryKind, SnapshotMeta
from tests.support.servers import free_ports

CLUSTER = 0xC1


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a test on an event loop of its own; what fails unseen on the loop fails the test."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        failures: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _l, c: failures.append(c))
            async with asyncio.timeout(20):
                await test(*args, **kwargs)

        asyncio.run(main())
        assert not failures

    return run


async def until(condition: Callable[[], Any]) -> Any:
    while not (value := condition()):  # noqa: ASYNC110 - what it waits for has no event
        await asyncio.sleep(0.002)
    return value


class Station:
    """One member's transport, and everything it heard."""

    def __init__(
        self,
        number: int,
        directory: Path,
        *,
        cluster_id: int = CLUSTER,
        scheme: str = "http",
        **settings: Any,
    ) -> None:
        self.number = number
        self.batches: list[list[Message]] = []
        self.unreachable: list[int] = []
        self.snapshots: list[tuple[InstallSnapshot, Path]] = []
        self.asked: list[bytes] = []
        self.removed: set[int] = set()
        self.gate = asyncio.Event()
        self.directory = directory / f"member-{number}"
        self.port = free_ports(1)[0]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        config = NodeConfig(
            name=f"m{number}",
            data_dir=directory,
            listen_peer_urls=(self.url,),
            advertise_peer_urls=(self.url,),
            advertise_client_urls=(),
            initial_cluster={},
            unsafe_no_fsync=True,
        )
        self.local = LocalMember(
            cluster_id=cluster_id,
            member_id=number,
            config=config,
            metrics=Metrics(),
            snapshot_dir=self.directory,
            on_messages=lambda messages: self.batches.append(list(messages)),
            on_unreachable=self.unreachable.append,
            on_snapshot=lambda message, path: self.snapshots.append((message, path)),
            answers={
                "echo": self._echo,
                "refuse": self._refuse,
                "break": self._break,
                "wait": self._wait,
            },
            cluster=lambda: Cluster(cluster_id, (self.member(),)),
            removed=lambda member_id: member_id in self.removed,
        )
        self.network = TcpNetwork(**settings)
        self.peers = Peers(self.local, self.network)

    def member(self) -> Member:
        return Member(self.number, f"m{self.number}", (self.url,), ("http://client:1",), False)

    def messages(self) -> list[Message]:
        return [message for batch in self.batches for message in batch]

    def metric(self, name: str, **labels: str) -> float:
        return self.local.metrics.registry.get_sample_value(name, labels) or 0.0

    async def _echo(self, payload: bytes) -> bytes:
        self.asked.append(payload)
        return payload * 2

    async def _refuse(self, payload: bytes) -> bytes:
        raise LEASE_NOT_FOUND

    async def _break(self, payload: bytes) -> bytes:
        raise ZeroDivisionError

    async def _wait(self, payload: bytes) -> bytes:
        self.asked.append(payload)
        await self.gate.wait()
        return b"done"


class Town:
    """Some stations that know one another; closed at the end."""

    def __init__(self, directory: Path, *numbers: int, **settings: Any) -> None:
        self.stations = [Station(number, directory, **settings) for number in numbers]

    async def __aenter__(self) -> list[Station]:
        for station in self.stations:
            await station.peers.start()
        for station in self.stations:
            introduce(station, *self.stations)
        for station in self.stations:
            for other in self.stations:
                if other is not station:
                    await until(lambda s=station, o=other: s.peers.active_since(o.number))
        return self.stations

    async def __aexit__(self, *failure: object) -> None:
        for station in self.stations:
            await station.peers.stop()


def introduce(station: Station, *others: Station) -> None:
    station.peers.update([other.member() for other in others if other is not station])


def heartbeat(sender: int, to: int, commit: int = 0) -> Heartbeat:
    return Heartbeat(sender, to, 1, commit, 0)


def append(sender: int, to: int, size_bytes: int, index: int = 1) -> Append:
    entry = Entry(index, 1, EntryKind.NORMAL, os.urandom(8) + bytes(size_bytes - 8))
    return Append(sender, to, 1, index - 1, 1 if index > 1 else 0, 0, [entry])


def lines(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


# ---- messages ---------------------------------------------------------------------------------


@on_a_loop
async def test_messages_of_one_turn_arrive_as_one_batch_both_ways(tmp_path: Path) -> None:
    async with Town(tmp_path, 1, 2) as (one, two):
        sent = [heartbeat(1, 2, commit) for commit in range(3)]
        one.peers.send(2, sent)
        two.peers.send(1, [append(2, 1, 5000)])
        await until(lambda: two.batches and one.batches)
        assert two.batches == [sent]
        assert isinstance(one.messages()[0], Append)
        one.peers.send(2, [heartbeat(1, 2, 9)])
        await until(lambda: len(two.batches) == 2)
        assert one.metric("etcd_network_peer_sent_bytes_total", To="2") > 40
        assert two.metric("etcd_network_peer_received_bytes_total", From="1") > 40
        assert one.unreachable == []


@on_a_loop
async def test_much_that_leaves_together_is_cut_into_frames_and_keeps_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_link, "FRAME_BYTES_TARGET", 10_000)
    async with Town(tmp_path, 1, 2) as (one, two):
        sent = [append(1, 2, 3000, index) for index in range(1, 40)]
        one.peers.send(2, sent)
        await until(lambda: len(two.messages()) == len(sent))
        assert two.messages() == sent
        assert 8 <= len(two.batches) <= 12


@on_a_loop
async def test_a_large_message_passes_whole(tmp_path: Path) -> None:
    async with Town(tmp_path, 1, 2) as (one, two):
        message = append(1, 2, 9 * 1024**2)
        one.peers.send(2, [message])
        await until(lambda: two.batches)
        assert two.messages() == [message]


@on_a_loop
async def test_without_a_connection_messages_are_dropped_and_the_sender_is_told(
    tmp_path: Path,
) -> None:
    async with Town(tmp_path, 1) as (one,):
        gone = Station(2, tmp_path)
        introduce(one, gone)
        one.peers.send(2, [heartbeat(1, 2)] * 3)
        one.peers.send(77, [heartbeat(1, 77)])
        assert one.unreachable == []  # never from within
        await until(lambda: len(one.unreachable) == 2)
        assert sorted(one.unreachable) == [2, 77]
        assert one.metric("etcd_network_peer_sent_failures_total", To="2") == 3
        assert one.peers.active_since(2) is None
        with pytest.raises(ConnectionError):
            await one.peers.call(2, "echo", b"x", 1.0)
        with pytest.raises(ConnectionError):
            await one.peers.call(77, "echo", b"x", 1.0)


@on_a_loop
async def test_a_reader_that_stands_still_fills_a_bounded_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 2 * 1024**2
    monkeypatch.setattr(peer_link, "MESSAGES_QUEUED_BYTES_MAX", limit)
    async with Town(tmp_path, 1, 2) as (one, two):
        two.peers._inbound[1].pause_receiving(True)
        link = one.peers._links[2]
        message = append(1, 2, 200_000)
        for _ in range(100):
            one.peers.send(2, [message])
            await asyncio.sleep(0)
            assert link._queued_bytes <= limit
        await until(lambda: one.unreachable)
        assert link.dropped > 0
        assert link._connection is not None
        assert link._connection.unsent_bytes() <= 2 * peer_link.FRAME_BYTES_TARGET
        two.peers._inbound[1].pause_receiving(False)
        await until(lambda: not link._queue and len(two.messages()) == 100 - link.dropped)
        one.peers.send(2, [heartbeat(1, 2, 5)])
        await until(lambda: two.messages()[-1] == heartbeat(1, 2, 5))


@on_a_loop
async def test_the_queue_is_bounded_by_count_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_link, "MESSAGES_QUEUED_MAX", 10)
    async with Town(tmp_path, 1, 2) as (one, two):
        one.peers.send(2, [heartbeat(1, 2, commit) for commit in range(25)])
        await until(lambda: two.batches)
        assert two.messages() == [heartbeat(1, 2, commit) for commit in range(10)]
        assert one.peers._links[2].dropped == 15


# ---- losing and finding each other ------------------------------------------------------------


@on_a_loop
async def test_a_cut_connection_is_noticed_and_made_again(tmp_path: Path) -> None:
    async with Town(tmp_path, 1, 2) as (one, two):
        first = one.peers.active_since(2)
        two.peers._inbound[1].abort("cut")
        await until(lambda: 2 in one.unreachable)
        second = await until(lambda: one.peers.active_since(2))
        assert second > first
        one.peers.send(2, [heartbeat(1, 2)])
        await until(lambda: two.messages())


@on_a_loop
async def test_a_restarted_peer_is_found_again_within_a_moment(tmp_path: Path) -> None:
    async with Town(tmp_path, 1, 2) as (one, two):
        await two.peers.stop()
        await until(lambda: one.peers.active_since(2) is None)
        await asyncio.sleep(0.3)
        two.peers = Peers(two.local, two.network)
        await two.peers.start()
        introduce(two, one)
        started = asyncio.get_running_loop().time()
        await until(lambda: one.peers.active_since(2) and two.peers.active_since(1))
        assert asyncio.get_running_loop().time() - started < 0.8


def test_round_trips_are_measured_finer_than_the_loop_tells_time(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")
    name = "etcd_network_peer_round_trip_time_seconds"

    async def main() -> None:
        async with Town(tmp_path, 1, 2) as (one, _):
            await until(lambda: one.metric(f"{name}_count", To="2"))
            took_ms = one.metric(f"{name}_sum", To="2") * 1000
            # uvloop's clock goes in whole milliseconds.
            assert abs(took_ms - round(took_ms)) > 1e-6

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 20))


@on_a_loop
async def test_a_peer_that_does_not_answer_pings_is_dialled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_link, "PING_S", 0.02)
    monkeypatch.setattr(peer_link, "PING_TIMEOUT_S", 0.1)
    async with Town(tmp_path, 1, 2) as (one, two):
        await until(
            lambda: one.metric("etcd_network_peer_round_trip_time_seconds_count", To="2") >= 3
        )
        first = one.peers.active_since(2)
        two.peers._inbound[1].pause_receiving(True)
        await until(lambda: 2 in one.unreachable)
        assert await until(lambda: one.peers.active_since(2)) > first


@on_a_loop
async def test_a_member_that_left_is_cut_off_for_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Town(tmp_path, 1, 2, 3) as (one, two, three):
        introduce(one, three)
        await until(lambda: two.peers.active_since(1) is None)
        await until(lambda: lines(caplog, "member 2 was removed from the cluster"))
        await asyncio.sleep(0.2)
        two.peers.send(1, [heartbeat(2, 1)])
        assert one.messages() == []
        assert one.peers.active_since(2) is None
        assert one.peers.active_since(3) is not None
        refused = lines(caplog, "refused member 2 ")
        told = lines(caplog, "cannot connect to member 1")
        assert (len(refused), len(told)) == (1, 1)


@on_a_loop
async def test_a_new_address_is_used(tmp_path: Path) -> None:
    async with Town(tmp_path, 1, 2) as (one, two):
        await two.peers.stop()
        moved = Station(2, tmp_path)
        await moved.peers.start()
        introduce(one, moved)
        await until(lambda: one.peers.active_since(2))
        one.peers.send(2, [heartbeat(1, 2)])
        await until(lambda: moved.messages())
        await moved.peers.stop()


# ---- who is let in ----------------------------------------------------------------------------


@on_a_loop
async def test_a_member_of_another_cluster_is_refused_and_both_say_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, foreign = Station(1, tmp_path), Station(2, tmp_path, cluster_id=0xBAD)
    await ours.peers.start()
    await foreign.peers.start()
    introduce(foreign, ours)
    introduce(ours, foreign)
    await until(lambda: lines(caplog, "refused member 2 of cluster bad"))
    await until(lambda: lines(caplog, "cannot connect to member 1"))
    await asyncio.sleep(0.4)  # several attempts
    told = lines(caplog, "cannot connect to member 1")
    assert len(told) == len(lines(caplog, "refused member 2 of cluster bad")) == 1
    assert "cluster bad is not this member's cluster c1" in told[0]
    foreign.peers.send(1, [heartbeat(2, 1)])
    await asyncio.sleep(0.05)
    assert ours.messages() == []
    assert foreign.peers.active_since(1) is None
    await foreign.peers.stop()
    await ours.peers.stop()


@on_a_loop
async def test_another_member_at_the_address_is_not_spoken_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Town(tmp_path, 1, 2) as (one, two):
        one.peers.update([two.member(), Member(3, "m3", (two.url,))])
        await until(lambda: lines(caplog, "this is member 2, not member 3"))
        assert one.peers.active_since(3) is None


@on_a_loop
async def test_a_member_not_heard_of_yet_is_let_in_and_answered(tmp_path: Path) -> None:
    async with Town(tmp_path, 1) as (one,):
        late = Station(9, tmp_path)
        await late.peers.start()
        introduce(late, one)
        await until(lambda: late.peers.active_since(1))
        late.peers.send(1, [heartbeat(9, 1)])
        await until(lambda: one.messages())
        await until(lambda: one.peers._strangers[9].connected_at)
        one.peers.send(9, [heartbeat(1, 9)])
        await until(lambda: late.messages())
        assert one.peers.active_since(9) is None  # it counts once it is a member
        introduce(one, late)
        assert one.peers.active_since(9) is not None
        await late.peers.stop()
        await until(lambda: one.peers.active_since(9) is None)


@on_a_loop
async def test_a_stranger_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async with Town(tmp_path, 1) as (one,):
        late = Station(9, tmp_path)
        await late.peers.start()
        introduce(late, one)
        await until(lambda: one.peers._strangers)
        await late.peers.stop()
        await until(lambda: not one.peers._strangers)


@on_a_loop
async def test_a_removed_member_does_not_come_back_as_a_stranger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Town(tmp_path, 1) as (one,):
        one.removed.add(9)
        late = Station(9, tmp_path)
        await late.peers.start()
        introduce(late, one)
        await until(lambda: lines(caplog, "member 9 was removed from the cluster"))
        assert not one.peers._strangers
        await late.peers.stop()


async def raw(station: Station, *data: bytes) -> tuple[bytes, asyncio.StreamWriter]:
    """Sends bytes to a station's peer port; returns what comes back until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", station.port)
    for piece in data:
        writer.write(piece)
    return await reader.read(), writer


def hello(sender: int = 2, target: int = 1, **changes: Any) -> bytes:
    fields = Hello(wire.VERSION, 1, CLUSTER, sender, target, ("http://127.0.0.1:1",))
    return wire.hello_frame(fields._replace(**changes))


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "huge": b"\xff\xff\xff\xff",
    "not msgpack": b"\x00\x00\x00\x01\x67\x36\x4b\x85\xc1",
    "checksum": b"\x00\x00\x00\x01\x00\x00\x00\x00\xc1",
    "messages first": wire.frame(Kind.MESSAGES, [to_wire(heartbeat(2, 1))]),
    "magic": wire.frame(Kind.HELLO, "etcd", 1, 1, CLUSTER, 2, 1, []),
    "short hello": wire.frame(Kind.HELLO, wire.MAGIC, 1),
    "question": wire.frame(Kind.ASK_CLUSTER, "etcd", 1),
}


@pytest.mark.parametrize("name", GARBAGE)
@on_a_loop
async def test_garbage_in_place_of_a_handshake_is_cut_off_with_one_line(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Town(tmp_path, 1) as (one,):
        for _ in range(2):
            try:
                answer, writer = await raw(one, GARBAGE[name])
            except ConnectionResetError:
                continue
            assert answer == b""
            writer.close()
        await until(lambda: lines(caplog, "malformed data"))
        await asyncio.sleep(0.01)
        assert len(lines(caplog, "malformed data")) == 1
        assert one.messages() == []
        assert len(one.peers._server._open) == 0


REFUSED = {
    "version": ({"version": 2}, "version 2 of the peer protocol is not version 1"),
    "purpose": ({"purpose": 7}, "no connection serves the purpose 7"),
    "cluster": ({"cluster_id": 5}, "cluster 5 is not this member's cluster c1"),
    "target": ({"target": 8}, "this is member 1, not member 8"),
    "itself": ({"sender": 1}, "1 is not the id of another member"),
    "nobody": ({"sender": 0}, "0 is not the id of another member"),
    "unknown": ({"sender": 66, "peer_urls": ()}, "member 42 is not known here"),
}


@pytest.mark.parametrize("name", REFUSED)
@on_a_loop
async def test_a_handshake_that_is_refused(name: str, tmp_path: Path) -> None:
    changes, reason = REFUSED[name]
    async with Town(tmp_path, 1, 2) as (one, _two):
        answer, writer = await raw(one, hello(**changes))
        writer.close()
        assert answer == wire.frame(Kind.REFUSED, reason)


MALFORMED = {
    "kind": wire.frame(Kind.WELCOME, 1, 2),
    "call": wire.frame(Kind.CALL, 1, 2, 3),
    "ping": wire.frame(Kind.PING, "x"),
    "no list": wire.frame(Kind.MESSAGES, 5),
    "no message": wire.frame(Kind.MESSAGES, [[99, 1, 2]]),
    "foreign sender": wire.frame(Kind.MESSAGES, [to_wire(heartbeat(3, 1))]),
    "foreign target": wire.frame(Kind.MESSAGES, [to_wire(heartbeat(2, 3))]),
    "snapshot": wire.frame(Kind.CHUNK, 1, b"x"),
    "length": b"\x7f\xff\xff\xff",
    "checksum": wire.frame(Kind.PING, 1)[:-1] + b"\x02",
}


@pytest.mark.parametrize("name", MALFORMED)
@on_a_loop
async def test_malformed_frames_of_a_member_end_its_connection(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Town(tmp_path, 1) as (one,):
        try:
            answer, writer = await raw(one, hello() + MALFORMED[name])
        except ConnectionResetError:
            pass
        else:
            assert answer in (b"", wire.frame(Kind.WELCOME, CLUSTER, 1))
            writer.close()
        await until(lambda: lines(caplog, "closed the connection of member 2: malformed data"))
        assert one.messages() == []
        assert one.metric("etcd_network_peer_received_failures_total", From="2") == 1


@on_a_loop
async def test_whoever_does_not_say_who_it_is_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_server, "DIAL_TIMEOUT_S", 0.05)
    async with Town(tmp_path, 1) as (one,):
        try:
            answer, writer = await raw(one, b"\x00\x00")
        except ConnectionResetError:
            return
        assert answer == b""
        writer.close()


@on_a_loop
async def test_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_server, "INBOUND_CONNECTIONS_MAX", 3)
    async with Town(tmp_path, 1) as (one,):
        writers = [(await asyncio.open_connection("127.0.0.1", one.port))[1] for _ in range(6)]
        await asyncio.sleep(0.05)
        assert len(one.peers._server._open) == 3
        for writer in writers:
            writer.close()
        await until(lambda: not one.peers._server._open)


@on_a_loop
async def test_a_used_port_is_an_error_that_says_so(tmp_path: Path) -> None:
    async with Town(tmp_path, 1) as (one,):
        rival = Station(2, tmp_path)
        object.__setattr__(rival.local.config, "listen_peer_urls", (one.url,))
        with pytest.raises(OSError, match="another process has it") as caught:
            await rival.peers.start()
        assert caught.value.errno == errno.EADDRINUSE
        assert str(one.port) in str(caught.value)
        await rival.peers.stop()


# ---- questions --------------------------------------------------------------------------------


@on_a_loop
async def test_questions_are_answered_in_any_order(tmp_path: Path) -> None:
    async with Town(tmp_path, 1, 2) as (one, two):
        slow = asyncio.create_task(one.peers.call(2, "wait", b"1", 5.0))
        assert await one.peers.call(2, "echo", b"ab", 5.0) == b"abab"
        assert not slow.done()
        two.gate.set()
        assert await slow == b"done"


@on_a_loop
async def test_errors_travel_with_code_and_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Town(tmp_path, 1, 2) as (one, _two):
        with pytest.raises(EtcdError) as caught:
            await one.peers.call(2, "refuse", b"", 5.0)
        assert caught.value == LEASE_NOT_FOUND
        with pytest.raises(EtcdError) as caught:
            await one.peers.call(2, "unheard", b"", 5.0)
        assert caught.value.code == Code.UNIMPLEMENTED
        with pytest.raises(EtcdError) as caught:
            await one.peers.call(2, "break", b"", 5.0)
        assert caught.value.code == Code.INTERNAL
        assert lines(caplog, "a question of a peer could not be answered")


@on_a_loop
async def test_a_question_without_an_answer_times_out_or_fails_with_the_connection(
    tmp_path: Path,
) -> None:
    async with Town(tmp_path, 1, 2) as (one, two):
        with pytest.raises(TimeoutError):
            await one.peers.call(2, "wait", b"", 0.02)
        waiting = asyncio.create_task(one.peers.call(2, "wait", b"", 5.0))
        await until(lambda: len(two.asked) == 2)
        two.peers._inbound[1].abort("cut")
        with pytest.raises(ConnectionError, match="lost the connection"):
            await waiting
        assert not one.peers._links[2]._calls


@on_a_loop
async def test_questions_are_bounded_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_server, "CALLS_SERVED_MAX", 2)
    monkeypatch.setattr(peer_link, "CALLS_PENDING_MAX", 3)
    async with Town(tmp_path, 1, 2) as (one, two):
        waiting = [asyncio.create_task(one.peers.call(2, "wait", b"", 5.0)) for _ in range(2)]
        await until(lambda: len(two.asked) == 2)
        with pytest.raises(EtcdError) as caught:
            await one.peers.call(2, "echo", b"", 5.0)
        assert caught.value == TOO_MANY_REQUESTS
        two.gate.set()
        assert await asyncio.gather(*waiting) == [b"done", b"done"]
        two.gate.clear()
        tasks = [asyncio.create_task(one.peers.call(2, "echo", b"x", 5.0)) for _ in range(4)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results.count(TOO_MANY_REQUESTS) >= 1


@on_a_loop
async def test_anybody_may_ask_for_the_members(tmp_path: Path) -> None:
    async with Town(tmp_path, 1) as (one,):
        cluster = await TcpNetwork().fetch_cluster(one.url)
        assert cluster == Cluster(CLUSTER, (one.member(),))
    with pytest.raises(ConnectionRefusedError):
        await TcpNetwork().fetch_cluster(one.url)
    with pytest.raises(OSError, match="not a peer URL"):
        await TcpNetwork().fetch_cluster("unix:///tmp/x")
    with pytest.raises(OSError, match="no peer certificate"):
        await TcpNetwork().fetch_cluster("https://127.0.0.1:1")


@on_a_loop
async def test_a_question_for_members_to_something_else_fails_cleanly() -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConnectionError, match="malformed data"):
        await TcpNetwork().fetch_cluster(f"http://127.0.0.1:{port}")
    server.close()


# ---- snapshots --------------------------------------------------------------------------------

CONF = ConfState((1, 2))


def snapshot_file(directory: Path, size_bytes: int, cluster_id: int = CLUSTER) -> Path:
    header = SnapshotHeader(50, 3, CONF, cluster_id, EngineInfo("test", "1", 4096))
    with SnapshotWriter(OsDisk(sync=False), directory, header) as writer:
        for _ in range(0, size_bytes, 65536):
            writer.write(os.urandom(65536))
        return writer.finish()


def announcement(sender: int = 1, to: int = 2) -> InstallSnapshot:
    return InstallSnapshot(sender, to, 3, SnapshotMeta(50, 3, CONF))


def files(station: Station) -> Sequence[str]:
    return sorted(os.listdir(station.directory)) if station.directory.exists() else []


@on_a_loop
async def test_a_large_snapshot_arrives_whole_while_messages_pass(tmp_path: Path) -> None:
    async with Town(tmp_path, 1, 2) as (one, two):
        path = snapshot_file(tmp_path / "out", 24 * 1024**2)
        sending = asyncio.create_task(one.peers.send_snapshot(2, announcement(), path))
        beats = 0
        while not sending.done():
            one.peers.send(2, [heartbeat(1, 2, beats)])
            beats += 1
            await asyncio.sleep(0.005)
        assert await sending is True
        ((message, received),) = two.snapshots
        assert message == announcement()
        assert received.read_bytes() == path.read_bytes()
        assert received.parent == two.directory
        assert files(two) == [path.name]
        await until(lambda: len(two.messages()) == beats)


@on_a_loop
async def test_a_snapshot_is_sent_no_faster_than_allowed(tmp_path: Path) -> None:
    async with Town(tmp_path, 1, 2, snapshot_bytes_per_s=8 * 1024**2) as (one, _two):
        path = snapshot_file(tmp_path / "out", 2 * 1024**2)
        started = asyncio.get_running_loop().time()
        assert await one.peers.send_snapshot(2, announcement(), path)
        assert asyncio.get_running_loop().time() - started >= 0.24


@pytest.mark.parametrize("damage", ["flipped", "cut", "foreign"])
@on_a_loop
async def test_a_damaged_or_foreign_snapshot_is_not_taken(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Town(tmp_path, 1, 2) as (one, two):
        cluster_id = 0xBAD if damage == "foreign" else CLUSTER
        path = snapshot_file(tmp_path / "out", 1024**2, cluster_id)
        data = bytearray(path.read_bytes())
        if damage == "flipped":
            data[len(data) // 2] ^= 1
        elif damage == "cut":
            del data[-40:]
        path.write_bytes(data)
        assert await one.peers.send_snapshot(2, announcement(), path) is False
        assert (two.snapshots, files(two)) == ([], [])
        assert lines(caplog, "the snapshot from 1 was not taken")
        assert lines(caplog, "member 2 did not take the snapshot")
        await until(lambda: two.peers._reception is None)
        assert await one.peers.send_snapshot(
            2, announcement(), snapshot_file(tmp_path / "good", 1024**2)
        )


@on_a_loop
async def test_a_transfer_that_is_cut_leaves_nothing_behind(tmp_path: Path) -> None:
    async with Town(tmp_path, 1, 2, snapshot_bytes_per_s=4 * 1024**2) as (one, two):
        path = snapshot_file(tmp_path / "out", 4 * 1024**2)
        sending = asyncio.create_task(one.peers.send_snapshot(2, announcement(), path))
        await until(lambda: files(two))
        assert two.peers._reception is not None
        two.peers._reception._connection.abort("cut")
        assert await sending is False
        await until(lambda: not files(two) and two.peers._reception is None)
        assert two.snapshots == []


@on_a_loop
async def test_a_sender_that_starts_over_replaces_its_old_transfer(tmp_path: Path) -> None:
    async with Town(tmp_path, 1, 2, snapshot_bytes_per_s=8 * 1024**2) as (one, two):
        path = snapshot_file(tmp_path / "out", 2 * 1024**2)
        first = asyncio.create_task(one.peers.send_snapshot(2, announcement(), path))
        await until(lambda: files(two))
        second = asyncio.create_task(one.peers.send_snapshot(2, announcement(), path))
        assert await second is True
        assert await first is False
        assert len(two.snapshots) == 1
        assert files(two) == [path.name]


@on_a_loop
async def test_a_second_sender_waits_until_the_first_is_done(tmp_path: Path) -> None:
    async with Town(tmp_path, 1, 2, 3, snapshot_bytes_per_s=8 * 1024**2) as (one, two, three):
        path = snapshot_file(tmp_path / "out", 2 * 1024**2)
        first = asyncio.create_task(one.peers.send_snapshot(2, announcement(), path))
        await until(lambda: files(two))
        with pytest.raises(ConnectionError, match="a snapshot from 1 is being received"):
            await three.peers.send_snapshot(2, announcement(3), path)
        assert await first is True
        await until(lambda: two.peers._reception is None)
        assert await three.peers.send_snapshot(2, announcement(3), path)


@on_a_loop
async def test_a_sender_that_falls_silent_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(snapshot_transfer, "SNAPSHOT_IDLE_S", 0.1)
    async with Town(tmp_path, 1, 2) as (_one, two):
        announce = wire.frame(Kind.SNAPSHOT, to_wire(announcement()), 1000)
        answer, writer = await raw(two, hello(1, 2, purpose=2) + announce)
        writer.close()
        assert answer.endswith(wire.frame(Kind.RECEIVED, False, "the sender has fallen silent"))
        assert files(two) == []


SNAPSHOT_GARBAGE = {
    "no announcement": wire.frame(Kind.CHUNK, 0, b""),
    "another message": wire.frame(Kind.SNAPSHOT, to_wire(heartbeat(1, 2)), 10),
    "another sender": wire.frame(Kind.SNAPSHOT, to_wire(announcement(3)), 10),
    "no size": wire.frame(Kind.SNAPSHOT, to_wire(announcement()), 0),
    "longer": wire.frame(Kind.SNAPSHOT, to_wire(announcement()), 1)
    + wire.frame(Kind.CHUNK, 0xE3069283, b"123456789"),
}


@pytest.mark.parametrize("name", SNAPSHOT_GARBAGE)
@on_a_loop
async def test_malformed_transfers_end_without_a_file(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Town(tmp_path, 1, 2) as (_one, two):
        try:
            _answer, writer = await raw(two, hello(1, 2, purpose=2) + SNAPSHOT_GARBAGE[name])
        except ConnectionResetError:
            pass
        else:
            writer.close()
        await until(lambda: lines(caplog, "closed the connection of member 1: malformed data"))
        await until(lambda: two.peers._reception is None)
        assert (files(two), two.snapshots) == ([], [])


@on_a_loop
async def test_a_piece_with_a_wrong_checksum_is_told_to_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Town(tmp_path, 1, 2) as (_one, two):
        announce = wire.frame(Kind.SNAPSHOT, to_wire(announcement()), 9)
        piece = wire.frame(Kind.CHUNK, 0xE3069284, b"123456789")
        answer, writer = await raw(two, hello(1, 2, purpose=2) + announce + piece)
        writer.close()
        told = "a piece of it came with a wrong checksum"
        assert answer.endswith(wire.frame(Kind.RECEIVED, False, told))
        assert lines(caplog, told)
        await until(lambda: two.peers._reception is None)


@on_a_loop
async def test_stopping_in_the_middle_of_everything(tmp_path: Path) -> None:
    logging.getLogger("kvstore.node").setLevel(logging.DEBUG)
    town = Town(tmp_path, 1, 2, snapshot_bytes_per_s=4 * 1024**2)
    async with town as (one, two):
        path = snapshot_file(tmp_path / "out", 4 * 1024**2)
        sending = asyncio.create_task(one.peers.send_snapshot(2, announcement(), path))
        asking = asyncio.create_task(one.peers.call(2, "wait", b"", 5.0))
        one.peers.update([two.member(), Member(3, "m3", ("http://127.0.0.1:1",))])
        await until(lambda: files(two) and two.asked)
    with pytest.raises(ConnectionError):
        await asking
    await asyncio.gather(sending, return_exceptions=True)
    assert files(two) == []
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if not task.done()]


# ---- TLS --------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
@on_a_loop
async def test_members_speak_tls_when_their_urls_say_so(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    command += f" -subj /CN=m -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)  # noqa: ASYNC221
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate))
    async with Town(tmp_path, 1, 2, scheme="https", server_tls=server, client_tls=client) as (
        one,
        two,
    ):
        one.peers.send(2, [append(1, 2, 300_000)])
        await until(lambda: two.messages())
        assert await one.peers.call(2, "echo", b"x", 5.0) == b"xx"
        path = snapshot_file(tmp_path / "out", 1024**2)
        assert await one.peers.send_snapshot(2, announcement(), path)
        with pytest.raises(OSError, match="certificate verify failed"):
            await TcpNetwork(client_tls=ssl.create_default_context()).fetch_cluster(one.url)
