"""The server on real sockets, over a shelf and over members with a registry."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from kvstore.gateways.dns.budget import Budget
from kvstore.gateways.dns.counts import Counts
from kvstore.gateways.dns.limits import UNREAD_MAX
from kvstore.gateways.dns.responder import Responder
from kvstore.gateways.dns.server import DnsServer
from kvstore.gateways.dns.settings import make_settings
from kvstore.gateways.dns.tcp import TcpEndpoint
from kvstore.machine import ANY_REVISION, BatchAction, BatchItem
from kvstore.registry.model import Reason, Status, encode
from kvstore.registry.names import InstanceName, instance_key
from kvstore.serving.dns import bind_dns
from kvstore.serving.exits import ServerStopError
from kvstore.serving.urls import ListenUrl
from tests.unit.gateways.dns.shelf import Shelf, instance
from tests.unit.gateways.dns.test_wire import NAME, many, query
from tests.unit.node.nodes import until
from tests.unit.node.on_loop import on_loop
from tests.unit.registry.world import PAYMENT, deregister, payment, register, world

SETTINGS = make_settings("kv.local", ttl_s=5, consul_domain="consul")


class Door:
    """A server and where it is."""

    def __init__(self, server: DnsServer, port: int, host: str = "127.0.0.1") -> None:
        self.server = server
        self.port = port
        self.host = host

    async def udp(self, name: str = NAME, kind: str = "A", **how: Any) -> dns.message.Message:
        asked = dns.message.make_query(name, kind, **how)
        return await dns.asyncquery.udp(asked, self.host, timeout=5, port=self.port)

    async def tcp(self, name: str = NAME, kind: str = "A", **how: Any) -> dns.message.Message:
        asked = dns.message.make_query(name, kind, **how)
        return await dns.asyncquery.tcp(asked, self.host, timeout=5, port=self.port)

    async def addresses(self, name: str = NAME) -> set[str]:
        return {each.address for found in (await self.udp(name)).answer for each in found}


@asynccontextmanager
async def open_door(catalog: Any, host: str = "127.0.0.1") -> AsyncIterator[Door]:
    bound = bind_dns([ListenUrl(f"{host}:0", host, 0)])
    server = DnsServer(SETTINGS, catalog)
    await server.start(bound.udp, bound.tcp)
    try:
        yield Door(server, bound.udp[0].getsockname()[1], host)
    finally:
        await server.stop()
        assert all(each.fileno() < 0 for each in (*bound.udp, *bound.tcp))


@on_loop
async def test_udp_tcp_and_the_way_from_one_to_the_other() -> None:
    async with open_door(many(500)) as door:
        cut = await door.udp()
        assert cut.flags & dns.flags.TC
        whole = await door.tcp()
        assert len(whole.answer[0]) == 500
        assert len((await door.tcp(NAME, "SRV")).answer[0]) == 500
        both = await dns.asyncquery.udp_with_fallback(
            dns.message.make_query(NAME, "A"), door.host, port=door.port
        )
        assert (both[1], len(both[0].answer[0])) == (True, 500)


@on_loop
async def test_a_socket_of_all_addresses_answers_from_the_one_that_was_asked() -> None:
    async with open_door(many(1), "0.0.0.0") as door:
        for host in ("127.0.0.1", "127.0.0.77"):
            door.host = host
            # The client takes answers from there alone.
            assert len(await door.addresses()) == 1


@on_loop
async def test_ipv6() -> None:
    try:
        async with open_door(many(1), "::1") as door:
            assert len(await door.addresses()) == 1
        async with open_door(many(1), "::") as door:
            for host in ("::1", "127.0.0.1"):
                door.host = host
                assert len(await door.addresses()) == 1
    except ServerStopError as error:
        pytest.skip(f"no IPv6 here: {error}")


@on_loop
async def test_questions_of_one_connection_in_one_piece_and_in_many() -> None:
    async with open_door(many(3)) as door:
        reader, writer = await asyncio.open_connection(door.host, door.port)
        framed = [struct.pack(">HH", len(query()), number) + query()[2:] for number in range(200)]
        writer.write(b"".join(framed))
        ids = [await read_id(reader) for _ in framed]
        assert ids == list(range(200))
        for byte in framed[7]:
            writer.write(bytes((byte,)))
            await writer.drain()
        assert await read_id(reader) == 7
        writer.write(framed[8])
        writer.write_eof()
        assert await read_id(reader) == 8, "answered though he said no more"
        assert await reader.read() == b""
        writer.close()


async def read_id(reader: asyncio.StreamReader) -> int:
    (length,) = struct.unpack(">H", await reader.readexactly(2))
    answer = await reader.readexactly(length)
    return answer[0] << 8 | answer[1]


async def ended(reader: asyncio.StreamReader) -> bool:
    """Waits for the end of a connection, of either kind, without another byte before it."""
    try:
        return await reader.read(1) == b""
    except ConnectionResetError:
        return True


@on_loop
async def test_who_does_not_read_is_not_answered_without_end() -> None:
    async with open_door(many(900)) as door:
        reader, writer = await asyncio.open_connection(door.host, door.port, limit=2**16)
        one = struct.pack(">H", len(query())) + query()
        writer.write(one * 1000)  # answers of 15 KB each
        (connection,) = await until_connected(door, 1)
        transport = connection._transport
        before = None
        # It must not move any more, and nothing tells of that.
        while before != (before := len(connection._buffer)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert transport.get_write_buffer_size() < 2**20
        assert len(connection._buffer) > len(one) * 50
        for _ in range(1000):
            await read_id(reader)
        writer.close()


async def until_connected(door: Door, count: int) -> list[Any]:
    async def there() -> list[Any] | None:
        found = list(door.server._tcp.connections)
        return found if len(found) == count else None

    return await until(there)


@on_loop
async def test_connections_are_bounded_and_idle_ones_are_closed() -> None:
    shelf = many(1)
    counts = Counts()
    responder = Responder(SETTINGS, shelf, lambda _work: None, counts)  # type: ignore[arg-type]
    endpoint = TcpEndpoint(responder, Budget(), counts, idle_s=0.2, connections_max=2)
    bound = bind_dns([ListenUrl("127.0.0.1:0", "127.0.0.1", 0)])
    await endpoint.start(bound.tcp)
    where = bound.tcp[0].getsockname()
    one = struct.pack(">H", len(query())) + query()
    first, second = [await asyncio.open_connection(*where) for _ in range(2)]
    for reader, writer in (first, second):
        writer.write(one)
        await read_id(reader)
    third = await asyncio.open_connection(*where)
    assert await ended(third[0])
    assert counts.drops["connections"] == 1
    began = asyncio.get_running_loop().time()
    second[1].write(one[:5])  # half a question is none
    assert await ended(second[0])
    assert 0.1 < asyncio.get_running_loop().time() - began < 2
    assert await ended(first[0])
    assert not endpoint.connections
    for _, writer in (first, second, third):
        writer.close()
    await endpoint.stop()
    bound.udp[0].close()


@on_loop
async def test_a_length_that_is_none_ends_the_connection() -> None:
    async with open_door(many(1)) as door:
        reader, writer = await asyncio.open_connection(door.host, door.port)
        writer.write(b"\0\x03abc")
        assert await ended(reader)
        writer.close()


@on_loop
async def test_a_large_service_that_nobody_has_read_is_answered_all_the_same() -> None:
    async with open_door(many(UNREAD_MAX * 3)) as door:
        by_udp, by_tcp = await asyncio.gather(door.udp(), door.tcp())
        assert by_udp.flags & dns.flags.TC
        assert len(by_tcp.answer[0]) == UNREAD_MAX * 3


@on_loop
async def test_while_the_budget_is_used_up_nothing_is_answered() -> None:
    async with open_door(many(1)) as door:
        door.server.budget.spend(0.06)
        began = time.perf_counter()
        await door.udp()
        assert time.perf_counter() - began > 0.2
        door.server.budget.spend(0.06)
        began = time.perf_counter()
        await door.tcp()
        assert time.perf_counter() - began > 0.2


@on_loop
async def test_a_flood_leaves_most_of_the_loop_to_others() -> None:
    async with open_door(many(5)) as door:
        message = query()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect((door.host, door.port))
            sender.setblocking(False)
            began, before = time.perf_counter(), door.server.budget.spent_s
            while time.perf_counter() - began < 1.0:
                for _ in range(200):
                    try:
                        sender.send(message)
                    except OSError:
                        break
                await asyncio.sleep(0)
            took = time.perf_counter() - began
        assert door.server.budget.spent_s - before < 0.2 * took + 0.1
        drops = [
            sample.value
            for family in door.server.collector().collect()
            for sample in family.samples
            if sample.labels == {"reason": "kernel"}
        ]
        assert drops
        assert drops[0] > 0


@on_loop
async def test_a_mistake_of_ours_costs_one_question() -> None:
    async with open_door(many(1)) as door:
        with patch.object(door.server.responder, "respond", side_effect=ZeroDivisionError):
            asked = dns.message.make_query(NAME, "A")
            with pytest.raises(dns.exception.Timeout):
                await dns.asyncquery.udp(asked, door.host, timeout=0.2, port=door.port)
            with pytest.raises((EOFError, ConnectionResetError)):
                await door.tcp()
        assert door.server.counts.drops["error"] == 2
        assert len(await door.addresses()) == 1


def test_a_port_in_use_is_a_sentence() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(ServerStopError, match=f"{port}.*in use.*--listen-dns"):
            bind_dns([ListenUrl(f"127.0.0.1:{port}", "127.0.0.1", port)])


# ---- with a registry behind it ------------------------------------------------------------------


@on_loop
async def test_a_change_is_known_by_the_time_its_writer_is_answered(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        leader, follower = await made.leader(), await made.follower()
        async with open_door(leader.catalog) as near, open_door(follower.catalog) as far:
            await register(leader.node, *(payment(each, ttl_s=30, grace_s=30) for each in range(3)))
            assert await near.addresses() == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
            await known(far, {"10.0.0.1", "10.0.0.2", "10.0.0.3"})
            longest = 0.0
            for number in range(3):
                await deregister(leader.node, InstanceName(*PAYMENT, f"payment-{number}"))
                began = time.perf_counter()
                gone = f"10.0.0.{number + 1}"
                assert gone not in await near.addresses()
                await known(far, {f"10.0.0.{each + 1}" for each in range(number + 1, 3)})
                longest = max(longest, time.perf_counter() - began)
            assert longest < 2.0
            assert (await near.udp()).rcode() == dns.rcode.NXDOMAIN


async def known(door: Door, wanted: set[str]) -> None:
    """Asks, again and again, until it is so."""
    while await door.addresses() != wanted:
        pass


@on_loop
async def test_drained_instances_are_gone_and_the_ttl_is_0(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as made:
        leader = await made.leader()
        async with open_door(leader.catalog) as door:
            one, two = (payment(each, ttl_s=30, grace_s=30) for each in (1, 2))
            await register(leader.node, one, two)
            await door.udp()
            draining = one.changed(Reason("drained"), 0, reported=Status.DRAINING)
            item = BatchItem(
                instance_key(one.name), ANY_REVISION, BatchAction.PUT_KEEP, encode(draining)
            )
            await leader.node.submit_batch([item])
            answer = await door.udp()
            assert [(each.ttl, str(each[0])) for each in answer.answer] == [(0, "10.0.0.3")]


@on_loop
async def test_it_goes_on_when_quorum_is_lost(tmp_path: Path) -> None:
    async with world(tmp_path, "a", "b", "c") as made:
        leader = await made.leader()
        await register(leader.node, payment(1, ttl_s=30, grace_s=30))
        for registry in list(made.registries.values()):
            if registry is not leader:
                await registry.stop()
                await registry.node.stop()

        async def deposed() -> bool:
            return not leader.node.leader_id

        async with open_door(leader.catalog) as door:
            await until(deposed)
            assert await door.addresses() == {"10.0.0.2"}
            assert (await door.udp("x.default.svc.kv.local")).rcode() == dns.rcode.NXDOMAIN


@on_loop
async def test_shelves_and_catalogs_are_told_alike(tmp_path: Path) -> None:
    """What the other tests stand on: the same values give the same answers."""
    async with world(tmp_path, "a") as made:
        leader = await made.leader()
        wanted = [instance(f"p-{each}", f"10.0.0.{each}", ttl_s=9) for each in range(1, 4)]
        await register(leader.node, *wanted)
        async with open_door(leader.catalog) as real, open_door(Shelf(*wanted)) as shelf:
            for kind in ("A", "SRV", "TXT", "ANY"):
                assert (await real.tcp(NAME, kind)).answer == (await shelf.tcp(NAME, kind)).answer
