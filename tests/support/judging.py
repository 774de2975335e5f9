"""Judges what a cluster of processes answered: both checkers, and every watch against the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.linear import revision_check, wgl
from tests.linear.finding import Finding
from tests.linear.history import KV, Event, Operation, WatchRecord, Witness, covers
from tests.linear.models import StoreModel
from tests.linear.settle import settle

__all__ = ("judge", "watch_faults")


def judge(history: Sequence[Operation], watches: Sequence[WatchRecord], log: Witness) -> None:
    """Raises AssertionError unless everything since the cluster's start is explained.

    `log` is the store's event log, complete from revision 2 on; it decides unknown outcomes.
    """
    assert [revision for revision, _ in log] == list(range(2, len(log) + 2)), "a hole in the log"
    settled = settle(history, log)
    findings: list[Finding] = [
        revision_check.check(settled),
        wgl.check(StoreModel(), settled),
    ]
    for finding in findings:
        assert finding.legal, str(finding)
    for record in watches:
        for fault in watch_faults(record, log):
            raise AssertionError(f"watch of {record.key!r} from {record.start_revision}: {fault}")


def watch_faults(record: WatchRecord, log: Witness) -> Iterator[str]:
    """Everything that one watch should not have been sent, or should have been, as sentences."""
    if not record.responses:
        return
    start = record.start_revision or record.responses[0].revision + 1
    expected = _expected(record, start, log)
    sent: list[Event] = []
    header = told = 0
    unfinished = False
    for response in record.responses:
        if response.revision < header:
            yield f"the header went back from {header} to {response.revision}"
        header = response.revision
        if response.progress:
            told = response.revision
            missing = [e for e in expected if sent_revision(sent) < e.kv.mod <= told]
            if missing:
                yield f"progress {told} was told before revision {missing[0].kv.mod}"
        for event in response.events:
            if event.kv.mod <= told:
                yield f"revision {event.kv.mod} came behind progress {told}"
        if response.events and not unfinished:
            first = response.events[0].kv.mod
            if sent and first <= sent[-1].kv.mod:
                yield f"revision {first} came in two parts, or behind {sent[-1].kv.mod}"
        unfinished = response.fragment
        sent += response.events
    if unfinished:  # cut off inside a response
        last = sent[-1].kv.mod
        sent = [event for event in sent if event.kv.mod < last]
    wanted = [event for event in expected if event.kv.mod <= sent_revision(sent)]
    for got, want in zip(sent, wanted, strict=False):
        if got != want:
            yield f"{got} was sent in place of {want}"
            return
    if len(sent) != len(wanted):
        yield f"{len(sent)} events up to revision {sent_revision(sent)}, not {len(wanted)}"


def sent_revision(sent: Sequence[Event]) -> int:
    """The last revision of these events."""
    return sent[-1].kv.mod if sent else 0


def _expected(record: WatchRecord, start: int, log: Witness) -> list[Event]:
    """What the watch has to get, were it to last for ever."""
    before: dict[bytes, KV] = {}
    expected = []
    for revision, events in log:
        for event in events:
            key = event.kv.key
            if revision >= start and covers(record.key, record.end, key):
                prev = before.get(key) if record.prev_kv else None
                expected.append(Event(event.kind, event.kv, prev))
            if event.kind == "put":
                before[key] = event.kv
            else:
                before.pop(key, None)
    return expected
