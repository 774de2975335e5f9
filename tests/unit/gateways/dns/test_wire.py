"""Messages as bytes: what is read, and how answers are put together, turned and cut."""

from __future__ import annotations

import struct
from collections import Counter

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.gateways.dns.answers import Answer
from kvstore.gateways.dns.limits import TCP_BYTES_MAX, UDP_BYTES_MAX
from kvstore.gateways.dns.names import wire_name
from kvstore.gateways.dns.records import address, srv, txt
from kvstore.gateways.dns.wire import Finished, Malformed, Query, read_plain, read_query
from kvstore.registry.model import Status
from tests.unit.gateways.dns.shelf import Desk, Shelf, instance

NAME = "payment.default.svc.kv.local"


def many(count: int, **fields: object) -> Shelf:
    return Shelf(
        *(
            instance(f"payment-{each}", f"10.0.{each // 250}.{each % 250 + 1}", **fields)
            for each in range(count)
        )
    )


def query(name: str = NAME, kind: str = "A", **how: object) -> bytes:
    return dns.message.make_query(name, kind, id=7, **how).to_wire()  # type: ignore[arg-type]


# ---- questions ----------------------------------------------------------------------------------

labels = st.lists(st.binary(min_size=1, max_size=63), max_size=4)
payloads = st.one_of(st.none(), st.integers(0, 65_535))


@given(labels, st.integers(0, 65_535), payloads, st.integers(0, 0x3FF), st.booleans())
def test_the_quick_reader_reads_as_dnspython_does(
    name: list[bytes], kind: int, payload: int | None, flags: int, dnssec: bool
) -> None:
    message = struct.pack(">HHHHHH", 7, flags & 0x3BF, 1, 0, 0, payload is not None)
    message += wire_name(name) + struct.pack(">HH", kind, 1)
    if payload is not None:
        message += b"\0" + struct.pack(">HHLH", 41, payload, 0x8000 * dnssec, 0)
    plain, full = read_plain(message), read_query(message)
    assert plain is not None
    if not isinstance(full, Malformed):
        assert plain == full
    else:
        # Types that no question may ask for: the responder sees to that.
        assert kind in (41, 249, 250)


@given(st.binary(max_size=80), st.data())
def test_any_bytes_are_read_or_refused(data: bytes, more: st.DataObject) -> None:
    head = more.draw(
        st.sampled_from([b"", b"\0\7\1\0\0\1\0\0\0\0\0\0", b"\0\7\1\0\0\1\0\0\0\0\0\1"])
    )
    message = head + data
    plain = read_plain(message)
    full = read_query(message)
    assert full is None or isinstance(full, Malformed | Query)
    if plain is not None and isinstance(full, Query):
        assert plain == full


@pytest.mark.parametrize("cut", range(12, 40))
def test_a_question_that_is_cut_off_is_malformed(cut: int) -> None:
    message = query()[:cut]
    assert read_plain(message) is None
    read = read_query(message)
    assert isinstance(read, Malformed)
    assert read.rcode == dns.rcode.FORMERR


@pytest.mark.parametrize(
    "option", [b"", b"\0\x0a\0\x08abcdefgh", b"\0\x08\0\x07xxxxxxx", b"\xff\0\0\0"]
)
def test_options_are_ignored(option: bytes) -> None:
    message = query(use_edns=0)
    message = message[:-2] + struct.pack(">H", len(option)) + option
    plain = read_plain(message)
    assert plain is not None
    assert plain.edns
    assert len(Desk(many(1)).send(message) or b"") > 40


def errors(desk: Desk, message: bytes) -> str:
    answer = desk.send(message)
    assert answer is not None
    assert answer[:2] == message[:2]
    return dns.rcode.to_text(dns.message.from_wire(answer).rcode())


def test_what_is_not_a_question() -> None:
    desk = Desk(many(1))
    message = query()
    assert desk.send(message[:2] + b"\x81" + message[3:]) is None, "an answer"
    assert desk.send(message[:11]) is None
    assert desk.send(b"") is None
    assert errors(desk, message[:2] + b"\x28" + message[3:]) == "NOTIMP", "an update"
    assert errors(desk, message[:2] + b"\x10" + message[3:]) == "NOTIMP", "a status"
    assert errors(desk, message[:4] + b"\0\0" + message[6:12]) == "FORMERR", "no question"
    twice = message[:4] + b"\0\2" + message[6:] + message[12:]
    assert errors(desk, twice) == "FORMERR"
    assert errors(desk, message + b"x") == "FORMERR"


@pytest.mark.parametrize(
    ("kind", "rcode"), [("AXFR", "NOTIMP"), ("IXFR", "NOTIMP"), ("OPT", "FORMERR")]
)
def test_kinds_that_are_not_done_here(kind: str, rcode: str) -> None:
    number = {"AXFR": 252, "IXFR": 251, "OPT": 41}[kind]
    message = query()[:-4] + struct.pack(">HH", number, 1)
    assert errors(Desk(many(1)), message) == rcode


def test_other_classes_are_refused() -> None:
    assert errors(Desk(many(1)), query("version.bind", "TXT", rdclass="CH")) == "REFUSED"
    assert errors(Desk(many(1)), query(rdclass="CH")) == "REFUSED"


def test_an_unknown_version_of_edns() -> None:
    desk = Desk(many(1))
    desk.send(query(use_edns=0))  # what is kept of that is no answer to this
    answer = dns.message.from_wire(desk.send(query(use_edns=1)) or b"")
    assert (answer.rcode(), answer.edns, answer.answer) == (dns.rcode.BADVERS, 0, [])


def test_a_signed_question() -> None:
    import dns.tsigkeyring

    signed = dns.message.make_query(NAME, "A")
    signed.use_tsig(dns.tsigkeyring.from_text({"key.": "c2VjcmV0"}))
    assert errors(Desk(many(1)), signed.to_wire()) == "NOTAUTH"


def test_flags_of_the_answer() -> None:
    desk = Desk(many(1))
    answer = dns.message.from_wire(desk.send(query(flags=dns.flags.RD | dns.flags.AD)) or b"")
    assert dns.flags.to_text(answer.flags) == "QR AA RD"
    answer = dns.message.from_wire(desk.send(query(flags=dns.flags.CD, want_dnssec=True)) or b"")
    assert dns.flags.to_text(answer.flags) == "QR AA CD"
    assert answer.ednsflags == dns.flags.DO
    refused = dns.message.from_wire(desk.send(query("example.org", use_edns=0)) or b"")
    assert dns.flags.to_text(refused.flags) == "QR RD"
    assert refused.edns == 0
    nothing = dns.message.from_wire(desk.send(query("x.kv.local")) or b"")
    assert dns.flags.to_text(nothing.flags) == "QR AA RD"
    assert nothing.edns == -1


def test_the_name_comes_back_as_it_was_spelt() -> None:
    desk = Desk(many(2))
    for name in (NAME, "PayMent.dEfault.SVC.kv.LOCAL", NAME.upper()):
        message = query(name)
        answer = desk.send(message)
        assert answer is not None
        assert answer[12 : len(message)] == message[12:]
        owners = {str(each.name) for each in dns.message.from_wire(answer).answer}
        assert owners == {f"{name}."}
    assert desk.counts.hits == 2


# ---- answers ------------------------------------------------------------------------------------


def test_records_take_turns_at_the_beginning() -> None:
    desk = Desk(many(5))
    first = Counter(desk.ask(NAME).answer[0][0].address for _ in range(50))
    assert set(first.values()) == {10}
    first = Counter(desk.ask(NAME, udp=True, use_edns=0).answer[0][0].address for _ in range(50))
    assert set(first.values()) == {10}


@pytest.mark.parametrize(("edns", "most"), [(None, 512), (512, 512), (900, 900), (4096, 1232)])
@pytest.mark.parametrize("kind", ["A", "SRV", "TXT"])
def test_too_much_is_cut_behind_a_record_and_says_so(
    edns: int | None, most: int, kind: str
) -> None:
    desk = Desk(many(200))
    how = {} if edns is None else {"use_edns": 0, "payload": edns}
    message = query(NAME, kind, **how)
    wire = desk.send(message)
    assert wire is not None
    answer = dns.message.from_wire(wire)
    assert dns.flags.TC & answer.flags
    assert most - 130 < len(wire) <= most
    assert desk.counts.truncated == 1
    shown = {
        str(each) for _ in range(60) for each in desk.ask(NAME, kind, udp=True, **how).answer[0]
    }
    assert len(shown) > 60, "the next one is shown others"
    whole = desk.ask(NAME, kind)
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 200


def test_what_is_additional_may_stay_away_without_a_word() -> None:
    desk = Desk(many(6))
    answer = desk.ask(NAME, "SRV", udp=True)
    assert not answer.flags & dns.flags.TC
    assert len(answer.answer[0]) == 6
    assert len(answer.additional) < 6


def test_500_instances_fit_into_one_answer_over_tcp() -> None:
    desk = Desk(many(500))
    for kind in ("A", "SRV"):
        answer = desk.ask(NAME, kind)
        assert len(answer.answer[0]) == 500
        assert not answer.flags & dns.flags.TC
    assert len(answer.additional) == 500


def test_of_more_than_a_thousand_each_answer_shows_others() -> None:
    there = many(1500)
    desk = Desk(there)
    seen: set[str] = set()
    for _ in range(3):
        there.put(instance("more", "10.1.1.1", reported=Status.STARTING))  # the answer is made anew
        there.put(instance("more", "10.1.1.1", reported=Status.DOWN))
        shown = {each.address for each in desk.ask(NAME).answer[0]}
        assert len(shown) == 1000
        seen |= shown
    assert len(seen) == 1500


@given(
    st.lists(
        st.one_of(
            st.binary(min_size=4, max_size=4),
            st.binary(min_size=16, max_size=16),
            st.text("ab", max_size=400),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(200, 3000),
    st.booleans(),
    st.integers(0, 5),
)
def test_whatever_is_cut_remains_a_message(
    data: list[bytes | str], limit: int, edns: bool, turns: int
) -> None:
    name = wire_name([b"_x", b"_tcp", b"pay", b"kv"])
    answer = Answer()
    group = [
        txt(name, 1, [each]) if isinstance(each, str) else address(name, 1, each) for each in data
    ]
    answer.groups = [list(dict.fromkeys(group))]
    target = wire_name([b"10-0-0-1", b"pay", b"kv"])
    answer.groups.append([srv(name, 1, 1, 1, 80, target)])
    answer.additional[target] = [address(target, 1, b"\x0a\0\0\1")]
    asked = Query(9, 0x100, name + b"\0\xff\0\1", len(name), 1232 if edns else 0, False)
    finished = Finished(answer, name)
    for _ in range(turns + 1):
        wire = finished.message(asked, limit)
        assert len(wire) <= limit
        read = dns.message.from_wire(wire)
        count = sum(map(len, read.answer))
        total = sum(map(len, answer.groups))
        assert bool(read.flags & dns.flags.TC) == (count < total)
        assert count <= total
        assert (read.edns == 0) == edns
    whole = dns.message.from_wire(finished.message(asked, TCP_BYTES_MAX))
    assert sum(map(len, whole.answer)) == total
    assert [str(each) for each in whole.additional] == ["10-0-0-1.pay.kv. 1 IN A 10.0.0.1"]
    assert UDP_BYTES_MAX == 1232
