"""The registry as front doors see it: register, heartbeat, deregister, status, drain, and ask.

Rules:
1. What is not as it must be is refused before anything is stored, with a sentence (`Invalid`).
2. Readings answer from this member's catalog, also without a leader. Changes go through the log.
3. Everything may be repeated: to register, deregister, drain or set the same twice is once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from kvstore.errors import Code, EtcdError
from kvstore.machine import ABSENT, BatchAction, BatchItem
from kvstore.registry import limits
from kvstore.registry.catalog import Catalog, Entry, GuardNote
from kvstore.registry.errors import CONTENDED, NO_CHECKERS, no_namespace
from kvstore.registry.explaining import Explanation, Facts, explain
from kvstore.registry.guard import GuardSettings
from kvstore.registry.heartbeats import Beaten, Heartbeats
from kvstore.registry.history import History
from kvstore.registry.keeper import CONFIRMED
from kvstore.registry.lifecycle import (
    after_override,
    after_register,
    after_report,
    after_result,
    deregistered,
)
from kvstore.registry.model import Instance, Status, check, encode
from kvstore.registry.names import (
    DEFAULT_NAMESPACE,
    InstanceName,
    Invalid,
    ServiceName,
    check_instance_id,
    check_label,
    guard_key,
    instance_key,
    namespace_key,
    settings_key,
)
from kvstore.registry.reading import Answer, Summary, read_service, summarise
from kvstore.registry.selection import HEALTHY, Selection
from kvstore.registry.subscribers import Acknowledged, Subscribers
from kvstore.registry.watching import Watching
from kvstore.registry.writing import Writer

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("Deregistered", "Drained", "Registered", "RegistryService")


class Registered(NamedTuple):
    """What registering gave."""

    entry: Entry
    created: bool
    """False: it was there before."""


class Deregistered(NamedTuple):
    """What deregistering gave."""

    last: Entry | None
    """None: it was not registered."""
    acknowledged: Acknowledged | None
    """If asked to wait."""


class Drained(NamedTuple):
    """What draining gave."""

    entries: list[Entry]
    acknowledged: Acknowledged | None


class RegistryService:
    """One member's; `watching` and `subscribers` are its other halves."""

    def __init__(self, node: Node, catalog: Catalog, history: History) -> None:
        self.node = node
        self.catalog = catalog
        self.history = history
        self.watching = Watching(node, catalog)
        self.subscribers = Subscribers(node, catalog, self.watching)
        self._writer = Writer(node, catalog)
        self._heartbeats = Heartbeats(node, catalog)

    def close(self) -> None:
        """Ends the streams, and gives up what waits."""
        self._heartbeats.close()
        self.watching.close()

    @property
    def has_leader(self) -> bool:
        """False: readings may be old, changes are refused, and nothing expires."""
        return bool(self.node.leader_id)

    # ---- instances -------------------------------------------------------------------------

    async def register(self, wanted: Instance) -> Registered:
        """Registers an instance, or changes one; without an id one is chosen.

        `ttl_s` 0 is the default. Raises Invalid, NOT_FOUND for an unknown namespace.
        """
        check_label(wanted.namespace, "namespace")
        check_label(wanted.service, "service")
        lease = self.node.new_lease_id()
        wanted = replace(
            wanted,
            id=wanted.id or f"{wanted.service}-{lease:016x}",
            ttl_s=wanted.ttl_s or limits.DEFAULT_TTL_S,
            lease=lease,
        )
        check_instance_id(wanted.id)
        check(wanted)
        encode(after_register(wanted, None, self.node.wall_ms()))
        await self._need_namespace(wanted.namespace)
        if wanted.checks:
            await self._need_checkers()
        for _ in range(limits.CHANGE_ATTEMPTS):
            await self.catalog.wait_in_step()
            registered = await self._try_to_register(wanted)
            if registered is not None:
                return registered
            wanted = replace(wanted, lease=self.node.new_lease_id())
        raise CONTENDED

    async def _need_checkers(self) -> None:
        """Raises for an instance with checks that nobody would run: it would expire."""
        if not self.catalog.checkers:
            await self._writer.catch_up()
        if not self.catalog.checkers:
            raise NO_CHECKERS

    async def _try_to_register(self, wanted: Instance) -> Registered | None:
        """None: somebody else was faster, or the lease is just ending."""
        name = wanted.name
        entry = self.catalog.entry(name)
        before = entry.instance if entry is not None else None
        action = BatchAction.PUT_NEW_LEASE
        if entry is not None and before is not None and await self._goes_on(entry, wanted):
            # It stays on its lease; who has that keeps its heartbeats going.
            action = BatchAction.PUT_KEEP
            wanted = replace(wanted, lease=entry.lease)
        after = after_register(wanted, before, self.node.wall_ms())
        if entry is not None and after is before:
            return Registered(entry, created=False)
        value = encode(after)
        revision = await self._writer.submit_one(
            BatchItem(
                instance_key(name),
                ABSENT if entry is None else entry.revision,
                action,
                value,
                0 if action is BatchAction.PUT_KEEP else after.lease,
                after.ttl_s + after.grace_s,
                after.reason.line,
            )
        )
        if not revision:
            return None
        created = revision if entry is None else entry.created
        return Registered(Entry(name, value, revision, after.lease, created), entry is None)

    async def _goes_on(self, entry: Entry, wanted: Instance) -> bool:
        """Whether the instance can stay on the lease it has, which then has its whole time."""
        before = entry.known
        same = before.ttl_s + before.grace_s == wanted.ttl_s + wanted.grace_s
        return entry.owned and same and (await self._beat(entry.name)) > 0

    async def _beat(self, name: InstanceName) -> int:
        (ttl,) = await self.heartbeat((), (name,))
        return ttl

    async def heartbeat(
        self, leases: Sequence[int], names: Sequence[InstanceName] = ()
    ) -> list[int]:
        """`beat` for coroutines."""
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

        def done(ttls: list[int] | None, error: EtcdError | None) -> None:
            if future.done():
                return
            if ttls is None:
                assert error is not None
                future.set_exception(
                    EtcdError(error.code, error.message, outcome_known=error.outcome_known)
                )
            else:
                future.set_result(ttls)

        self.beat(leases, names, done)
        return await future

    def beat(self, leases: Sequence[int], names: Sequence[InstanceName], done: Beaten) -> None:
        """Instances are alive; `done` gets a TTL for each lease, then for each name.

        0: it is not registered (any more), or not by the registry: register it again.
        """
        self._heartbeats.beat(leases, names, done)

    async def deregister(
        self, name: InstanceName, text: str = "", *, wait_s: float = 0.0
    ) -> Deregistered:
        """Removes an instance; whatever stands under its key. Can wait for subscribers."""
        reason = deregistered(_reason(text)).line
        for _ in range(limits.CHANGE_ATTEMPTS):
            entry = await self._writer.find(name)
            if entry is None:
                return Deregistered(None, None)
            revision = await self._writer.submit_one(
                BatchItem(instance_key(name), entry.revision, BatchAction.DELETE, reason=reason)
            )
            if revision:
                return Deregistered(entry, await self._acknowledged((name,), revision, wait_s))
        raise CONTENDED

    async def _acknowledged(
        self, names: Sequence[InstanceName], revision: int, wait_s: float
    ) -> Acknowledged | None:
        if not wait_s or not names:
            return None
        return await self.subscribers.wait(names, revision, min(wait_s, limits.ACK_WAIT_MAX_S))

    async def report(self, name: InstanceName, status: Status, text: str = "") -> Entry:
        """The instance says how it is, which is a sign of life, too."""
        if (await self._writer.instance(name)).owned:
            await self._beat(name)
        text = _reason(text)
        return await self._writer.change_one(
            name, lambda instance, now_ms: after_report(instance, status, text, now_ms)
        )

    async def override(self, name: InstanceName, status: Status | None, text: str = "") -> Entry:
        """An operator sets the status, or (None) gives it back to the instance."""
        text = _reason(text)
        return await self._writer.change_one(
            name, lambda instance, now_ms: after_override(instance, status, text, now_ms)
        )

    async def check_result(
        self, name: InstanceName, status: Status, output: Mapping[str, Any], text: str = ""
    ) -> Entry:
        """A check found something: {"name", "output", "checked_at"}; the worst result counts."""
        text = _reason(text)
        return await self._writer.change_one(
            name, lambda instance, now_ms: after_result(instance, status, output, text, now_ms)
        )

    async def drain(
        self,
        service: ServiceName,
        id_: str = "",
        text: str = "",
        *,
        undo: bool = False,
        wait_s: float = 0.0,
    ) -> Drained:
        """No new requests for an instance, or (without an id) for all of a service."""
        text = _reason(text)

        def change(instance: Instance, now_ms: int) -> Instance:
            if not undo:
                return after_override(instance, Status.DRAINING, text, now_ms)
            if instance.override is not Status.DRAINING:
                return instance
            return after_override(instance, None, text, now_ms)

        if id_:
            entries = [await self._writer.change_one(InstanceName(*service, id_), change)]
        else:
            await self._writer.catch_up()
            found = self.catalog.service(service)
            if found is None:
                raise EtcdError(Code.NOT_FOUND, f"registry: no instance of {service} is registered")
            names = sorted(entry.name for entry in found.entries.values())
            changed = await self._writer.change(names, change)
            entries = [changed[name] for name in names if name in changed]
        newest = max((entry.revision for entry in entries), default=0)
        names = [entry.name for entry in entries]
        return Drained(entries, await self._acknowledged(names, newest, wait_s))

    # ---- readings --------------------------------------------------------------------------

    async def instances(
        self,
        service: ServiceName,
        selection: Selection = HEALTHY,
        *,
        linearizable: bool = False,
    ) -> Answer:
        """The instances of a service; of an unknown one there are none."""
        _check_service(service)
        if linearizable:
            await self._writer.catch_up()
        await self.must_know(service.namespace)
        return await read_service(self.catalog, service, selection)

    async def services(self, namespace: str = "", prefix: str = "") -> list[Summary]:
        """All services of a namespace (of all if empty), by name."""
        if namespace:
            await self.must_know(namespace)
        return await summarise(self.catalog, namespace, prefix)

    def strays(self, namespace: str = "") -> dict[bytes, str]:
        """Keys that are none of the registry's, and why; those of a namespace, or all."""
        if not namespace:
            return dict(self.catalog.strays)
        start = f"/{namespace}/".encode()
        return {key: why for key, why in self.catalog.strays.items() if start in key}

    async def explain(self, name: InstanceName, selection: Selection = HEALTHY) -> Explanation:
        """Why an instance gets requests, or does not."""
        await self.must_know(name.namespace)
        await self.catalog.wait_ready()
        entry = self.catalog.entry(name)
        recent = await self.history.since(name, limit=limits.EXPLAIN_EVENTS, newest_first=True)
        note = self.catalog.guards.get(name.of)
        left_s = await self._lease_left_s(entry) if entry is not None else None
        facts = Facts(self.has_leader, left_s, note.told if note is not None else None)
        return explain(name, entry, recent, facts, selection)

    async def _lease_left_s(self, entry: Entry) -> int | None:
        """What is left of the lease, if the leader says so soon."""
        if not (entry.owned and self.has_leader):
            return None
        try:
            async with asyncio.timeout(limits.EXPLAIN_LEASE_S):
                return (await self.node.lease_time_to_live(entry.lease, False)).ttl
        except (EtcdError, TimeoutError):
            return None

    # ---- guards, settings, namespaces ------------------------------------------------------

    async def end_guard(self, service: ServiceName, *, confirm: bool) -> int:
        """Ends the hold of a service's guard; how many were held, 0 if there was no guard."""
        _check_service(service)
        for _ in range(limits.CHANGE_ATTEMPTS):
            await self._writer.catch_up()
            note = self.catalog.guards.get(service)
            if note is None:
                return 0
            if await self._writer.submit_one(_end_of(service, note, confirm=confirm)):
                held = note.told.get("silent", 0)
                return held if type(held) is int else 0
        raise CONTENDED

    async def set_settings(self, service: ServiceName, guard: Mapping[str, Any]) -> GuardSettings:
        """Replaces the settings of a service; without any it has the defaults again."""
        _check_service(service)
        settings = GuardSettings.of_json({"guard": guard})
        await self._need_namespace(service.namespace)
        key = settings_key(service)
        if guard:
            value = _json({"guard": dict(guard)})
            item = BatchItem(key, -1, BatchAction.PUT_KEEP, value)
        else:
            item = BatchItem(key, -1, BatchAction.DELETE)
        await self._writer.submit((item,))
        return settings

    async def create_namespace(self, namespace: str) -> bool:
        """Makes a namespace; False: it was there."""
        check_label(namespace, "namespace")
        if namespace == DEFAULT_NAMESPACE:
            return False
        item = BatchItem(namespace_key(namespace), ABSENT, BatchAction.PUT_KEEP, b"{}")
        return bool(await self._writer.submit_one(item))

    async def delete_namespace(self, namespace: str) -> bool:
        """Removes a namespace without services; False: there was none."""
        check_label(namespace, "namespace")
        if namespace == DEFAULT_NAMESPACE:
            raise Invalid(f"the namespace {namespace!r} cannot be deleted")
        await self._writer.catch_up()
        inside = sorted(name for name in self.catalog.services if name.namespace == namespace)
        if inside:
            raise EtcdError(
                Code.FAILED_PRECONDITION,
                f"registry: the namespace {namespace!r} is not empty: there are instances of "
                f"{', '.join(str(name) for name in inside[:5])}{' …' if inside[5:] else ''}",
            )
        if not self.catalog.has_namespace(namespace):
            return False
        await self._writer.submit((BatchItem(namespace_key(namespace), -1, BatchAction.DELETE),))
        return True

    async def must_know(self, namespace: str) -> None:
        """Raises NOT_FOUND for a namespace that makes no sense in a question."""
        await self.catalog.wait_ready()
        if self.catalog.knows_namespace(namespace):
            return
        check_label(namespace, "namespace")
        if self.has_leader:
            await self._writer.catch_up()
        if not self.catalog.knows_namespace(namespace):
            raise no_namespace(namespace)

    async def _need_namespace(self, namespace: str) -> None:
        """Raises NOT_FOUND for a namespace in which nothing can be stored."""
        if self.catalog.has_namespace(namespace):
            return
        await self._writer.catch_up()
        if not self.catalog.has_namespace(namespace):
            raise no_namespace(namespace)


def _end_of(service: ServiceName, note: GuardNote, *, confirm: bool) -> BatchItem:
    """The change by which an operator ends a guard (see `keeper`)."""
    key = guard_key(service)
    if not confirm:
        return BatchItem(key, note.revision, BatchAction.DELETE)
    value = _json({**note.told, "state": CONFIRMED})
    return BatchItem(key, note.revision, BatchAction.PUT_KEEP, value)


def _json(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def _check_service(service: ServiceName) -> None:
    check_label(service.namespace, "namespace")
    check_label(service.service, "service")


def _reason(text: str) -> str:
    if len(text) > limits.REASON_CHARS_MAX:
        raise Invalid(
            f"the reason is {len(text)} characters long; {limits.REASON_CHARS_MAX} are allowed"
        )
    return text
