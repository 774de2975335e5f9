"""Questions and their answers, as people read them."""

# ruff: noqa: E501 - lines of answers are as long as they are

from __future__ import annotations

from textwrap import dedent
from typing import Any

import pytest

from kvstore.registry.model import Reason, Status
from kvstore.registry.names import InstanceName
from tests.unit.gateways.dns.shelf import Desk, Shelf, instance

NOTHING = "kv.local. 5 IN SOA ns.kv.local. hostmaster.kv.local. {} 3600 600 86400 5"


def shelf() -> Shelf:
    return Shelf(
        instance("payment-1", "10.0.1.6", zone="north", tags=("Blue", "v1.2"), weight=3),
        instance("payment-2", "10.0.1.7", zone="south", ports={"http": 8081, "admin": 9000}),
        instance("Payment:3", "fd00::1", zone="south"),
        instance("payment-4", "10.0.1.9", reported=Status.DOWN),
        instance("db-1", "db.example.org", service="db", ports={"sql": 5432}),
        instance("mail-1", "10.9.0.1", namespace="team", service="mail", ttl_s=9),
    )


GOLDEN = {
    "payment.default.svc.kv.local A": """
        NOERROR
        payment.default.svc.kv.local. 5 IN A 10.0.1.6
        payment.default.svc.kv.local. 5 IN A 10.0.1.7""",
    "payment.default.svc.kv.local AAAA": """
        NOERROR
        payment.default.svc.kv.local. 5 IN AAAA fd00::1""",
    "payment.default.svc.kv.local SRV": """
        NOERROR
        payment.default.svc.kv.local. 5 IN SRV 1 1 8080 fd00--1.payment.default.svc.kv.local.
        payment.default.svc.kv.local. 5 IN SRV 1 1 8081 10-0-1-7.payment.default.svc.kv.local.
        payment.default.svc.kv.local. 5 IN SRV 1 3 8080 10-0-1-6.payment.default.svc.kv.local.
        additional 10-0-1-6.payment.default.svc.kv.local. 5 IN A 10.0.1.6
        additional 10-0-1-7.payment.default.svc.kv.local. 5 IN A 10.0.1.7
        additional fd00--1.payment.default.svc.kv.local. 5 IN AAAA fd00::1""",
    "_admin._tcp.payment.default.svc.kv.local SRV": """
        NOERROR
        _admin._tcp.payment.default.svc.kv.local. 5 IN SRV 1 1 9000 10-0-1-7.payment.default.svc.kv.local.
        additional 10-0-1-7.payment.default.svc.kv.local. 5 IN A 10.0.1.7""",
    "_admin._udp.payment.default.svc.kv.local A": """
        NOERROR
        authority SOA""",
    "_nothing._tcp.payment.default.svc.kv.local SRV": """
        NXDOMAIN
        authority SOA""",
    "_tcp.payment.default.svc.kv.local A": """
        NOERROR
        authority SOA""",
    "payment-1.payment.default.svc.kv.local A": """
        NOERROR
        payment-1.payment.default.svc.kv.local. 5 IN A 10.0.1.6""",
    "10-0-1-6.payment.default.svc.kv.local A": """
        NOERROR
        10-0-1-6.payment.default.svc.kv.local. 5 IN A 10.0.1.6""",
    "10-0-1-6.payment.default.svc.kv.local AAAA": """
        NOERROR
        authority SOA""",
    "fd00--1.payment.default.svc.kv.local AAAA": """
        NOERROR
        fd00--1.payment.default.svc.kv.local. 5 IN AAAA fd00::1""",
    "payment-3.payment.default.svc.kv.local ANY": """
        NOERROR
        payment-3.payment.default.svc.kv.local. 5 IN AAAA fd00::1
        payment-3.payment.default.svc.kv.local. 5 IN SRV 1 1 8080 fd00--1.payment.default.svc.kv.local.
        payment-3.payment.default.svc.kv.local. 5 IN TXT "id=Payment:3" "address=fd00::1" "port=8080" "status=UP" "zone=south" "port.http=8080" "weight=1"
        additional fd00--1.payment.default.svc.kv.local. 5 IN AAAA fd00::1""",
    "payment-4.payment.default.svc.kv.local A": """
        NXDOMAIN
        authority SOA""",
    "10-0-1-99.payment.default.svc.kv.local A": """
        NXDOMAIN
        authority SOA""",
    "payment.default.svc.kv.local MX": """
        NOERROR
        authority SOA""",
    "nobody.default.svc.kv.local A": """
        NXDOMAIN
        authority SOA""",
    "payment.team.svc.kv.local A": """
        NXDOMAIN
        authority SOA""",
    "mail.team.svc.kv.local TXT": """
        NOERROR
        mail.team.svc.kv.local. 3 IN TXT "id=mail-1" "address=10.9.0.1" "port=8080" "status=UP\"""",
    "default.svc.kv.local A": """
        NOERROR
        authority SOA""",
    "team.svc.kv.local A": """
        NOERROR
        authority SOA""",
    "elsewhere.svc.kv.local A": """
        NXDOMAIN
        authority SOA""",
    "svc.kv.local TXT": """
        NOERROR
        authority SOA""",
    "kv.local SOA": """
        NOERROR
        kv.local. 5 IN SOA ns.kv.local. hostmaster.kv.local. 2 3600 600 86400 5""",
    "kv.local NS": """
        NOERROR
        kv.local. 5 IN NS ns.kv.local.
        additional ns.kv.local. 5 IN A 127.0.0.1""",
    "kv.local A": """
        NOERROR
        authority SOA""",
    "ns.kv.local A": """
        NOERROR
        ns.kv.local. 5 IN A 127.0.0.1""",
    "dns-version.kv.local TXT": """
        NOERROR
        dns-version.kv.local. 5 IN TXT "1.1.0\"""",
    "a.b.c.d.e.svc.kv.local A": """
        NXDOMAIN
        authority SOA""",
    "payment.default.pod.kv.local A": """
        NXDOMAIN
        authority SOA""",
    "db.default.svc.kv.local A": """
        NOERROR
        db.default.svc.kv.local. 5 IN CNAME db.example.org.""",
    "_sql._tcp.db.default.svc.kv.local SRV": """
        NOERROR
        _sql._tcp.db.default.svc.kv.local. 5 IN SRV 1 1 5432 db.example.org.""",
    "payment.service.consul A": """
        NOERROR
        payment.service.consul. 5 IN A 10.0.1.6
        payment.service.consul. 5 IN A 10.0.1.7""",
    "blue.payment.service.dc1.consul A": """
        NOERROR
        blue.payment.service.dc1.consul. 5 IN A 10.0.1.6""",
    "v1.2.payment.service.consul SRV": """
        NOERROR
        v1.2.payment.service.consul. 5 IN SRV 1 3 8080 0a000106.addr.dc1.consul.
        additional 0a000106.addr.dc1.consul. 5 IN A 10.0.1.6""",
    "red.payment.service.consul A": """
        NXDOMAIN
        authority SOA""",
    "payment.service.dc2.consul A": """
        NXDOMAIN
        authority SOA""",
    "_payment._tcp.service.consul SRV": """
        NOERROR
        _payment._tcp.service.consul. 5 IN SRV 1 1 8080 fd000000000000000000000000000001.addr.dc1.consul.
        _payment._tcp.service.consul. 5 IN SRV 1 1 8081 0a000107.addr.dc1.consul.
        _payment._tcp.service.consul. 5 IN SRV 1 3 8080 0a000106.addr.dc1.consul.
        additional 0a000106.addr.dc1.consul. 5 IN A 10.0.1.6
        additional 0a000107.addr.dc1.consul. 5 IN A 10.0.1.7
        additional fd000000000000000000000000000001.addr.dc1.consul. 5 IN AAAA fd00::1""",
    "_payment._blue.consul SRV": """
        NOERROR
        _payment._blue.consul. 5 IN SRV 1 3 8080 0a000106.addr.dc1.consul.
        additional 0a000106.addr.dc1.consul. 5 IN A 10.0.1.6""",
    "mail.service.team.ns.dc1.dc.consul A": """
        NOERROR
        mail.service.team.ns.dc1.dc.consul. 3 IN A 10.9.0.1""",
    "0a000106.addr.dc1.consul A": """
        NOERROR
        0a000106.addr.dc1.consul. 5 IN A 10.0.1.6""",
    "service.consul A": """
        NOERROR
        authority SOA""",
    "node1.node.consul A": """
        NXDOMAIN
        authority SOA""",
    "6.1.0.10.in-addr.arpa PTR": """
        NOERROR
        6.1.0.10.in-addr.arpa. 5 IN PTR payment-1.payment.default.svc.kv.local.""",
    "1.0.9.10.in-addr.arpa PTR": """
        NOERROR
        1.0.9.10.in-addr.arpa. 3 IN PTR mail-1.mail.team.svc.kv.local.""",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa PTR": """
        NOERROR
        1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 5 IN PTR payment-3.payment.default.svc.kv.local.""",
    "9.1.0.10.in-addr.arpa PTR": """
        NXDOMAIN
        authority SOA""",
    "1.0.10.in-addr.arpa PTR": """
        NOERROR
        authority SOA""",
    "x.1.0.10.in-addr.arpa PTR": """
        NXDOMAIN
        authority SOA""",
    "example.org A": "REFUSED",
    "local A": "REFUSED",
}  # fmt: skip


@pytest.mark.parametrize("question", GOLDEN)
def test_golden(question: str) -> None:
    desk = Desk(shelf(), own_addresses=(b"\x7f\0\0\1",))
    text = desk.text(question)
    head, soa, _ = text.partition("authority ")
    if soa:
        # Whose SOA it is has a test of its own.
        text = head + "authority SOA"
    assert text == dedent(GOLDEN[question]).strip()
    assert desk.text(question).split("\n")[0] == text.split("\n")[0], "from the cache"


@pytest.mark.parametrize(
    ("question", "zone"),
    [
        ("x.kv.local", "kv.local."),
        ("x.consul", "consul."),
        ("9.9.9.9.in-addr.arpa PTR", "in-addr.arpa."),
        ("x.ip6.arpa PTR", "ip6.arpa."),
    ],
)
def test_nothing_is_said_with_the_soa_of_its_zone(question: str, zone: str) -> None:
    text = Desk(Shelf()).text(question)
    wanted = f"NXDOMAIN\nauthority {NOTHING.format(2)}".replace("kv.local.", zone, 1)
    assert text == wanted


@pytest.mark.parametrize(
    ("fields", "ttl"),
    [
        ({"ttl_s": 30}, 5),
        ({"ttl_s": 10}, 3),
        ({"ttl_s": 2}, 0),
        ({"ttl_s": 0}, 5),
    ],
)
def test_ttl_is_a_third_of_the_instances_and_the_zones_at_most(
    fields: dict[str, Any], ttl: int
) -> None:
    desk = Desk(Shelf(instance("a", "10.0.0.1", **fields), instance("b", "10.0.0.2")))
    assert {each.ttl for each in desk.ask("payment.default.svc.kv.local").answer} == {ttl}


def test_ttl_is_0_while_an_instance_drains_and_it_is_not_shown() -> None:
    there = Shelf(instance("a", "10.0.0.1"), instance("b", "10.0.0.2", reported=Status.DRAINING))
    desk = Desk(there)
    assert desk.text("payment.default.svc.kv.local A") == (
        "NOERROR\npayment.default.svc.kv.local. 0 IN A 10.0.0.1"
    )
    there.put(instance("a", "10.0.0.1", reported=Status.DRAINING))
    gone = desk.ask("payment.default.svc.kv.local")
    assert (gone.rcode(), gone.authority[0].ttl) == (3, 0)
    there.remove(InstanceName("default", "payment", "b"))
    there.put(instance("a", "10.0.0.1"))
    assert desk.ask("payment.default.svc.kv.local").answer[0].ttl == 5


@pytest.mark.parametrize("status", list(Status))
def test_only_those_that_take_requests(status: Status) -> None:
    desk = Desk(Shelf(instance(reported=status)))
    found = desk.ask("payment.default.svc.kv.local").answer
    assert bool(found) == (status in (Status.UP, Status.DEGRADED))


def test_an_override_and_silence_count_and_stale_counts_as_what_it_was() -> None:
    there = Shelf(instance(override=Status.OUT_OF_SERVICE))
    desk = Desk(there)
    name = "payment.default.svc.kv.local"
    assert not desk.ask(name).answer
    there.put(instance(silent=True))
    assert not desk.ask(name).answer
    there.put(instance(stale=True))
    assert desk.ask(name).answer
    assert '"stale=true"' in desk.text(f"{name} TXT")


def test_our_own_zone_comes_first() -> None:
    desk = Desk(shelf(), own_zone="south")
    lines = desk.text("payment.default.svc.kv.local SRV").split("\n")[1:4]
    assert [(line.split()[4], line.split()[7][:8]) for line in lines] == [
        ("1", "fd00--1."),
        ("1", "10-0-1-7"),
        ("2", "10-0-1-6"),
    ]
    for _ in range(4):
        answer = desk.ask("payment.default.svc.kv.local").answer[0]
        assert [each.address for each in answer] == ["10.0.1.7", "10.0.1.6"]


def test_weight_0_gets_no_address_record_while_others_are_left() -> None:
    there = Shelf(instance("a", "10.0.0.1", weight=0), instance("b", "10.0.0.2"))
    desk = Desk(there)
    name = "payment.default.svc.kv.local"
    assert [each.address for each in desk.ask(name).answer[0]] == ["10.0.0.2"]
    assert {each.weight for each in desk.ask(name, "SRV").answer[0]} == {0, 1}
    there.remove(InstanceName("default", "payment", "b"))
    assert [each.address for each in desk.ask(name).answer[0]] == ["10.0.0.1"]


def test_instances_at_one_address_are_one_record_and_two_ports() -> None:
    there = Shelf(
        instance("a", "10.0.0.1", ports={"http": 1000}),
        instance("b", "10.0.0.1", ports={"http": 2000}),
    )
    desk = Desk(there)
    assert len(desk.ask("payment.default.svc.kv.local").answer[0]) == 1
    answer = desk.ask("payment.default.svc.kv.local", "SRV")
    assert {each.port for each in answer.answer[0]} == {1000, 2000}
    assert len(answer.additional) == 1
    found = desk.ask("1.0.0.10.in-addr.arpa", "PTR").answer[0]
    assert sorted(str(each)[:2] for each in found) == ["a.", "b."]


def test_an_address_beats_an_id_that_looks_like_one() -> None:
    there = Shelf(instance("10-0-0-1", "10.0.0.9"), instance("b", "10.0.0.1"))
    desk = Desk(there)
    answer = desk.ask("10-0-0-1.payment.default.svc.kv.local").answer[0]
    assert [each.address for each in answer] == ["10.0.0.1"]
    there.remove(InstanceName("default", "payment", "b"))
    answer = desk.ask("10-0-0-1.payment.default.svc.kv.local").answer[0]
    assert [each.address for each in answer] == ["10.0.0.9"]


def test_host_names_take_turns_and_an_address_beats_them() -> None:
    there = Shelf(instance("a", "a.example"), instance("b", "b.example"))
    desk = Desk(there)
    name = "payment.default.svc.kv.local"
    seen = {str(desk.ask(name).answer[0][0]) for _ in range(4)}
    assert seen == {"a.example.", "b.example."}
    there.put(instance("c", "10.0.0.1"))
    assert desk.text(f"{name} A").endswith("IN A 10.0.0.1")


@pytest.mark.parametrize("address", ["a..b", "-a-.b", "x" * 64, "10.0.0.1:80", "@", "a%b"])
def test_an_address_that_no_name_can_be_made_of_has_no_record(address: str) -> None:
    desk = Desk(Shelf(instance("a", address), instance("b", "10.0.0.2")))
    assert len(desk.ask("payment.default.svc.kv.local").answer[0]) == 1
    assert len(desk.ask("payment.default.svc.kv.local", "SRV").answer[0]) == 1


def test_what_is_no_instance_is_left_out() -> None:
    there = shelf()
    there.write((InstanceName("default", "payment", "odd"), b"no JSON"))
    assert len(Desk(there).ask("payment.default.svc.kv.local").answer[0]) == 2


def test_the_answer_follows_a_change_at_once() -> None:
    there = shelf()
    desk = Desk(there)
    name = "payment.default.svc.kv.local"
    assert len(desk.ask(name).answer[0]) == 2
    there.put(instance("payment-1", "10.0.1.6", reported=Status.DOWN, reason=Reason("status")))
    assert [each.address for each in desk.ask(name).answer[0]] == ["10.0.1.7"]
    assert not desk.ask("6.1.0.10.in-addr.arpa", "PTR").answer
    there.put(instance("payment-9", "10.0.1.99"))
    assert str(desk.ask("99.1.0.10.in-addr.arpa", "PTR").answer[0][0]).startswith("payment-9.")
    there.remove(InstanceName("default", "payment", "payment-9"))
    assert not desk.ask("99.1.0.10.in-addr.arpa", "PTR").answer


def test_a_long_name_still_has_srv_targets_and_a_pointer_back() -> None:
    longest = "s" * 63
    there = Shelf(
        instance("i" * 63, "2001:db8:1111:2222:3333:4444:5555:6666", service=longest,
                 namespace="n" * 63)
    )  # fmt: skip
    there.namespaces.add("n" * 63)
    desk = Desk(there, zone="z" * 60 + "." + "y" * 17)
    zone = "z" * 60 + "." + "y" * 17
    answer = desk.ask(f"{longest}.{'n' * 63}.svc.{zone}", "SRV")
    target = answer.answer[0][0].target
    assert desk.ask(target.to_text(), "AAAA").answer
    reverse = "6.6.6.6.5.5.5.5.4.4.4.4.3.3.3.3.2.2.2.2.1.1.1.1.8.b.d.0.1.0.0.2.ip6.arpa"
    assert desk.ask(reverse, "PTR").answer[0][0].target == target


def test_long_texts_are_cut_into_strings() -> None:
    desk = Desk(Shelf(instance(metadata={"long": "é" * 300})))
    texts = desk.ask("payment-1.payment.default.svc.kv.local", "TXT").answer[0][0].strings
    assert b"meta.long=" + ("é" * 300).encode() in b"".join(texts)
