"""The cache, the budget, the index of addresses, the settings, the counts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kvstore.gateways.dns.answers import Answer
from kvstore.gateways.dns.budget import Budget, Worker
from kvstore.gateways.dns.cache import Cache, Kept
from kvstore.gateways.dns.counts import Counts, DnsCollector, kernel_drops
from kvstore.gateways.dns.limits import UNREAD_MAX, WAITING_MAX
from kvstore.gateways.dns.names import (
    ZoneKind,
    address_label,
    address_of_label,
    host_wire,
    instance_label,
    packed_address,
)
from kvstore.gateways.dns.records import address
from kvstore.gateways.dns.responder import Later
from kvstore.gateways.dns.settings import BadZoneError, make_settings
from kvstore.gateways.dns.wire import Finished
from kvstore.registry.model import encode
from kvstore.registry.names import InstanceName
from tests.unit.gateways.dns.shelf import Desk, Shelf, instance
from tests.unit.gateways.dns.test_wire import NAME, many, query
from tests.unit.node.on_loop import on_loop


def kept(size: int = 1) -> Kept:
    records = [address(b"\1a\0", 1, number.to_bytes(4, "big")) for number in range(size)]
    return Kept(Finished(Answer(groups=[records]), b"\1a\0"), None, 1)


def test_the_cache_is_bounded_by_number_and_bytes() -> None:
    cache = Cache(names_max=10, bytes_max=10**6)
    for number in range(100):
        cache.put(b"%d" % number, kept())
    assert len(cache) == 10
    assert cache.get(b"89") is None
    assert cache.get(b"90") is not None
    small = Cache(names_max=1000, bytes_max=20_000)
    for number in range(100):
        small.put(b"%d" % number, kept(50))
        assert small.bytes <= 20_000
    assert 2 < len(small) < 20
    for number in range(100):
        small.drop(b"%d" % number)
    assert (len(small), small.bytes) == (0, 0)


def test_strange_names_displace_no_answers() -> None:
    desk = Desk(many(1))
    desk.ask(NAME)
    for number in range(300):
        desk.ask(f"x{number}.default.svc.kv.local")
    hits = desk.counts.hits
    desk.ask(NAME)
    assert desk.counts.hits == hits + 1
    assert desk.responder.cached == 301


def test_the_budget_gives_a_fifth_of_every_second() -> None:
    now = [0.0]
    budget = Budget(lambda: now[0])
    worked: list[float] = []
    while now[0] < 10:
        wait_s = budget.wait_s()
        if wait_s:
            now[0] += wait_s
            continue
        now[0] += 0.002
        worked.append(now[0])
        budget.spend(0.002)
    for begin in (0.0, 0.5, 3.3, 8.9):
        assert sum(0.002 for at in worked if begin <= at < begin + 1) <= 0.2
    assert budget.spent_s > 1.7


@on_loop
async def test_long_work_leaves_the_loop_to_others() -> None:
    budget = Budget()
    worker = Worker(budget)
    done = asyncio.Event()

    def work() -> Iterator[None]:
        for _ in range(300):
            sum(range(20_000))  # a fraction of a millisecond
            yield
        done.set()

    def broken() -> Iterator[None]:
        yield
        raise ZeroDivisionError

    loop = asyncio.get_running_loop()
    worker.run(broken())
    worker.run(work())
    began, longest = loop.time(), 0.0
    while not done.is_set():
        before = loop.time()
        await asyncio.sleep(0)
        longest = max(longest, loop.time() - before)
    assert budget.spent_s < 0.25 * (loop.time() - began) + 0.1
    assert longest < 0.5
    worker.run(work())
    worker.stop()


def test_an_index_of_addresses_is_kept_in_step() -> None:
    there = Shelf(instance("a", "10.0.0.1"), instance("b", "10.0.0.1"))
    desk = Desk(there)
    find = desk.responder._reverse.find
    assert {each.id for each in find(b"\x0a\0\0\1")} == {"a", "b"}
    there.put(instance("a", "fd00::1"))
    there.remove(InstanceName("default", "payment", "b"))
    assert list(find(b"\x0a\0\0\1")) == []
    assert {each.id for each in find(socket.inet_pton(socket.AF_INET6, "fd00::1"))} == {"a"}
    there.write((InstanceName("default", "payment", "c"), b'{"address" : "10.0.0.3", "port": 1}'))
    assert {each.id for each in find(b"\x0a\0\0\3")} == {"c"}
    there.replace()
    assert desk.text("3.0.0.10.in-addr.arpa PTR") == "SERVFAIL", "not known yet"
    there.put(instance("d", "10.0.0.4"))
    desk.work()
    assert desk.text("3.0.0.10.in-addr.arpa PTR").startswith("NOERROR")
    assert desk.text("4.0.0.10.in-addr.arpa PTR").startswith("NOERROR")
    there.replace()
    desk.responder.stop()
    desk.work()
    assert not desk.responder._reverse.complete


def test_nothing_is_denied_before_the_catalog_was_read() -> None:
    there = Shelf()
    desk = Desk(there)
    there.ready = False
    assert desk.text(f"{NAME} A") == "SERVFAIL"
    there.ready = True
    assert desk.text(f"{NAME} A").startswith("NXDOMAIN")


def test_a_large_service_is_read_in_slices_before_it_is_answered() -> None:
    there = many(UNREAD_MAX + 50)
    desk = Desk(there)
    answers = [desk.responder.respond(query(), udp=True) for _ in range(WAITING_MAX + 5)]
    done: list[int] = []
    for answer in answers:
        assert isinstance(answer, Later)
        desk.responder.when_read(answer, lambda: done.append(1))
    assert len(desk.works) == 1
    steps = sum(1 for _ in desk.works.pop())
    assert steps > UNREAD_MAX + 50
    assert len(done) == WAITING_MAX
    assert desk.counts.drops["waiting"] == 5
    assert isinstance(desk.responder.respond(query(), udp=True), bytes)


@pytest.mark.parametrize(
    ("address", "label"),
    [
        ("10.0.1.6", "10-0-1-6"),
        ("fd00::1", "fd00--1"),
        ("::1", "0000-0000-0000-0000-0000-0000-0000-0001"),
        ("2001:db8::", "2001-0db8-0000-0000-0000-0000-0000-0000"),
        ("::ffff:1.2.3.4", "0000-0000-0000-0000-0000-ffff-0102-0304"),
    ],
)
def test_addresses_as_labels(address: str, label: str) -> None:
    packed = packed_address(address)
    assert packed is not None
    assert address_label(packed) == label.encode()
    assert address_of_label(label) == packed


@pytest.mark.parametrize(
    "label", ["a", "10-0-1", "10-0-1-256", "1-2-3-4-5", "-", "g--1", "10-0-0-01"]
)
def test_labels_that_are_no_addresses(label: str) -> None:
    assert address_of_label(label) is None or label == "1-2-3-4-5"


def test_labels_of_ids_and_host_names() -> None:
    assert instance_label("Payment_1.eu:8080") == "payment-1-eu-8080"
    assert instance_label("x" * 64) == ""
    assert instance_label("...") == ""
    assert host_wire("a.example.") == b"\1a\7example\0"
    assert host_wire("") is None
    assert host_wire(".".join(["x" * 63] * 4)) is None


def test_settings() -> None:
    made = make_settings("KV.Local.", ttl_s=5, consul_domain="consul")
    assert made.main.wire == b"\2kv\5local\0"
    assert [zone.kind for zone in made.zones.values()] == [
        ZoneKind.REVERSE_V4,
        ZoneKind.REVERSE_V6,
        ZoneKind.SERVICES,
        ZoneKind.CONSUL,
    ]
    assert len(make_settings("kv", ttl_s=0).zones) == 3


@pytest.mark.parametrize(
    ("zone", "more", "sentence"),
    [
        ("", {}, "not a domain name"),
        ("a b", {}, "not a domain name"),
        ("a..b", {}, "not a domain name"),
        (".".join(["x" * 40] * 2), {}, "too long"),
        ("10.in-addr.arpa", {}, "names of addresses"),
        ("kv", {"consul_domain": "KV"}, "both"),
        ("kv", {"consul_domain": "c", "datacenter": "a.b"}, "datacenter"),
        ("kv", {"ttl_s": -1}, "TTL"),
        ("kv", {"ttl_s": 10**6}, "TTL"),
    ],
)
def test_settings_that_cannot_be(zone: str, more: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadZoneError, match=sentence):
        make_settings(zone, **{"ttl_s": 5, **more})  # type: ignore[arg-type]


def test_what_is_counted_is_shown() -> None:
    desk = Desk(many(200))
    for _ in range(2):
        desk.ask(NAME, udp=True)
    desk.ask("x.kv.local", "AAAA")
    desk.ask(NAME, "TYPE4711")
    desk.ask("example.org")
    desk.counts.took(0.000_03)
    desk.counts.drops["send"] += 1
    registry = CollectorRegistry()
    registry.register(DnsCollector(desk.counts, lambda: 7, lambda: 1.5, lambda: 2, list))
    text = generate_latest(registry).decode()
    for line in (
        'kvstore_dns_queries_total{type="A"} 3.0',
        'kvstore_dns_queries_total{type="AAAA"} 1.0',
        'kvstore_dns_queries_total{type="other"} 1.0',
        'kvstore_dns_answers_total{rcode="NOERROR"} 3.0',
        'kvstore_dns_answers_total{rcode="NXDOMAIN"} 1.0',
        'kvstore_dns_answers_total{rcode="REFUSED"} 1.0',
        'kvstore_dns_drops_total{reason="send"} 1.0',
        "kvstore_dns_cache_hits_total 1.0",
        "kvstore_dns_truncated_total 2.0",
        "kvstore_dns_seconds_total 1.5",
        "kvstore_dns_cache_entries 7.0",
        "kvstore_dns_connections 2.0",
        'kvstore_dns_latency_seconds_bucket{le="4e-05"} 1.0',
        "kvstore_dns_latency_seconds_count 1.0",
    ):
        assert line in text, f"{line} is not in\n{text}"


def test_drops_of_the_kernel_are_read() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as full:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        full.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(200):
                sender.sendto(bytes(500), full.getsockname())
        assert kernel_drops([full.fileno()]) > 100
    assert kernel_drops([]) == 0
    assert Counts().hits == 0
    assert encode(instance()).startswith(b'{"address":'), "the index looks for it"
