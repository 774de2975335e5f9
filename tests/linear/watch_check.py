"""What a watch promises, each promise checked on its own against the store's event log.

etcd's guarantees (API reference, "watch APIs"): ordered, unique, atomic, reliable, resumable,
bookmarkable; and that previous values, `is_create` and filters tell the truth. Each check is a
function of a record and the log that yields one sentence per violation, so that a report names
the promise that was broken.

The log is complete: every revision that changed something, from 2 on. A record may end anywhere,
also between two fragments of one response; nothing is then owed of what was cut off.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.linear.finding import text
from tests.linear.history import KV, Event, WatchRecord, Witness, covers, deleted

__all__ = ("CHECKS", "EventLog", "faults")


class EventLog:
    """The witness, with the value that each event replaced.

    `compactions`: (time, revision) of those that may have happened, from that time on.
    """

    def __init__(self, witness: Witness, compactions: Sequence[tuple[int, int]] = ()) -> None:
        self.compactions = compactions
        self.revisions: list[int] = []
        self.events: list[tuple[Event, ...]] = []
        before: dict[bytes, KV] = {}
        for revision, events in witness:
            self.revisions.append(revision)
            self.events.append(
                tuple(replace(event, prev=before.get(event.kv.key)) for event in events)
            )
            for event in events:
                if event.kind == "put":
                    before[event.kv.key] = event.kv
                else:
                    before.pop(event.kv.key, None)
        self._at = {
            (event.kv.mod, event.kv.key): event for events in self.events for event in events
        }

    def between(self, first: int, last: int) -> Iterator[Event]:
        """All events of these revisions, both included."""
        start = bisect_left(self.revisions, first)
        for events in self.events[start : bisect_right(self.revisions, last)]:
            yield from events

    def compacted(self, time: int) -> int:
        """The highest revision that can have been compacted by then."""
        return max((revision for at, revision in self.compactions if at <= time), default=0)

    def find(self, event: Event) -> Event | None:
        """The event of this revision and key, if there was one."""
        return self._at.get((event.kv.mod, event.kv.key))


@dataclass(frozen=True, slots=True)
class _Batch:
    """A response with all its fragments; `whole` is False if the last one never came."""

    events: tuple[Event, ...]
    whole: bool


def _batches(record: WatchRecord) -> list[_Batch]:
    batches: list[_Batch] = []
    gathered: list[Event] = []
    for response in record.responses:
        gathered += response.events
        if not response.fragment and response.events:
            batches.append(_Batch(tuple(gathered), True))
            gathered = []
    if gathered:
        batches.append(_Batch(tuple(gathered), False))
    return batches


def _events(record: WatchRecord) -> Iterator[Event]:
    for response in record.responses:
        yield from response.events


def _start(record: WatchRecord) -> int | None:
    """The first revision that the watch owes; None while nothing says so."""
    if record.start_revision:
        return record.start_revision
    created = next((each for each in record.responses if each.created), None)
    return None if created is None else created.revision + 1


def _wanted(record: WatchRecord, event: Event) -> bool:
    return covers(record.key, record.end, event.kv.key) and event.kind not in record.filters


def _name(event: Event) -> str:
    return f"{event.kind} of {text(event.kv.key)} at revision {event.kv.mod}"


def ordered(record: WatchRecord, _: EventLog) -> Iterator[str]:
    """Revisions never go back, neither those of events nor those of headers."""
    last = header = 0
    for response in record.responses:
        if response.revision < header and not response.canceled:
            yield f"the header went from revision {header} back to {response.revision}"
        header = max(header, response.revision)
        for event in response.events:
            if event.kv.mod < last:
                yield f"the {_name(event)} came after revision {last}"
            last = max(last, event.kv.mod)
        if response.events and last > response.revision:
            yield f"an event of revision {last} came under a header of {response.revision}"


def unique(record: WatchRecord, _: EventLog) -> Iterator[str]:
    """No event comes twice."""
    seen: dict[tuple[int, bytes], None] = {}
    for event in _events(record):
        name = (event.kv.mod, event.kv.key)
        if name in seen:
            yield f"the {_name(event)} came twice"
        seen[name] = None


def atomic(record: WatchRecord, _: EventLog) -> Iterator[str]:
    """A revision comes in one response, whose fragments nothing separates."""
    done = 0
    for batch in _batches(record):
        if batch.events[0].kv.mod == done:
            yield f"the events of revision {done} came in two responses"
        done = batch.events[-1].kv.mod
    inside = False
    for response in record.responses:
        if inside and not response.events and not response.canceled:
            yield "something came between the fragments of a response"
        inside = response.fragment


def reliable(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """From the first to the last event that came, none is missing and none is invented."""
    given = list(_events(record))
    batches = _batches(record)
    if not given:
        return
    last = max(event.kv.mod for event in given)
    came = {(event.kv.mod, event.kv.key) for event in given}
    # Of a revision whose fragments were cut off, the rest is not owed.
    owed_to = last if batches[-1].whole else last - 1
    for event in log.between(min(event.kv.mod for event in given), owed_to):
        if _wanted(record, event) and (event.kv.mod, event.kv.key) not in came:
            yield f"the {_name(event)} never came, but later ones did"
    for event in given:
        truth = log.find(event)
        if truth is None:
            yield f"the {_name(event)} came, but there was none"
        elif (truth.kind, truth.kv) != (event.kind, event.kv):
            yield f"the {_name(event)} came as {event.kind} {event.kv}, not {truth.kind} {truth.kv}"


def resumable(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """A watch begins exactly at its start revision: with the first event there, none before.

    That it ended as compacted is true only if its next revision was compacted.
    """
    start = _start(record)
    if start is None:
        return
    given = list(_events(record))
    for event in given:
        if event.kv.mod < start:
            yield f"the {_name(event)} came, though the watch began at {start}"
    if given:
        first = min(event.kv.mod for event in given)
        missed = next((e for e in log.between(start, first - 1) if _wanted(record, e)), None)
        if missed is not None:
            yield f"the watch began at {start}, but the {_name(missed)} was left out"
    ended = next((each for each in record.responses if each.compact_revision), None)
    if ended is not None:
        owed = [event.kv.mod + 1 for event in given] + [mark + 1 for mark in _marks(record)]
        come_to = max([start, *owed])
        if ended.compact_revision <= come_to:
            yield f"it ended as compacted at {ended.compact_revision}, but had come to {come_to}"


def _marks(record: WatchRecord) -> Iterator[int]:
    for response in record.responses:
        if response.progress:
            yield response.revision


def bookmarkable(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """A mark of revision r says: all up to r has come, nothing up to r will come."""
    start = _start(record)
    came: set[tuple[int, bytes]] = set()
    mark = checked = 0
    for response in record.responses:
        for event in response.events:
            came.add((event.kv.mod, event.kv.key))
            if event.kv.mod <= mark:
                yield f"the {_name(event)} came after the mark of {mark}"
        if not response.progress:
            continue
        mark = response.revision
        if mark < record.start_revision or (start is not None and mark < start - 1):
            yield f"a mark of {mark} came, though the watch begins at {start}"
        for event in log.between(max(start or mark + 1, checked + 1), mark):
            if _wanted(record, event) and (event.kv.mod, event.kv.key) not in came:
                yield f"the mark of {mark} came before the {_name(event)}"
        checked = mark


def prev_kv(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """Previous values, if asked for, are those of the revision before; else there are none.

    There is none either when the revision before was compacted by then.
    """
    for response in record.responses:
        for event in response.events:
            truth = log.find(event)
            if truth is None:
                continue
            expected = truth.prev if record.prev_kv else None
            gone = event.prev is None and log.compacted(response.at) >= event.kv.mod
            if event.prev != expected and not gone:
                yield f"the {_name(event)} came with the previous pair {event.prev}, not {expected}"


def is_create(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """A put says that it created its key exactly if there was none before."""
    for event in _events(record):
        truth = log.find(event)
        if truth is None:
            continue
        if event.kind == "delete":
            if event.kv != deleted(event.kv.key, event.kv.mod):
                yield f"the {_name(event)} came with more than its key and revision: {event.kv}"
            continue
        created = truth.prev is None
        if (event.kv.create == event.kv.mod) != created or (event.kv.version == 1) != created:
            what = "created" if created else "changed"
            yield (
                f"the {_name(event)} {what} its key, but came as create {event.kv.create}, "
                f"version {event.kv.version}"
            )


def filters(record: WatchRecord, _: EventLog) -> Iterator[str]:
    """Only events of the range, and of no kind that was filtered out."""
    for event in _events(record):
        if not _wanted(record, event):
            yield f"the {_name(event)} came, which this watch did not ask for"


Check = Callable[[WatchRecord, EventLog], Iterator[str]]
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        ordered,
        unique,
        atomic,
        reliable,
        resumable,
        bookmarkable,
        prev_kv,
        is_create,
        filters,
    )
}


def faults(records: Sequence[WatchRecord], log: EventLog) -> Iterator[str]:
    """Every broken promise of every watch, with its name."""
    for record in records:
        for name, check in CHECKS.items():
            for sentence in check(record, log):
                yield (
                    f"{name}: client {record.client}, watch of {text(record.key)} "
                    f"from {record.start_revision}: {sentence}"
                )
