"""The leader's duty: finds who fell silent, writes it down, and removes who stays silent.

    heartbeats ─► liveness ─► silent, back, overdue ─► guard ─► what each instance should be
                                                                   │
    catalog ─► what it is ────────────────────────────────────────►┴─► BATCH entries

Rules:
1. Every decision is a comparison: what liveness and guard say of an instance against what the
   catalog says. What differs is written, on the condition that nobody else wrote meanwhile; what
   fails is compared again. So a decision is never lost, and never done twice.
2. Only instances on a lease that the registry gave them are watched over.
3. A batch counts only in the term in which it was decided. A new leader begins anew: everybody
   has the whole TTL again. A guard that was engaged goes on; it stands under its key.
4. Thousands at once are many small entries, with a pause after each: what others write waits
   behind one of them at most. All who are due are known before the first of them is written.
5. Who is to be removed is told to the lessor first: from then on no renewal is answered, so
   nobody hears "renewed" and is removed all the same.

An operator ends a guard by its key: deleting it lifts, "state": "confirmed" confirms.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from kvstore.errors import EtcdError
from kvstore.machine import ABSENT, ANY_REVISION, BatchAction, BatchFailure, BatchItem
from kvstore.registry import limits
from kvstore.registry.catalog import Catalog, Delta, Entry
from kvstore.registry.guard import Decision, Guard, Verdict
from kvstore.registry.lifecycle import Pulse, after_pulse, expired
from kvstore.registry.liveness import Liveness, Tracked
from kvstore.registry.model import Invalid, encode
from kvstore.registry.names import (
    GUARDS_PREFIX,
    InstanceName,
    ServiceName,
    guard_key,
    instance_key,
    service_of_key,
)
from kvstore.registry.times import milliseconds, rfc3339

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("CONFIRMED", "Keeper")

_LOG = logging.getLogger(__name__)
CONFIRMED: Final = "confirmed"
"""The state of a guard's note by which an operator says that the silent ones are really gone."""
_HOLDING: Final = "holding"


class _Watched:
    """One service as the leader watches over it."""

    __slots__ = ("guard", "let_go", "total")

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.total = 0
        self.let_go: tuple[int, ...] = ()
        """Whom the guard held when it ended the last time."""


class Keeper:
    """Runs while this member leads; `led`, `renewed` and `held` are the member's hooks."""

    def __init__(self, node: Node, catalog: Catalog) -> None:
        self._node = node
        self._catalog = catalog
        self._liveness = Liveness(limits.HEARTBEAT_MARGIN_S)
        self._names: dict[int, InstanceName] = {}
        self._services: dict[ServiceName, _Watched] = {}
        self._alert: dict[ServiceName, None] = {}
        """Services whose guard is not idle."""
        self._fresh: dict[InstanceName, list[Entry]] = {}
        """Instances that are new or changed, and not looked at yet; how they were before each of
        these changes."""
        self._confirmed: set[int] = set()
        self._todo: dict[int, None] = {}
        """Leases of instances that may have to be written."""
        self._overdue: dict[int, None] = {}
        self._notes: dict[ServiceName, None] = {}
        """Services whose guard's note may have to be written."""
        self._written: dict[ServiceName, bytes] = {}
        """The notes as this leader wrote them."""
        self._preparing = False
        self._stopped = False
        self._task: asyncio.Task[None] | None = None
        self._catalog.subscribe(self._changed)

    # ---- the member's hooks ----------------------------------------------------------------

    def led(self, leads: bool) -> None:
        """This member begins or ends to lead."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._forget()
        self._preparing = leads
        if leads and not self._stopped:
            self._task = asyncio.get_running_loop().create_task(self._keep(), name="keeper")

    async def stop(self) -> None:
        """Ends the duty for good: the member is about to hand leadership over.

        Leases are still held: nobody is to be removed because a server stops.
        """
        self._stopped = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def renewed(self, leases: Sequence[int], now: float) -> None:
        """Heartbeats, of instances or of anything else."""
        for lease in self._liveness.renewed(leases, now):
            self._todo[lease] = None
            self._overdue.pop(lease, None)
            self._confirmed.discard(lease)
            service = self._names[lease].of
            watched = self._services[service]
            self._decided(service, watched.guard.gone((lease,), watched.total))

    def held(self, lease: int) -> bool:
        """Leases of instances end by the keeper's own command, not by themselves.

        (A new leader gives every lease its whole time, so those that the keeper does not know
        yet are safe.)
        """
        return lease in self._liveness

    # ---- who is watched over ---------------------------------------------------------------

    def _forget(self) -> None:
        self._liveness.demote()
        for table in (self._names, self._services, self._alert, self._todo, self._overdue):
            table.clear()
        self._fresh.clear()
        self._notes.clear()
        self._written.clear()
        self._confirmed.clear()

    async def _prepare(self) -> None:
        """Gets to know all instances, a few hundred in a turn."""
        await self._catalog.wait_ready()
        for known in self._catalog.services.values():
            self._fresh.update((entry.name, []) for entry in known.entries.values())
        await self._take_in()
        for service, note in list(self._catalog.guards.items()):
            if not self._is_engaged(service):
                self._resume(service, note.told)
        self._preparing = False

    def _track(self, entry: Entry) -> None:
        """Watches over an instance from now on, if it is one of ours."""
        if not entry.owned:
            return
        instance = entry.instance
        assert instance is not None
        lease = entry.lease
        if lease not in self._liveness:
            self._names[lease] = entry.name
            self._watched(entry.name.of).total += 1
        silent = instance.silent or instance.stale
        self._liveness.track(
            Tracked(lease, instance.ttl_s, instance.grace_s, silent), self._node.clock()
        )
        self._todo[lease] = None

    def _heed_return(self, states: Sequence[Entry]) -> None:
        """Who is silent to us and is found to be back was heard, by the leader before us.

        So it is with heartbeats that it has written down, but we had not applied when we began,
        and with those of somebody who registers again while the leader changes.
        """
        lease = states[-1].lease
        if not self._liveness.is_silent(lease):
            return
        silent = [_is_silent(entry) for entry in states if entry.lease == lease]
        if not silent[-1] and any(silent):
            self.renewed((lease,), self._node.clock())

    def _untrack(self, lease: int, name: InstanceName) -> None:
        """The instance is gone, or stands on another lease."""
        if self._names.get(lease) != name:
            return
        del self._names[lease]
        self._liveness.forget(lease)
        self._todo.pop(lease, None)
        self._overdue.pop(lease, None)
        self._confirmed.discard(lease)
        watched = self._services[name.of]
        watched.total -= 1
        self._decided(name.of, watched.guard.gone((lease,), watched.total))
        self._drop_if_idle(name.of)

    def _drop_if_idle(self, service: ServiceName) -> None:
        watched = self._services[service]
        if watched.guard.idle:
            self._alert.pop(service, None)
            if not watched.total:
                del self._services[service]

    def _watched(self, service: ServiceName) -> _Watched:
        watched = self._services.get(service)
        if watched is None:
            watched = self._services[service] = _Watched(Guard(self._catalog.settings(service)))
        return watched

    def _resume(self, service: ServiceName, told: Any) -> None:
        """Goes on with a guard that the leader before had engaged."""
        held = [
            entry.lease
            for entry in self._entries(service)
            if entry.owned and entry.instance is not None and entry.instance.stale
        ]
        try:
            until_ms = milliseconds(str(told.get("until", "")))
        except Invalid:
            until_ms = 0
        watched = self._watched(service)
        left_s = min(max(0.0, (until_ms - self._node.wall_ms()) / 1000), limits.GUARD_HOLD_MAX_S)
        watched.guard.resume(held, self._node.clock() + left_s)
        self._liveness.hold(held)
        self._alert[service] = None
        self._written[service] = b""
        if told.get("state") == CONFIRMED:
            self._decided(service, watched.guard.confirm())
        self._decided(service, watched.guard.gone((), watched.total))

    def _entries(self, service: ServiceName) -> Iterable[Entry]:
        found = self._catalog.service(service)
        return list(found.entries.values()) if found is not None else []

    def _changed(self, deltas: Sequence[Delta] | None) -> None:
        """The catalog has changed."""
        if self._task is None:
            return
        if deltas is None:
            for lease, name in list(self._names.items()):
                entry = self._catalog.entry(name)
                if entry is None or entry.lease != lease:
                    self._untrack(lease, name)
            self._preparing = True
            return
        for delta in deltas:
            before, after = delta.before, delta.after
            if before is not None and (after is None or after.lease != before.lease):
                self._untrack(before.lease, before.name)
            if after is not None:
                befores = self._fresh.setdefault(after.name, [])
                if before is not None:
                    befores.append(before)

    async def _take_in(self) -> None:
        """Looks at the instances that are new or changed, a few hundred in a turn.

        To read one takes too long to do it where thousands are committed at once. That a
        deadline counts from here, and not from the commit, is at most a tick to its favour.
        """
        left = limits.KEEPER_SLICE_ITEMS
        for name in list(self._fresh):
            befores = self._fresh.pop(name, [])
            entry = self._catalog.entry(name)
            if entry is not None:
                self._track(entry)
                self._heed_return([*befores, entry])
            left -= 1
            if not left:
                left = limits.KEEPER_SLICE_ITEMS
                await asyncio.sleep(0)

    # ---- deadlines -------------------------------------------------------------------------

    def _tick(self) -> None:
        """Looks at the clock."""
        now = self._node.clock()
        due = self._liveness.due(now, limits.LIVENESS_TURN_MAX)
        fell: dict[ServiceName, list[int]] = {}
        for lease in due.silent:
            self._todo[lease] = None
            fell.setdefault(self._names[lease].of, []).append(lease)
        for service, leases in fell.items():
            watched = self._services[service]
            if not watched.guard.engaged:
                watched.guard.settings = self._catalog.settings(service)
            self._alert[service] = None
            self._decided(service, watched.guard.fell(leases, now, watched.total))
        for lease in due.overdue:
            self._overdue[lease] = None
        for service in list(self._alert):
            alerted = self._services.get(service)
            if alerted is None:
                del self._alert[service]
                continue
            self._heed_operator(service, alerted.guard)
            self._decided(service, alerted.guard.tick(now))
            self._drop_if_idle(service)
        if not self._preparing:
            # A note of which nobody knew if it was written may come when its guard has ended.
            for service in self._catalog.guards:
                if not self._is_engaged(service):
                    self._notes[service] = None

    def _heed_operator(self, service: ServiceName, guard: Guard) -> None:
        """A guard whose note was deleted is lifted; one whose note says so is confirmed."""
        if not guard.engaged or service not in self._written:
            return
        note = self._catalog.guards.get(service)
        if note is None:
            self._decided(service, guard.lift())
        elif note.told.get("state") == CONFIRMED:
            self._decided(service, guard.confirm())

    def _decided(self, service: ServiceName, decision: Decision | None) -> None:
        """Acts on what the guard of a service decided."""
        if self._services[service].guard.engaged:
            self._notes[service] = None
        if decision is None:
            return
        verdict, leases = decision
        self._notes[service] = None
        if verdict is Verdict.ENGAGED:
            leases += self._hold_on(self._services[service])
        self._todo.update(dict.fromkeys(leases))
        if verdict.ends:
            self._services[service].let_go = leases
            _LOG.warning(
                "guard of %s: %s, %d instances let go", service, verdict.value, len(leases)
            )
            confirmed = verdict is Verdict.CONFIRMED
            if confirmed:
                self._confirmed.update(leases)
            self._liveness.let_go(leases, self._node.clock(), gone=confirmed)
        else:
            if verdict is Verdict.ENGAGED:
                _LOG.warning(
                    "guard of %s: %d of %d instances fell silent at once; they are held",
                    service,
                    len(leases),
                    self._services[service].total,
                )
            self._liveness.hold(leases)
            for lease in leases:
                self._overdue.pop(lease, None)

    def _hold_on(self, watched: _Watched) -> tuple[int, ...]:
        """Holds whom the guard let go when it ended, if nobody was told before it engages again.

        To others the guard has held all the time: its note stands, and these are marked stale.
        """
        guard, again = watched.guard, []
        for lease in watched.let_go:
            entry = self._entry(lease) if lease not in guard else None
            if entry is None or entry.instance is None or not entry.instance.stale:
                continue
            if self._liveness.is_silent(lease) and lease not in self._confirmed:
                again.append(lease)
        guard.hold_too(again)
        return tuple(again)

    def _pulse(self, lease: int) -> Pulse:
        """What is known of an instance's heartbeats."""
        if not self._liveness.is_silent(lease):
            return Pulse.BEATING
        if lease in self._services[self._names[lease].of].guard:
            return Pulse.HELD
        return Pulse.CONFIRMED if lease in self._confirmed else Pulse.SILENT

    # ---- writing ---------------------------------------------------------------------------

    async def _keep(self) -> None:
        """The duty, until this member leads no more."""
        while True:
            try:
                if self._preparing:
                    await self._prepare()
                await self._take_in()
                # All who are due, before anything is decided: the guard judges by their number.
                self._tick()
                while self._liveness.has_due(self._node.clock()):
                    await asyncio.sleep(0)
                    self._tick()
                began = self._node.clock()
                more = await self._write()
                # Others have half of the time: their writes wait behind each batch.
                took_s = self._node.clock() - began if more else limits.KEEPER_TICK_S
                await asyncio.sleep(min(took_s, limits.KEEPER_TICK_S))
            except EtcdError as error:
                _LOG.info("keeper: %s; trying again", error)
                await asyncio.sleep(limits.KEEPER_RETRY_S)
            except Exception:
                _LOG.exception("keeper failed; trying again")
                await asyncio.sleep(limits.KEEPER_RETRY_S)

    async def _write(self) -> bool:
        """Proposes what has to be written; True if there may be more of it.

        Deletions go by themselves: they are possible when the database is full.
        """
        more = await self._propose(self._deletions())
        more = await self._propose(self._puts()) or more
        age_ms = self._node.wall_ms() - self._node.machine.clock_ms
        if self._catalog.instances and age_ms >= limits.CLOCK_STEP_S * 1000:
            await self._node.submit_batch([], if_term=self._node.term)
        return more

    async def _propose(self, source: Iterator[tuple[int, BatchItem | None]]) -> bool:
        """Proposes one batch of (lease, item); True if it took all that fits.

        Where an item is None, one was looked at and there is nothing to write.
        """
        items: list[BatchItem] = []
        leases: list[int] = []
        size = 0
        full = False
        for number, (lease, item) in enumerate(source, 1):
            if number % limits.KEEPER_SLICE_ITEMS == 0:
                await asyncio.sleep(0)
            if item is None:
                continue
            items.append(item)
            leases.append(lease)
            size += len(item.key) + len(item.value)
            full = len(items) >= limits.KEEPER_BATCH_ITEMS or size >= limits.KEEPER_BATCH_BYTES
            if full:
                break
        if not items:
            return False
        try:
            answer = await self._node.submit_batch(items, if_term=self._node.term)
        except EtcdError:
            for lease, item in zip(leases, items, strict=True):
                self._again(lease, item)
            raise
        for lease, item, outcome in zip(leases, items, answer.outcomes, strict=True):
            if outcome.failure is not BatchFailure.NONE:
                self._again(lease, item)
            elif not lease and item.action is BatchAction.PUT_KEEP:
                self._written[service_of_key(item.key, GUARDS_PREFIX)] = item.value
        return full

    def _again(self, lease: int, item: BatchItem) -> None:
        """An item was not written, or who knows: it is compared again with the next tick.

        A removal comes up again by itself.
        """
        if not lease:
            self._notes[service_of_key(item.key, GUARDS_PREFIX)] = None
        elif item.action is BatchAction.PUT_KEEP and lease in self._names:
            self._todo[lease] = None

    def _deletions(self) -> Iterator[tuple[int, BatchItem | None]]:
        """Takes what has to be deleted, one by one."""
        for service in list(self._notes):
            if not self._is_engaged(service):
                del self._notes[service]
                self._written.pop(service, None)
                if service in self._catalog.guards:
                    yield 0, BatchItem(guard_key(service), ANY_REVISION, BatchAction.DELETE)
        # Who is confirmed to be gone is DOWN first, unless an alarm may forbid to write that.
        down_first = self._confirmed if not self._node.machine.alarms else ()
        for lease in list(self._overdue):
            if (lease in self._todo and lease in down_first) or self._is_said_to_be_held(lease):
                continue
            if lease in self._overdue:
                del self._overdue[lease]
                yield lease, self._removal_item(lease)

    def _puts(self) -> Iterator[tuple[int, BatchItem | None]]:
        """Takes what has to be put, one by one; what is as it should be is dropped."""
        now_ms = self._node.wall_ms()
        for service in list(self._notes):
            if self._is_engaged(service):
                del self._notes[service]
                yield 0, self._note_item(service, now_ms)
        for lease in list(self._todo):
            if lease in self._todo and not self._is_said_to_be_held(lease):
                del self._todo[lease]
                yield lease, self._pulse_item(lease, now_ms)

    def _is_engaged(self, service: ServiceName) -> bool:
        watched = self._services.get(service)
        return watched is not None and watched.guard.engaged

    def _is_said_to_be_held(self, lease: int) -> bool:
        """Whether the guard ended so lately that its note still stands, which has to go first."""
        name = self._names.get(lease)
        return (
            name is not None
            and name.of in self._notes
            and name.of in self._catalog.guards
            and not self._is_engaged(name.of)
        )

    def _pulse_item(self, lease: int, now_ms: int) -> BatchItem | None:
        entry = self._known_entry(lease)
        if entry is None or entry.instance is None:
            return None
        after = after_pulse(entry.instance, self._pulse(lease), now_ms)
        if after is entry.instance:
            return None
        return BatchItem(
            instance_key(entry.name),
            entry.revision,
            BatchAction.PUT_KEEP,
            encode(after),
            reason=after.reason.line,
        )

    def _removal_item(self, lease: int) -> BatchItem | None:
        entry = self._known_entry(lease)
        if entry is None or entry.instance is None or self._pulse(lease) is Pulse.HELD:
            return None
        self._node.expiring((lease,))
        reason = expired(entry.instance).line
        return BatchItem(
            instance_key(entry.name), entry.revision, BatchAction.DELETE, reason=reason
        )

    def _entry(self, lease: int) -> Entry | None:
        """The instance on a lease, as it is now."""
        name = self._names.get(lease)
        entry = self._catalog.entry(name) if name is not None else None
        return entry if entry is not None and entry.lease == lease else None

    def _known_entry(self, lease: int) -> Entry | None:
        """The same; None, too, while its newest state has not been taken in.

        That may say that it was heard of. Taking it in has the instance looked at again.
        """
        entry = self._entry(lease)
        return None if entry is None or entry.name in self._fresh else entry

    def _note_item(self, service: ServiceName, now_ms: int) -> BatchItem | None:
        """What stands under the key of a service whose guard is engaged."""
        watched = self._services[service]
        guard = watched.guard
        note = self._catalog.guards.get(service)
        before = note.told if note is not None else {}
        if service in self._written and (note is None or before.get("state") == CONFIRMED):
            return None  # An operator has ended it: the next tick will see that.
        left_ms = int((guard.until - self._node.clock()) * 1000)
        told = {
            "since": before.get("since") or rfc3339(now_ms),
            "until": before.get("until") or rfc3339(now_ms + left_ms),
            "silent": len(guard.held),
            "of": watched.total,
            "held_by": self._node.config.name,
            "state": _HOLDING,
        }
        value = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
        if self._written.get(service) == value:
            return None
        expected = note.revision if note is not None else ABSENT
        return BatchItem(guard_key(service), expected, BatchAction.PUT_KEEP, value)


def _is_silent(entry: Entry) -> bool:
    instance = entry.instance
    return instance is not None and (instance.silent or instance.stale)
