"""The simple form: one line per thing, as etcdctl's users and scripts read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from kvstore.cli import rows
from kvstore.cli.gotext import duration
from kvstore.cli.printers import Printer
from kvstore.pb.names import alarm_name

__all__ = ("WRITERS", "alarm_line")

Lines = Iterable[bytes | str]


def _pair(kv: Any, printer: Printer) -> Iterator[bytes]:
    if not printer.values_only:
        yield printer.text(kv.key)
    yield printer.text(kv.value)


def _get(answer: Any, printer: Printer, *, count_only: bool = False) -> Iterator[bytes]:
    if count_only:
        yield b"%d" % answer.count
    for kv in answer.kvs:
        yield from _pair(kv, printer)


def _put(answer: Any, printer: Printer) -> Iterator[bytes]:
    yield b"OK"
    if answer.HasField("prev_kv"):
        yield from _pair(answer.prev_kv, printer)


def _delete(answer: Any, printer: Printer) -> Iterator[bytes]:
    yield b"%d" % answer.deleted
    for kv in answer.prev_kvs:
        yield from _pair(kv, printer)


def _txn(answer: Any, printer: Printer) -> Iterator[bytes]:
    yield b"SUCCESS" if answer.succeeded else b"FAILURE"
    for response in answer.responses:
        yield b""
        kind = response.WhichOneof("response")
        if kind is not None:  # an operation that this program does not know
            yield from _IN_TXN[kind](getattr(response, kind), printer)


_IN_TXN: dict[str, Callable[..., Iterator[bytes]]] = {
    "response_range": _get,
    "response_put": _put,
    "response_delete_range": _delete,
    "response_txn": _txn,
}


def _watch(answer: Any, printer: Printer) -> Iterator[bytes]:
    for event in answer.events:
        yield b"DELETE" if event.type else b"PUT"
        if event.HasField("prev_kv"):
            yield from _pair(event.prev_kv, printer)
        yield from _pair(event.kv, printer)


def _compaction(_answer: Any, _printer: Printer, *, revision: int) -> Lines:
    return (f"compacted revision {revision}",)


def _grant(answer: Any, _printer: Printer) -> Lines:
    return (f"lease {answer.ID:016x} granted with TTL({answer.TTL}s)",)


def _revoke(_answer: Any, _printer: Printer, *, lease_id: int) -> Lines:
    return (f"lease {lease_id:016x} revoked",)


def _keep_alive(answer: Any, _printer: Printer) -> Lines:
    return (f"lease {answer.ID:016x} keepalived with TTL({answer.TTL})",)


def _time_to_live(answer: Any, _printer: Printer, *, keys: bool) -> Lines:
    if answer.grantedTTL == 0 and answer.TTL == -1:
        return (f"lease {answer.ID:016x} already expired",)
    text = (
        f"lease {answer.ID:016x} granted with TTL({answer.grantedTTL}s), remaining({answer.TTL}s)"
    ).encode()
    if keys:
        text += b", attached keys([%s])" % b" ".join(answer.keys)
    return (text,)


def _leases(answer: Any, _printer: Printer) -> Iterator[str]:
    yield f"found {len(answer.leases)} leases"
    for lease in answer.leases:
        yield f"{lease.ID:016x}"


def alarm_line(alarm: Any) -> str:
    """One alarm as etcdctl prints it."""
    found = f"memberID:{alarm.memberID} " if alarm.memberID else ""
    return f"{found}alarm:{alarm_name(alarm.alarm)} "


def _alarms(answer: Any, _printer: Printer) -> Iterator[str]:
    for alarm in answer.alarms:
        yield alarm_line(alarm)


def _member_add(answer: Any, _printer: Printer) -> Lines:
    role = " as learner " if answer.member.isLearner else " "
    return (f"Member {answer.member.ID:16x} added{role}to cluster {answer.header.cluster_id:16x}",)


def _member_done(what: str) -> Callable[..., Lines]:
    def write(answer: Any, _printer: Printer, *, member_id: int) -> Lines:
        return (f"Member {member_id:16x} {what} cluster {answer.header.cluster_id:16x}",)

    return write


def _moved(answer: tuple[int, int], _printer: Printer) -> Lines:
    return (f"Leadership transferred from {answer[0]:x} to {answer[1]:x}",)


def _health(answer: Any, _printer: Printer) -> Iterator[str]:
    for each in answer:
        if each.healthy:
            yield (
                f"{each.endpoint} is healthy: successfully committed proposal:"
                f" took = {duration(each.took_s)}"
            )


def _joined(table: rows.Table) -> Callable[..., Lines]:
    def write(answer: Any, _printer: Printer, **_details: Any) -> Iterator[str]:
        for row in table(answer)[1]:
            yield ", ".join(row)

    return write


WRITERS: Mapping[str, Callable[..., Lines]] = MappingProxyType(
    {
        "get": _get,
        "put": _put,
        "del": _delete,
        "txn": _txn,
        "watch": _watch,
        "compaction": _compaction,
        "grant": _grant,
        "revoke": _revoke,
        "keep_alive": _keep_alive,
        "time_to_live": _time_to_live,
        "leases": _leases,
        "alarms": _alarms,
        "member_add": _member_add,
        "member_remove": _member_done("removed from"),
        "member_update": _member_done("updated in"),
        "member_promote": _member_done("promoted in"),
        "members": _joined(rows.members),
        "health": _health,
        "status": _joined(rows.status),
        "hash": _joined(rows.hashes),
        "move_leader": _moved,
        "snapshot_status": _joined(rows.snapshot_status),
    }
)
"""Kind of answer to the function that writes it."""
