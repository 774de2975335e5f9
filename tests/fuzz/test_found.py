"""What fuzzing has found stays found: one test for each line in tests/sim/FOUND.md."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import google_crc32c
import msgpack
import pytest

from kvstore.api import validation
from kvstore.api.address import ListenError, _split
from kvstore.api.call import Call
from kvstore.api.encoding import length_delimited
from kvstore.api.limits import TXN_AT_ONCE_BYTES, TXN_LEVELS_MAX
from kvstore.api.nesting import levels
from kvstore.api.services.registration import build_api
from kvstore.cli.exits import CliError
from kvstore.cli.options import DURATION
from kvstore.cli.printers import FORMS, Printer
from kvstore.cli.txntext import parse_compare, parse_operation
from kvstore.client import operations
from kvstore.client.errors import KvError, Outcome
from kvstore.client.recipes import claim, read_tree
from kvstore.client.values import AlarmType
from kvstore.client.watching import WatchCursor
from kvstore.errors import Code, EtcdError
from kvstore.machine import command
from kvstore.machine.alarms import load_alarms
from kvstore.machine.command import CommandError, CommandKind, encode
from kvstore.machine.jobs import run
from kvstore.machine.machine import Machine
from kvstore.node.remote import (
    RENEW,
    UNREADABLE_ANSWER,
    LeaderCalls,
    answer_call,
    integer_and_flag_of,
    integers_of,
    read_answer,
)
from kvstore.pb import rpc_pb2
from kvstore.pb.names import alarm_name
from kvstore.serving.config import build_config
from kvstore.serving.ports import LayoutError, choose_layout
from kvstore.serving.settings import UsageError, read_settings
from kvstore.serving.values import BadValueError, format_duration, parse_duration, parse_int
from kvstore.storage.check import check_data_dir
from kvstore.storage.disk import OsDisk
from kvstore.storage.errors import SnapshotCorrupt, WalCorrupt
from kvstore.storage.layout import Layout, StoreMark, StoreTrust, boot_id
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.memory_store import MemoryStore
from kvstore.storage.snapshot import verify
from kvstore.storage.store import TableSpec
from kvstore.storage.wal_format import HEADER_BYTES, HEADER_MAGIC, decode_header
from raft.errors import WireError
from raft.messages import from_wire
from raft.types import Entry, EntryKind
from tests.unit.api.local_node import LocalNode
from tests.unit.storage.fake_disk import FakeDisk


def file_of(data: bytes) -> tuple[FakeDisk, Path]:
    disk, path = FakeDisk(), Path("/m/file")
    disk.create(path).write_at(0, data)
    return disk, path


STATE = [1, 2, 0]


@pytest.mark.parametrize(
    "fields",
    [
        [],
        "text",
        [1],
        [1, 7, 8, 1, 4096, 0, 1, 0, 5, True],
        [1, 7, 8, 1, 4096, 0, 1, 0, ["term", 2, 0], True],
        [1, 7, 8, 1, 2**60, 0, 1, 0, STATE, True],
        [1, 7, 8, 1, 100, 0, 1, 0, STATE, True],
        [1, 7, 8, 1, 4096, 0, -1, 0, STATE, True],
        [1, 7, 8, 1, 4096, 0, 1, 0, STATE, 1],
        [[[]], 7],
    ],
)
def test_a_log_header_that_nobody_writes(fields: object) -> None:
    body = msgpack.packb(fields)
    start = HEADER_MAGIC + len(body).to_bytes(4, "big")
    sector = start + google_crc32c.value(start + body).to_bytes(4, "big") + body
    with pytest.raises(WalCorrupt):
        decode_header(Path("it.wal"), sector.ljust(HEADER_BYTES, b"\0"))


def snapshot(*payloads: tuple[int, bytes]) -> bytes:
    content, chain = b"KVSNAP\r\n", 0
    for kind, payload in payloads:
        start = bytes((kind,)) + len(payload).to_bytes(4, "big")
        chain = google_crc32c.extend(google_crc32c.extend(chain, start), payload)
        content += start + chain.to_bytes(4, "big") + payload
    return content


HEADER = msgpack.packb([1, 7, 2, [[1], []], 9, ["lmdb", "0.9", 4096]])
TRAILER = msgpack.packb([0, 0])


@pytest.mark.parametrize(
    "content",
    [
        snapshot((1, HEADER), (3, b"\x92\0")),
        snapshot((1, HEADER), (3, b"")),
        snapshot(
            (1, msgpack.packb([1, "7", 2, [[1], []], 9, ["lmdb", "0.9", 4096]])), (3, TRAILER)
        ),
        snapshot(
            (1, msgpack.packb([1, 7, 2, [["1"], []], 9, ["lmdb", "0.9", 4096]])), (3, TRAILER)
        ),
        snapshot((1, msgpack.packb([1, 7, 2, [[1], []], 9, [1, 2, 3]])), (3, TRAILER)),
    ],
)
def test_a_snapshot_that_nobody_writes(content: bytes) -> None:
    disk, path = file_of(content)
    with pytest.raises(SnapshotCorrupt):
        verify(disk, path)
    disk, path = file_of(snapshot((1, HEADER), (3, TRAILER)))
    assert verify(disk, path).index == 7


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x91\x01", b"\xa5clean\0", b"\x92\xa5clean"])
def test_a_store_mark_that_nobody_writes(body: bytes) -> None:
    disk, path = file_of(google_crc32c.value(body).to_bytes(4, "big") + body)
    assert StoreMark(disk, path, "boot").read() is StoreTrust.UNMARKED


def test_a_message_of_lists_in_lists() -> None:
    deep: object = []
    for _ in range(2000):
        deep = [deep]
    for message in ([13, 2, 1, 4, 6, [deep]], [2, 2, 1, 4, deep], [deep], [14, deep, 1, 4]):
        with pytest.raises(WireError, match="list"):
            from_wire(message)


@pytest.mark.parametrize("fields", [[1, 2], ["1", [2]], [1, ["2"]], [1, {}], [1, [[]]], {}, 7])
def test_commands_with_fields_of_other_types(fields: object) -> None:
    payload = msgpack.packb(fields)
    with pytest.raises(CommandError):
        command.read_expiry(payload)
    with pytest.raises(CommandError):
        command.read_member_attributes(msgpack.packb([1, "name", 5]))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xc1",
        b"\x81\x90\x01",
        *map(msgpack.packb, ([], [True], [False, 0, "x"], [False, 99, "x"], 7)),
    ],
)
def test_an_answer_that_no_member_gives(answer: bytes) -> None:
    with pytest.raises(EtcdError) as raised:
        read_answer(answer)
    assert raised.value == UNREADABLE_ANSWER


@pytest.mark.parametrize("question", [7, [1, "x"], {}, [1, 2], None, [[1], True]])
def test_a_question_that_no_member_asks(question: object) -> None:
    async def handler(asked: Any) -> Any:
        integers_of(asked)
        return integer_and_flag_of(asked)

    with pytest.raises(EtcdError, match="unreadable question"):
        read_answer(asyncio.run(answer_call(handler, msgpack.packb(question))))


@pytest.mark.parametrize("ttls", [7, [], [1, 2], None])
def test_renewals_are_answered_whatever_the_leader_says(ttls: object) -> None:
    outcomes: list[Any] = []

    async def renew() -> None:
        async def answers(_question: bytes) -> bytes:
            return bytes(msgpack.packb([True, ttls]))

        own: Any = SimpleNamespace(member_id=1, answers={RENEW: answers})
        transport: Any = None
        calls = LeaderCalls(transport, own, lambda: 1, 1.0)
        calls.renew(7, lambda ttl, error: outcomes.append(error))
        calls.flush()
        async with asyncio.timeout(2):
            while not outcomes:  # noqa: ASYNC110 - what it waits for has no event
                await asyncio.sleep(0)

    asyncio.run(renew())
    assert outcomes == [UNREADABLE_ANSWER]


def test_check_of_a_store_that_was_cut_short(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create(OsDisk(sync=False))
    store = LmdbStore(layout.store, [TableSpec("keys")], map_bytes=1 << 24)
    txn = store.write()
    for number in range(2000):
        txn.put("keys", b"%06d" % number, bytes(100))
    txn.commit()
    store.close()
    StoreMark(OsDisk(sync=False), layout.store_mark, boot_id()).set_clean()
    content = layout.store.read_bytes()
    for length in (len(content) // 2, 4096 * 3, 4096, 100):
        layout.store.write_bytes(content[:length])
        report = check_data_dir(tmp_path)
        damage = [each.message for each in report.findings if each.where == str(layout.store)]
        assert len(damage) == 1, length
        assert "page structure is damaged" in damage[0]
    layout.store.write_bytes(content)
    report = check_data_dir(tmp_path)
    assert [each for each in report.findings if each.where == str(layout.store)] == []
    assert "store: table keys, 2000 records, 0 damaged" in report.notes


@pytest.mark.parametrize("number", [1, 9, 2**31 - 1, -1])
def test_alarms_without_a_name(number: int) -> None:
    store = MemoryStore(Machine.TABLES)
    machine = Machine(store)
    machine.bootstrap([], index=1, term=1)
    request = rpc_pb2.AlarmRequest(memberID=5)
    request.action = rpc_pb2.AlarmRequest.ACTIVATE
    request.alarm = number  # type: ignore[assignment]
    data = encode(CommandKind.ALARM, 1, request.SerializeToString())
    batch = machine.begin([Entry(2, 1, EntryKind.NORMAL, data)])
    while not batch.step():
        pass
    assert set(machine.alarms) == {(5, number)}
    txn = store.read()
    assert load_alarms(txn) == {(5, number)}, "as a restart finds it"
    txn.close()
    assert alarm_name(number) == {1: "NOSPACE"}.get(number, str(number))


def test_answers_with_what_is_not_known_yet(capsys: pytest.CaptureFixture[str]) -> None:
    alarms = rpc_pb2.AlarmResponse()
    alarms.alarms.add(memberID=1).alarm = 9  # type: ignore[assignment]
    (alarm,) = operations.alarms().convert(alarms).alarms
    assert alarm.type is AlarmType.UNKNOWN
    txn = rpc_pb2.TxnResponse(responses=[rpc_pb2.ResponseOp()])
    for form in FORMS:
        if form != "table":
            Printer(form).show("alarms", alarms)
            Printer(form).show("txn", txn)
    assert "alarm:9" in capsys.readouterr().out


DIGITS = "9" * 5000


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2000,
        "name: 2020-13-45",
        "name: !!int ''",
        "name: !!bool maybe",
        "name: !!timestamp soon",
        f"snapshot-count: 0x{DIGITS}",
        f"snapshot-count: {DIGITS}",
        f"0x{DIGITS}: 1",
        'data-dir: "a\\0b"',
        f"grpc-keepalive-timeout: {2**70}",
        f"initial-cluster: a=http://a:1\nname: a\ndata-dir: {'x' * 5000}",
        "enable-log-rotation: true\nlog-rotation-config-json: '" + "[" * 5000 + "'",
        'enable-log-rotation: true\nlog-rotation-config-json: \'{"maxage": 9' + DIGITS + "}'",
        "a: &a [x, x, x, x]\nlog-outputs: [*a]",
    ],
)
def test_configuration_files_that_are_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    with pytest.raises(UsageError):
        build_config(read_settings([f"--config-file={path}"], {}))


def test_references_are_not_written_out(tmp_path: Path) -> None:
    lines = ["x0: &x0 [a]", *(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]" for n in range(1, 40))]
    path = tmp_path / "node.yaml"
    # Read as the first setting: an unknown name would end it before.
    path.write_text("log-outputs:\n  - " + "\n  - ".join(line.partition(": ")[2] for line in lines))
    with pytest.raises(UsageError, match="must be a single value"):
        read_settings([f"--config-file={path}"], {})


def test_values_beyond_their_bounds() -> None:
    for text in (DIGITS, "-" + DIGITS, str(2**63), str(-(2**63) - 1)):
        with pytest.raises(BadValueError):
            parse_int(text)
    assert parse_int(str(2**63 - 1)) == 2**63 - 1
    for text in (DIGITS + "h", "1e9s", "2562048h"):
        with pytest.raises(BadValueError):
            parse_duration(text)
    assert parse_duration("2555000h") == 2_555_000 * 3600
    with pytest.raises(ListenError):
        _split("host:" + DIGITS)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.0015, 1.5, 60.0, 39_321_753.5, 7200.0, 86_399.999])
def test_durations_are_read_as_they_are_written(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


def test_durations_take_no_longer_than_their_text() -> None:
    began = time.process_time()
    for text in ("9" * 100_000, "1." * 30_000, "0" * 50_000 + "x"):
        with pytest.raises(BadValueError):
            parse_duration(text)
        with pytest.raises(click.BadParameter):
            DURATION.convert(text, None, None)
    assert time.process_time() - began < 1
    with pytest.raises(click.BadParameter):
        DURATION.convert("-5s", None, None)
    assert DURATION.convert("1m30s", None, None) == 90.0


@pytest.mark.parametrize("content", [b"\xff", b"[" * 5000, b'{"members": [["a", 1e400, 2, 3]]}'])
def test_a_layout_that_nobody_writes(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "local.json").write_bytes(content)
    with pytest.raises(LayoutError):
        choose_layout(tmp_path, 1, None, free=lambda _port: True)


def test_events_that_go_back_do_not_reach_the_reader() -> None:
    cursor = WatchCursor(rpc_pb2.WatchCreateRequest(key=b"k", start_revision=4))
    response = rpc_pb2.WatchResponse()
    for revision in (5, 2, 7, 3):
        response.events.add().kv.mod_revision = revision
    found = cursor.feed(response)
    assert found is not None
    assert [event.kv.mod_revision for event in found.events] == [5, 7]
    assert cursor.next_revision == 8


def test_a_transaction_of_a_lock_with_other_results() -> None:
    empty = rpc_pb2.TxnResponse(succeeded=True)
    wrong = rpc_pb2.TxnResponse(responses=[rpc_pb2.ResponseOp(), rpc_pb2.ResponseOp()])
    no_key = rpc_pb2.TxnResponse()
    for _ in range(2):
        no_key.responses.add().response_range.count = 0
    for answer in (empty, wrong, no_key):
        program = claim("lock", 7)
        step = program.send(None)
        with pytest.raises(KvError) as raised:
            program.send(step.convert(answer))  # type: ignore[union-attr]
        assert raised.value.outcome is Outcome.UNKNOWN


def test_a_page_that_is_empty_and_says_there_is_more() -> None:
    program = read_tree(b"t/")
    step = next(program)
    with pytest.raises(KvError) as raised:
        program.send(step.convert(rpc_pb2.RangeResponse(more=True)))  # type: ignore[union-attr]
    assert raised.value.code is Code.INTERNAL


def nested(depth: int, innermost: bytes = b"") -> bytes:
    for _ in range(depth):
        innermost = length_delimited(2, length_delimited(4, innermost))
    return innermost


def test_transactions_nest_up_to_a_bound_that_is_said() -> None:
    put = rpc_pb2.TxnRequest()
    put.success.add().request_put.key = b"k"
    for depth in (0, 1, TXN_LEVELS_MAX):
        request = validation.parse_txn(nested(depth, put.SerializeToString()))
        run(validation.check_txn(request, 128))
    for depth in (TXN_LEVELS_MAX + 1, TXN_LEVELS_MAX + 2, 60, 5000):
        with pytest.raises(EtcdError) as raised:
            run(validation.check_txn(validation.parse_txn(nested(depth)), 128))
        assert raised.value == validation.TXN_TOO_DEEP
    for garbage in (b"\xff", nested(3, b"\xff"), b"\x12\x05\x22\x09"):
        with pytest.raises(EtcdError, match="unmarshalling"):
            validation.parse_txn(garbage)


def test_levels_are_counted_in_bytes_that_cannot_be_decoded() -> None:
    assert [levels(nested(depth)) for depth in (0, 1, 7, 1000)] == [0, 1, 7, 1000]
    assert levels(nested(70) + b"\xff\xff") == 70
    assert levels(length_delimited(4, nested(70))) == 0
    other = length_delimited(9, nested(70)) + b"\x08\x05" + b"\x09" + bytes(8) + b"\x0d" + bytes(4)
    assert levels(other + nested(2)) == 2


def test_the_answer_to_the_deepest_transaction_can_be_decoded() -> None:
    innermost = rpc_pb2.TxnRequest()
    innermost.success.add().request_put.key = b"k"
    innermost.success.add().request_range.key = b"k"
    found = call_txn(nested(TXN_LEVELS_MAX, innermost.SerializeToString()))
    assert rpc_pb2.TxnResponse.FromString(found).header.revision == 2


class BytesCall(Call):
    """A call whose transport is the test."""

    outcome: bytes | EtcdError | None = None

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload, {}, "test", None)

    def _send(self, body: bytes, error: EtcdError | None) -> None:
        self.outcome = error or body


def call_txn(payload: bytes, beside: list[int] | None = None) -> bytes:
    """The answer to a transaction; `beside` counts the loop's turns until then."""

    async def ask() -> bytes:
        method: Any = build_api(LocalNode()).table.get("/etcdserverpb.KV/Txn")
        call = BytesCall(payload)
        answer = method.handler(call)
        if asyncio.iscoroutine(answer):
            task = asyncio.ensure_future(answer)
            while not task.done():
                if beside is not None:
                    beside[0] += 1
                await asyncio.sleep(0)
            return bytes(task.result())
        assert isinstance(call.outcome, bytes), call.outcome
        return call.outcome

    return asyncio.run(ask())


def wide(levels_left: int, width: int, numbers: Iterator[int]) -> rpc_pb2.TxnRequest:
    request = rpc_pb2.TxnRequest()
    for _ in range(width):
        op = request.success.add()
        if levels_left:
            op.request_txn.CopyFrom(wide(levels_left - 1, width, numbers))
        else:
            op.request_delete_range.key = b"%d" % next(numbers)
    return request


def test_large_transactions_let_others_have_their_turn() -> None:
    request = wide(2, 20, iter(range(10**6)))
    payload = request.SerializeToString()
    assert len(payload) > TXN_AT_ONCE_BYTES
    turns = [0]
    assert rpc_pb2.TxnResponse.FromString(call_txn(payload, turns)).succeeded
    assert turns[0] > 2 * 20**3 / 1024
    request.success[-1].request_txn.success[-1].request_txn.success[-1].request_put.key = b"0"
    with pytest.raises(EtcdError, match="duplicate key"):
        call_txn(request.SerializeToString())


@pytest.mark.parametrize(
    "line", ["get k --rev=" + DIGITS[:4000], f"get k --limit={2**63}", f"put k v --lease={2**63:x}"]
)
def test_operations_with_numbers_beyond_64_bits(line: str) -> None:
    with pytest.raises(CliError):
        parse_operation(line)
    with pytest.raises(CliError):
        parse_compare(f'mod("k") > "{2**63}"')
    assert parse_compare(f'mod("k") > "{2**63 - 1}"') is not None
