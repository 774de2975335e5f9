"""Questions to the past: who was there at a time or a revision, what happened since, and why.

The journal answers (see `kvstore.machine.journal`): it reaches back further than compaction. At a
revision that is not compacted the store itself tells who was there; before that, the last record
of each instance does. A question about what is no longer kept is refused with OUT_OF_RANGE, and
told where the journal begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kvstore.errors import Code, EtcdError
from kvstore.machine import DELETE, Job, JournalRecord, View
from kvstore.pb.rpc_pb2 import RangeRequest, RangeResponse
from kvstore.registry.lifecycle import event_of, reason_of
from kvstore.registry.limits import HISTORY_SLICE_RECORDS
from kvstore.registry.model import Instance, Invalid, Reason, decode
from kvstore.registry.names import (
    SERVICES_PREFIX,
    InstanceName,
    ServiceName,
    instance_key,
    service_prefix,
    split_key,
)
from kvstore.registry.times import rfc3339

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("History", "Past", "Then", "What")


About = ServiceName | InstanceName | str | None


class What(NamedTuple):
    """One thing that happened to an instance."""

    revision: int
    time_ms: int
    """Log time: for what a client wrote by itself, up to CLOCK_STEP_S earlier than it was."""
    name: InstanceName
    event: str
    """registered, updated, unhealthy, recovered, drained, deregistered, expired."""
    reason: Reason
    instance: Instance | None
    """As it was from then on; of one that is gone, as it was last; None: not to be read."""


class Then(NamedTuple):
    """An instance as it was."""

    name: InstanceName
    instance: Instance | None
    """None: it was there, but how it was is no longer known, or its value was no instance."""
    problem: str
    """Why there is none; empty otherwise."""


class Past(NamedTuple):
    """A service as it was."""

    revision: int
    time_ms: int
    """Of the last change up to then."""
    instances: list[Then]
    """By id."""


class History:
    """Asks this member's journal; what it answers is as new as what is applied here."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def oldest(self) -> tuple[int, int] | None:
        """Where the journal begins: (revision, time in ms); None: it is empty."""

        def reading(view: View) -> Job[tuple[int, int] | None]:
            oldest = view.journal_oldest()
            return None if oldest is None else (oldest.revision, oldest.time_ms)
            yield

        answer: tuple[int, int] | None = await self._node.reading(reading, linearizable=False)
        return answer

    async def since(
        self,
        of: About,
        *,
        revision: int = 0,
        until: int | None = None,
        limit: int = 1_000,
        newest_first: bool = False,
    ) -> list[What]:
        """What happened at `revision` <= r < `until`: to an instance, a service, in a namespace
        (a text), or to all (None).

        `revision` 0: since the journal begins; an older one than that is refused.
        """

        def reading(view: View) -> Job[list[What]]:
            if revision:
                _check_kept(view, revision)
            found: list[What] = []
            prefix = _prefix(of)
            records = view.journal(revision, until, newest_first=newest_first)
            for at, record in enumerate(records, 1):
                if _is_of(record.key, prefix, of):
                    what = _what(record)
                    if what is not None:
                        found.append(what)
                if len(found) == limit:
                    break
                if at % HISTORY_SLICE_RECORDS == 0:
                    yield
            return found

        answer: list[What] = await self._node.reading(reading, linearizable=False)
        return answer

    async def at(
        self,
        service: ServiceName,
        *,
        revision: int | None = None,
        time_ms: int | None = None,
    ) -> Past:
        """Who was there at a revision, or at a time. Raises OUT_OF_RANGE when it is not kept."""
        assert (revision is None) != (time_ms is None), "one of the two"

        def reading(view: View) -> Job[Past]:
            at = _revision_at(view, time_ms) if time_ms is not None else revision
            assert at is not None
            if at > view.revision:
                raise EtcdError(
                    Code.OUT_OF_RANGE,
                    f"revision {at} is yet to come: the store is at {view.revision}",
                )
            if at < 1:
                raise EtcdError(Code.INVALID_ARGUMENT, f"revision {at}: they count from 1")
            if at < view.compact_revision:
                values = yield from _from_journal(view, service, at)
            else:
                values = yield from _from_store(view, service, at)
            newest = next(view.journal(0, at + 1, newest_first=True), None)
            then = [_then(key, value) for key, value in sorted(values.items())]
            return Past(at, newest.time_ms if newest is not None else 0, then)

        answer: Past = await self._node.reading(reading, linearizable=False)
        return answer


def _prefix(of: About) -> bytes:
    match of:
        case InstanceName():
            return instance_key(of)
        case ServiceName():
            return service_prefix(of)
        case str():
            return SERVICES_PREFIX + of.encode() + b"/"
        case _:
            return b""


def _is_of(key: bytes, prefix: bytes, of: About) -> bool:
    return key == prefix if isinstance(of, InstanceName) else key.startswith(prefix)


def _check_kept(view: View, revision: int) -> None:
    """Refuses a revision before the journal begins."""
    oldest = view.journal_oldest()
    if oldest is not None and revision < oldest.revision:
        raise _too_old(oldest)


def _too_old(oldest: JournalRecord) -> EtcdError:
    return EtcdError(
        Code.OUT_OF_RANGE,
        f"history is kept since {rfc3339(oldest.time_ms)} (revision {oldest.revision})",
    )


def _revision_at(view: View, time_ms: int) -> int:
    """A revision at which everything was as at a time; log time never falls."""
    oldest = view.journal_oldest()
    if oldest is None:
        return view.revision
    if time_ms < oldest.time_ms:
        raise _too_old(oldest)
    low, high = oldest.revision, view.revision + 1
    # There is a record at `low`, and it is not younger; from `high` on there is none, or younger.
    while high - low > 1:
        middle = (low + high) // 2
        record = next(view.journal(middle), None)
        if record is not None and record.time_ms <= time_ms:
            low = record.revision
        else:
            high = middle
    # Up to the next record nothing changed. The newer, the less likely to be compacted.
    following = next(view.journal(low + 1), None)
    return view.revision if following is None else following.revision - 1


def _from_store(view: View, service: ServiceName, revision: int) -> Job[dict[bytes, bytes | None]]:
    """Keys and values of a service at a revision that is not compacted."""
    values: dict[bytes, bytes | None] = {}
    start = service_prefix(service)
    end = start[:-1] + bytes((start[-1] + 1,))
    while True:
        request = RangeRequest(
            key=start, range_end=end, revision=revision, limit=HISTORY_SLICE_RECORDS
        )
        answer = yield from view.range(request)
        page = RangeResponse.FromString(answer.body)
        values.update((kv.key, kv.value) for kv in page.kvs)
        if not page.more:
            return values
        start = page.kvs[-1].key + b"\0"
        yield


def _from_journal(
    view: View, service: ServiceName, revision: int
) -> Job[dict[bytes, bytes | None]]:
    """Keys and values (None: not known) of a service at a revision that is compacted.

    An instance that changed at or before it, after the journal begins, was as its last record
    says. One that changed only later was there if that change was its end, or if it had been
    registered before; one that never changed is as it is now.
    """
    _check_kept(view, revision)
    prefix = service_prefix(service)
    values: dict[bytes, bytes | None] = {}
    seen: dict[bytes, None] = {}
    time_ms = 0
    for at, record in enumerate(view.journal(0), 1):
        if at % HISTORY_SLICE_RECORDS == 0:
            yield
        if record.revision <= revision:
            time_ms = record.time_ms
        if not record.key.startswith(prefix):
            continue
        if record.revision <= revision:
            if record.op == DELETE:
                values.pop(record.key, None)
            else:
                values[record.key] = record.value
        elif record.key not in seen:
            if record.op == DELETE:
                values[record.key] = record.value
            elif _registered_by(record.key, record.value, time_ms):
                values[record.key] = None
        seen[record.key] = None
    present = yield from _from_store(view, service, view.revision)
    values.update((key, value) for key, value in present.items() if key not in seen)
    return values


def _registered_by(key: bytes, value: bytes, time_ms: int) -> bool:
    try:
        return decode(value, split_key(key)).registered_ms <= time_ms
    except Invalid:
        return False


def _then(key: bytes, value: bytes | None) -> Then:
    try:
        name = split_key(key)
    except Invalid as error:
        return Then(InstanceName("", "", key.decode("utf-8", "replace")), None, str(error))
    if value is None:
        return Then(name, None, "how it was at that time is no longer kept")
    try:
        return Then(name, decode(value, name), "")
    except Invalid as error:
        return Then(name, None, str(error))


def _what(record: JournalRecord) -> What | None:
    """What a record tells; None if its key is no instance's."""
    try:
        name = split_key(record.key)
    except Invalid:
        return None
    try:
        instance: Instance | None = decode(record.value, name)
    except Invalid:
        instance = None
    reason = reason_of(record)
    return What(record.revision, record.time_ms, name, event_of(reason), reason, instance)
