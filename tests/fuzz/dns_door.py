"""Targets: the DNS port, over UDP and TCP, and the names that are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import dns.exception
import dns.message
import dns.rcode

from kvstore.gateways.dns.budget import Budget
from kvstore.gateways.dns.limits import TCP_BYTES_MAX, UDP_BYTES_MAX
from kvstore.gateways.dns.tcp import TcpEndpoint
from kvstore.gateways.dns.wire import Malformed, read_plain, read_query
from kvstore.registry.model import Status
from tests.fuzz.registry import Feed, Refused, Target, plain
from tests.fuzz.sockets import FakeSocket, settle
from tests.unit.gateways.dns.shelf import Desk, Shelf, instance

__all__ = ("TARGETS",)

_PIECES = 400


def _desk() -> Desk:
    return Desk(
        Shelf(
            *(instance(f"payment-{each}", f"10.0.0.{each}", tags=("blue",)) for each in range(60)),
            instance("six", "fd00::1", zone="north"),
            instance("down", "10.0.1.1", reported=Status.DOWN),
            instance("host", "db.example.org", service="db", metadata={"a": "b" * 300}),
        ),
        own_zone="north",
        own_addresses=(b"\x7f\0\0\1",),
    )


def _check(question: bytes, answer: bytes, most: int) -> None:
    """An answer is a message that anybody can read, to this question, and not too long."""
    assert len(answer) <= most
    assert answer[:2] == question[:2]
    assert answer[2] & 0x80
    read = dns.message.from_wire(answer)
    if read.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise Refused(dns.rcode.to_text(read.rcode()))


@contextmanager
def _udp() -> Iterator[Feed]:
    desk = _desk()

    def feed(data: bytes) -> None:
        answer, again = desk.send(data), desk.send(data)
        # The second one comes from the cache, and begins with another record: where it is cut it
        # may hold fewer of them.
        assert (answer or b"")[:2] == (again or b"")[:2]
        assert (answer or b"")[3:6] == (again or b"")[3:6], "rcode and count of questions"
        if answer is None:
            assert len(data) < 12 or data[2] & 0x80
            raise Refused("silence")
        _check(data, answer, UDP_BYTES_MAX)

    yield feed


@contextmanager
def _tcp() -> Iterator[Feed]:
    with asyncio.Runner() as runner:
        desk = _desk()

        async def once(pieces: list[bytes]) -> tuple[bool, list[bytes]]:
            endpoint = TcpEndpoint(desk.responder, Budget(share=1e6), desk.counts)
            sock = FakeSocket(endpoint.connect())
            for piece in pieces:
                sock.feed(piece)
                await settle(1)
            while endpoint.connections and sock.protocol._whole() and not sock.is_closing():
                await settle(1)
            answers = _split(bytes(sock.written))
            sock.lose()
            return sock.aborted, answers

        def feed(data: bytes) -> None:
            cut, answers = runner.run(once([data]))
            step = len(data) // _PIECES + 1
            torn = [data[at : at + step] for at in range(0, len(data), step)]
            cut_torn, answers_torn = runner.run(once(torn))
            assert (cut, len(answers)) == (cut_torn, len(answers_torn))
            for answer in answers:
                assert len(answer) <= TCP_BYTES_MAX
                dns.message.from_wire(answer)
            if cut:
                raise Refused("cut")

        yield feed


def _split(written: bytes) -> list[bytes]:
    answers = []
    while written:
        end = 2 + int.from_bytes(written[:2], "big")
        assert end <= len(written)
        answers.append(written[2:end])
        written = written[end:]
    return answers


def _feed_readers(data: bytes) -> None:
    """What the quick reader takes, dnspython takes too, and as the same."""
    quick, full = read_plain(data), read_query(data)
    if quick is not None and not isinstance(full, Malformed):
        assert quick == full
    if full is None or isinstance(full, Malformed):
        raise Refused("no question" if full is None else dns.rcode.to_text(full.rcode))


@contextmanager
def _names() -> Iterator[Feed]:
    """Names as text, for every type in turn."""
    desk = _desk()
    kinds = ("A", "AAAA", "SRV", "TXT", "PTR", "ANY", "SOA", "NS", "CNAME", "HTTPS")

    def feed(data: bytes) -> None:
        text = data.decode("latin-1")
        for kind in kinds:
            try:
                query = dns.message.make_query(text, kind, use_edns=0).to_wire()
            except (dns.exception.DNSException, UnicodeError, ValueError) as error:
                raise Refused("no name") from error
            answer = desk.send(query, udp=False)
            assert answer is not None
            _check(query, answer, TCP_BYTES_MAX)

    yield feed


_NAMES = (
    b"payment.default.svc.kv.local",
    b"_http._tcp.payment.default.svc.kv.local",
    b"10-0-0-1.payment.default.svc.kv.local",
    b"fd00--1.payment.default.svc.kv.local",
    b"db.default.svc.kv.local",
    b"default.svc.kv.local",
    b"kv.local",
    b"ns.kv.local",
    b"dns-version.kv.local",
    b"blue.payment.service.dc1.consul",
    b"_payment._blue.service.consul",
    b"_payment._tcp.consul",
    b"payment.service.default.ns.dc1.dc.consul",
    b"0a000001.addr.dc1.consul",
    b"1.0.0.10.in-addr.arpa",
    b"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
    b"example.org",
)
_WORDS = (
    *(b"\xc0\x0c", b"\xc0\x00", b"\xff\xff", b"\x3f", b"\x40", b"\0\0\x29\x04\xd0\0\0\0\0\0\0"),
    *(b"\0\0\x29\x02\0\0\1\0\0\0\0", b"\0\0\x0a\0\x08abcdefgh", b"\0\1\0\1", b"\0\xff\0\1"),
    *(b"\0\xfc\0\1", b"\0\x21\0\1", b"\0\x10\0\3", b"\x07payment", b"\x03svc", b"\x05local\0"),
    *(b"\x06consul\0", b"\x04arpa\0", b"\0\1\0\0\0\0\0\0", b"\x28\0", b"\x81\x80"),
)
_LABEL_WORDS = (
    *(b".", b"..", b"\\", b"\\000", b"\\.", b"-", b"_", b"_tcp", b"svc", b"*", b"\xff"),
    *(b"x" * 64, b"a." * 127, b"10-0-0-1", b"service", b"addr", b"PayMent"),
)


def _messages() -> list[bytes]:
    kinds = ("A", "AAAA", "SRV", "TXT", "PTR", "ANY", "AXFR")
    made = [
        dns.message.make_query(name.decode(), kinds[at % len(kinds)], use_edns=at % 2 - 1)
        for at, name in enumerate(_NAMES)
    ]
    made[0].flags = 0
    future = dns.message.make_query("kv.local", "SOA", use_edns=3)
    return [each.to_wire() for each in (*made, future)]


def _framed() -> list[bytes]:
    framed = [len(each).to_bytes(2, "big") + each for each in _messages()]
    return [*framed, b"".join(framed), b"\0\0", b"\0\x0b" + bytes(11)]


def _said(error: Exception) -> str:
    return str(error)


TARGETS = (
    Target("dns question", plain(_feed_readers), (Refused,), _messages, _WORDS, label=_said),
    Target("dns over UDP", _udp, (Refused,), _messages, _WORDS, label=_said),
    Target("dns over TCP", _tcp, (Refused,), _framed, _WORDS, label=_said, cost=20),
    Target("dns names", _names, (Refused,), lambda: list(_NAMES), _LABEL_WORDS, label=_said),
)
