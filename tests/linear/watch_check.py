"""The nine promises of a watch, each as a function from records and the event log to violations.

The event log is the truth: every revision with its events, complete from the first one on. What
the store held before an event is worked out from the log, so the log's own `prev` is not needed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.linear.finding import text
from tests.linear.history import KV, Event, WatchRecord, WatchResponse, Witness, covers


class EventLog:
    """The log, with an index by revision and by key.

    `compacted` is the highest revision that may have been compacted: previous pairs older than
    it may be missing from events.
    """

    def __init__(self, witness: Witness, compacted: int = 0) -> None:
        self.witness = witness
        self.compacted = compacted
        self.revisions = [revision for revision, _ in witness]
        self.pasts: dict[bytes, tuple[list[int], list[KV | None]]] = {}
        for revision, events in witness:
            for event in events:
                revisions, kvs = self.pasts.setdefault(event.kv.key, ([], []))
                revisions.append(revision)
                kvs.append(event.kv if event.kind == "put" else None)

    def before(self, event: Event) -> KV | None:
        """The pair of the event's key as the revision before left it."""
        revisions, kvs = self.pasts.get(event.kv.key, ([], []))
        older = bisect_left(revisions, event.kv.mod)
        return kvs[older - 1] if older else None

    def due(self, record: WatchRecord, first: int, last: float) -> Iterator[Event]:
        """The events of these revisions, both included, that the watch has to be sent."""
        for position in range(bisect_left(self.revisions, first), len(self.revisions)):
            revision, events = self.witness[position]
            if revision > last:
                return
            yield from (event for event in events if _wanted(record, event))


def _wanted(record: WatchRecord, event: Event) -> bool:
    return event.kind not in record.filters and covers(record.key, record.end, event.kv.key)


@dataclass(slots=True)
class _Delivery:
    """One response, or the fragments of one, put together. `whole`: its last fragment came."""

    events: list[Event] = field(default_factory=list)
    whole: bool = True


def _deliveries(record: WatchRecord) -> list[_Delivery]:
    found: list[_Delivery] = []
    for response in record.responses:
        if response.events:
            if not found or found[-1].whole:
                found.append(_Delivery())
            found[-1].events += response.events
            found[-1].whole = not response.fragment
    return found


def _sent(record: WatchRecord) -> list[Event]:
    return [event for response in record.responses for event in response.events]


def _start(record: WatchRecord) -> int | None:
    """The first revision that the watch stands for; None if it never was told from when on."""
    if record.start_revision > 0:
        return record.start_revision
    created = next((one for one in record.responses if one.created), None)
    return None if created is None else created.revision + 1


def _is_mark(response: WatchResponse) -> bool:
    return response.progress and not response.events


def _name(event: Event) -> str:
    return f"{event.kind} of {text(event.kv.key)} at revision {event.kv.mod}"


# Each validator judges one record; `check` below runs them over all.


def ordered(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """Revisions never go back, neither those of events nor those of headers."""
    last = header = 0
    for response in record.responses:
        for event in response.events:
            if event.kv.mod < last:
                yield f"{_name(event)} came after revision {last}"
            last = max(last, event.kv.mod)
        if 0 < response.revision < header:
            yield f"the header went back from revision {header} to {response.revision}"
        header = max(header, response.revision)


def unique(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """No event comes twice."""
    seen: set[tuple[int, bytes, str]] = set()
    for event in _sent(record):
        identity = (event.kv.mod, event.kv.key, event.kind)
        if identity in seen:
            yield f"{_name(event)} came twice"
        seen.add(identity)


def reliable(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """From the first event to the last, the watch got exactly what the log holds for it."""
    sent = _sent(record)
    if not sent:
        return
    first = min(event.kv.mod for event in sent)
    last = max(event.kv.mod for event in sent)
    # The last revision may be incomplete in a record that was cut off; `atomic` looks at that.
    due = {_identity(event): event for event in log.due(record, first, last)}
    got = {_identity(event): event for event in sent}
    for identity, event in due.items():
        if identity not in got and event.kv.mod < last:
            yield f"{_name(event)} was not delivered, though revision {last} was"
    for identity, event in got.items():
        truth = due.get(identity)
        if truth is None:
            if _wanted(record, event):
                yield f"{_name(event)} was delivered, but never happened"
        elif (truth.kv.value, truth.kv.lease) != (event.kv.value, event.kv.lease):
            yield f"{_name(event)} was delivered with {event.kv} in place of {truth.kv}"


def _identity(event: Event) -> tuple[int, bytes, str]:
    return event.kv.mod, event.kv.key, event.kind


def atomic(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """The events of one revision arrive in one response, or in fragments with nothing between."""
    for before, after in zip(record.responses, record.responses[1:], strict=False):
        if before.fragment and not after.events and not after.canceled:
            yield f"another response came between fragments, at header {after.revision}"
    last = 0
    for delivery in _deliveries(record):
        revisions = {event.kv.mod: None for event in delivery.events}
        if last in revisions:
            yield f"revision {last} came in more than one response"
        last = max(revisions)
        if not delivery.whole:
            return
        for revision in revisions:
            due = sum(1 for _ in log.due(record, revision, revision))
            got = len({_identity(one) for one in delivery.events if one.kv.mod == revision})
            if got < due:
                yield f"{got} of the {due} events of revision {revision} came in its response"


def resumable(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """A watch begins with the first event at or after its start, and with none before it; it may
    end for compaction only if what it has to send next is compacted."""
    start = _start(record)
    if start is None:
        return
    sent = _sent(record)
    for event in sent:
        if event.kv.mod < start:
            yield f"{_name(event)} came on a watch from revision {start}"
    if sent:
        missed = next(log.due(record, start, sent[0].kv.mod - 1), None)
        if missed is not None:
            yield f"the first event is the {_name(sent[0])}, not the {_name(missed)}"
    for response in record.responses:
        if response.canceled and response.compact_revision:
            following = max((event.kv.mod + 1 for event in sent), default=start)
            if following >= response.compact_revision:
                yield (
                    f"it ended as compacted at {response.compact_revision}, "
                    f"but had to go on from {following} only"
                )


def bookmarkable(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """A progress mark says that everything up to it was delivered before."""
    start = _start(record)
    got: set[tuple[int, bytes, str]] = set()
    mark = 0
    for response in record.responses:
        for event in response.events:
            got.add(_identity(event))
            if event.kv.mod <= mark:
                yield f"{_name(event)} came after the progress mark {mark}"
        if not _is_mark(response) or start is None:
            continue
        if response.revision < record.start_revision:
            yield f"a mark {response.revision} came on a watch from {record.start_revision}"
        for event in log.due(record, max(start, mark + 1), response.revision):
            if _identity(event) not in got:
                yield f"the progress mark {response.revision} came before the {_name(event)}"
        mark = max(mark, response.revision)


def prev_kv(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """Events carry the pair of the revision before, if that was asked for and is not compacted."""
    for event in _sent(record):
        if not record.prev_kv:
            if event.prev is not None:
                yield f"{_name(event)} carries a previous pair that nobody asked for"
            continue
        truth = log.before(event)
        dropped = event.prev is None and event.kv.mod - 1 < log.compacted
        if event.prev != truth and not dropped:
            yield f"{_name(event)} carries {event.prev} as the previous pair, not {truth}"


def is_create(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """A put shows that it created its key exactly if there was none; versions count from there."""
    for event in _sent(record):
        kv = event.kv
        if event.kind == "delete":
            if (kv.create, kv.version, kv.value, kv.lease) != (0, 0, b"", 0):
                yield f"{_name(event)} carries more than its key and revision"
            continue
        old = log.before(event)
        expected = (kv.mod, 1) if old is None else (old.create, old.version + 1)
        if (kv.create, kv.version) != expected:
            yield (
                f"{_name(event)} has create revision {kv.create} and version {kv.version}, "
                f"not {expected[0]} and {expected[1]}"
            )


def filters(record: WatchRecord, log: EventLog) -> Iterator[str]:
    """Nothing is sent that lies outside of the range, or is of a kind that was not wanted."""
    for event in _sent(record):
        if event.kind in record.filters:
            yield f"{_name(event)} passed a filter against it"
        if not covers(record.key, record.end, event.kv.key):
            yield f"{_name(event)} lies outside of the range"


Validator = Callable[[WatchRecord, EventLog], Iterator[str]]

VALIDATORS: dict[str, Validator] = {
    "ordered": ordered,
    "unique": unique,
    "reliable": reliable,
    "atomic": atomic,
    "resumable": resumable,
    "bookmarkable": bookmarkable,
    "prev_kv": prev_kv,
    "is_create": is_create,
    "filters": filters,
}


def check(records: Sequence[WatchRecord], log: EventLog) -> list[str]:
    """All violations of all promises, as sentences that name the promise and the watch."""
    return [
        f"{name}: watch of client {record.client} on {text(record.key)} "
        f"from {record.start_revision}: {sentence}"
        for record in records
        for name, validator in VALIDATORS.items()
        for sentence in validator(record, log)
    ]
