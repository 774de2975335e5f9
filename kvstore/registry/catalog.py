"""What there is: every member's view of all services, always in memory, fed by what is applied.

Rules:
1. *In step.* A change is in the catalog before whoever asked for it is answered here.
2. *Bytes first.* The JSON of an instance is kept as it is stored, and read when somebody asks.
   A value that is no instance stands there with its problem; it is reported, never fatal.
3. *Only answers count.* The revision of a service moves, and its subscribers are told, when its
   answer changes: not when the same value is written again, not when another service changes.
4. It answers from what it has, whether there is a leader or not.

Too much to be listed, or a state that was replaced by a snapshot, means reading anew: in slices,
while the old content goes on answering; what is applied meanwhile waits for the end of that.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kvstore.errors import STOPPED, EtcdError
from kvstore.machine import DELETE, Change, Job, View
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.pb.rpc_pb2 import RangeRequest, RangeResponse
from kvstore.registry import names
from kvstore.registry.guard import GuardSettings
from kvstore.registry.lifecycle import WRITTEN_BY_CLIENT, event_of, reason_of
from kvstore.registry.limits import REBUILD_RETRY_S, REBUILD_SLICE_INSTANCES
from kvstore.registry.model import Instance, Invalid, Reason, decode
from kvstore.registry.names import DEFAULT_NAMESPACE, InstanceName, ServiceName

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("Catalog", "Delta", "Entry", "GuardNote", "Service", "Subscription")

_LOG = logging.getLogger(__name__)
_ROOT: Final = b"/kvstore/"
_ROOT_END: Final = b"/kvstore0"


class Entry:
    """One instance as it is stored."""

    __slots__ = (
        "_instance",
        "_problem",
        "created",
        "encoded",
        "lease",
        "name",
        "revision",
        "value",
    )

    def __init__(
        self, name: InstanceName, value: bytes, revision: int, lease: int, created: int = 0
    ) -> None:
        self.name = name
        self.value = value
        """The JSON."""
        self.revision = revision
        """The key's mod revision."""
        self.lease = lease
        """What the key is attached to."""
        self.created = created
        """The key's create revision; 0: not known."""
        self.encoded: bytes | None = None
        """For the gRPC front door: the instance in its words, so that it is put so only once."""
        self._instance: Instance | None = None
        self._problem: str | None = None

    @property
    def instance(self) -> Instance | None:
        """The value, read; None if it is no instance."""
        if self._instance is None and self._problem is None:
            try:
                self._instance = decode(self.value, self.name)
            except Invalid as error:
                self._problem = str(error)
        return self._instance

    @property
    def known(self) -> Instance:
        """`instance` of an entry that is known to be one."""
        instance = self.instance
        assert instance is not None, self._problem
        return instance

    @property
    def is_read(self) -> bool:
        """Whether the value was read before; if not, `instance` takes about 40 µs."""
        return self._instance is not None or self._problem is not None

    @property
    def problem(self) -> str:
        """Why the value is no instance; empty if it is one."""
        return "" if self.instance is not None else self._problem or ""

    @property
    def owned(self) -> bool:
        """The registry gave it its lease: it is watched over, and may be guarded."""
        return self.lease != 0 and self.instance is not None and self.instance.lease == self.lease


@dataclass(slots=True)
class Service:
    """One service; not to be changed by readers."""

    name: ServiceName
    revision: int = 0
    """Of the last change of the answer."""
    entries: dict[str, Entry] = field(default_factory=dict)
    """By instance id."""

    def instances(self) -> Iterator[Instance]:
        """Those whose values can be read."""
        for entry in self.entries.values():
            instance = entry.instance
            if instance is not None:
                yield instance


class GuardNote(NamedTuple):
    """What is written down of a guard that holds instances."""

    revision: int
    told: Mapping[str, Any]
    """The JSON object; empty if it cannot be read."""


class Delta(NamedTuple):
    """One change of one service's answer."""

    revision: int
    before: Entry | None
    after: Entry | None
    """None: the instance is gone."""
    gone: Reason | None
    """Why it is gone."""

    @property
    def name(self) -> InstanceName:
        """The instance."""
        entry = self.after or self.before
        assert entry is not None
        return entry.name

    @property
    def reason(self) -> Reason:
        """Why: as the writer says; a plain put of a client need not say anything."""
        if self.gone is not None:
            return self.gone
        assert self.after is not None
        now = self.after.instance
        if now is None:
            return Reason("updated", self.after.problem)
        then = self.before.instance if self.before is not None else None
        if then is not None and (then.reason, then.changed_ms) == (now.reason, now.changed_ms):
            return WRITTEN_BY_CLIENT
        return now.reason

    @property
    def event(self) -> str:
        """The word for watchers."""
        return "registered" if self.before is None else event_of(self.reason)


Told = Callable[[Sequence[Delta] | None], None]
"""Gets the changes of one applied batch, in order; None: everything may have changed, read anew.

Called on the loop in the middle of the member's work: it only notes, or schedules.
"""


class Subscription:
    """Somebody who is told; `close` it."""

    def __init__(self, told: Told, among: dict[Subscription, None]) -> None:
        self.told = told
        self._among = among

    def close(self) -> None:
        """Ends it. Idempotent."""
        self._among.pop(self, None)


class Catalog:
    """All services of the cluster, as of what this member has applied."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._content = _Content()
        self._loading = False
        self._again = False
        self._buffer: list[Change] = []
        self._ready = asyncio.Event()
        self._in_step = asyncio.Event()
        self._everybody: dict[Subscription, None] = {}
        self._by_service: dict[ServiceName, dict[Subscription, None]] = {}

    # ---- readings --------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """False until the content was read for the first time, by a member that has `joined`.

        What a member that was just added has not got yet is not "not there".
        """
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        """Returns once there is something to answer from."""
        await self._ready.wait()

    async def wait_in_step(self) -> None:
        """Returns once it is as new as this member's state: not while it is read anew."""
        await self._in_step.wait()

    @property
    def revision(self) -> int:
        """The store's revision that the content is as of."""
        return max(self._content.revision, 0 if self._loading else self._node.revision)

    @property
    def services(self) -> Mapping[ServiceName, Service]:
        """Every service that has an instance, by name; a live view."""
        return self._content.services

    def service(self, name: ServiceName) -> Service | None:
        """One service; None if nothing is known of it."""
        return self._content.services.get(name)

    def service_revision(self, name: ServiceName) -> int:
        """When the answer for this service last changed, also if it has no instance."""
        service = self._content.services.get(name)
        return service.revision if service is not None else self._content.floor

    def entry(self, name: InstanceName) -> Entry | None:
        """One instance."""
        service = self._content.services.get(name.of)
        return service.entries.get(name.id) if service is not None else None

    def on_lease(self, lease: int) -> Entry | None:
        """The instance that the registry put on this lease."""
        entry = self._content.by_lease.get(lease)
        return entry if entry is not None and entry.owned else None

    @property
    def instances(self) -> int:
        """How many instances there are."""
        return self._content.count

    @property
    def namespaces(self) -> list[str]:
        """All namespaces there are, `default` first."""
        return [DEFAULT_NAMESPACE, *sorted(self._content.namespaces - {DEFAULT_NAMESPACE})]

    def has_namespace(self, namespace: str) -> bool:
        """Whether instances may be registered there."""
        return namespace == DEFAULT_NAMESPACE or namespace in self._content.namespaces

    def knows_namespace(self, namespace: str) -> bool:
        """Whether it makes sense to ask for it: it is declared, or there is something in it."""
        return self.has_namespace(namespace) or any(
            name.namespace == namespace for name in self._content.services
        )

    def has_settings(self, name: ServiceName) -> bool:
        """Whether a service has settings of its own that can be read."""
        return name in self._content.settings

    def settings(self, name: ServiceName) -> GuardSettings:
        """The settings of a service's guard; the defaults if there are none that can be read."""
        return self._content.settings.get(name, _DEFAULTS)

    @property
    def guards(self) -> Mapping[ServiceName, GuardNote]:
        """Services of which a guard holds instances."""
        return self._content.guards

    @property
    def checkers(self) -> frozenset[int]:
        """The members that run agentless checks, as all members see it at the same revision."""
        return self._content.checkers

    @property
    def strays(self) -> Mapping[bytes, str]:
        """Keys under the registry's prefixes that are none of its keys, and why."""
        return self._content.strays

    # ---- subscribing -----------------------------------------------------------------------

    def subscribe(self, told: Told, service: ServiceName | None = None) -> Subscription:
        """Tells of changes of one service, or of all."""
        if service is None:
            among = self._everybody
        else:
            among = self._by_service.setdefault(service, {})
        subscription = Subscription(told, among)
        among[subscription] = None
        return subscription

    def _tell(self, deltas: list[Delta]) -> None:
        for subscription in list(self._everybody):
            subscription.told(deltas)
        if not self._by_service:
            return
        by_service: dict[ServiceName, list[Delta]] = {}
        for delta in deltas:
            service = delta.name.of
            if service in self._by_service:
                by_service.setdefault(service, []).append(delta)
        for service, some in by_service.items():
            self._tell_service(service, some)

    def _tell_service(self, service: ServiceName, deltas: list[Delta] | None) -> None:
        among = self._by_service[service]
        for subscription in list(among):
            subscription.told(deltas)
        if not among:
            del self._by_service[service]

    def _tell_all_anew(self) -> None:
        for subscription in list(self._everybody):
            subscription.told(None)
        for service in list(self._by_service):
            self._tell_service(service, None)

    # ---- what the member tells -------------------------------------------------------------

    def changed(self, changes: Sequence[Change] | None) -> None:
        """What was applied (see `kvstore.node.overlay`)."""
        if changes is None:
            self.load()
            return
        if changes and not self._loading:
            # Should all be read anew, the present content is still as of this.
            self._content.revision = max(self._content.revision, changes[-1].revision)
        ours = [change for change in changes if change.key.startswith(_ROOT)]
        if self._loading:
            self._buffer += ours
        elif ours:
            self._apply(ours)

    def members_changed(self) -> None:
        """This member may have caught up so far that it is one (see `kvstore.node.overlay`)."""
        if not self._ready.is_set() and self._in_step.is_set() and self._node.joined:
            self._ready.set()
            self._tell_all_anew()

    def _apply(self, changes: Sequence[Change]) -> None:
        deltas: list[Delta] = []
        view: View | None = None
        try:
            for change in changes:
                gone: Reason | None = None
                if change.kind == DELETE and change.key.startswith(names.SERVICES_PREFIX):
                    view = view or self._node.machine.view()
                    gone = _why_gone(view, change)
                delta = self._content.take(change, gone)
                if delta is not None:
                    deltas.append(delta)
        finally:
            if view is not None:
                view.close()
        if deltas:
            self._tell(deltas)

    # ---- reading everything ----------------------------------------------------------------

    def load(self) -> None:
        """Reads the whole content anew; the present one answers until then."""
        self._buffer.clear()
        if self._loading:
            self._again = True
            return
        self._loading = True
        self._in_step.clear()
        self._again = False
        self._node.read(_read_everything, self._loaded, linearizable=False)

    def _loaded(self, content: Any, error: EtcdError | None) -> None:
        if error == STOPPED:
            return
        self._loading = False
        if error is not None or self._again:
            if error is not None:
                _LOG.info("reading the services again: %s", error)
            self._loading = True
            asyncio.get_running_loop().call_later(REBUILD_RETRY_S, self._retry)
            return
        self._content = content
        buffer, self._buffer = self._buffer, []
        for change in buffer:
            if change.revision > content.revision:
                # Nobody needs to be told why: everybody reads anew.
                self._content.take(change, Reason("deregistered"))
        content.revision = max(content.revision, self._node.revision)
        self._in_step.set()
        if self._node.joined:
            self._ready.set()
        self._tell_all_anew()

    def _retry(self) -> None:
        self._loading = False
        if not self._node.stopped:
            self.load()


_DEFAULTS = GuardSettings()


class _Content:
    """The tables themselves."""

    def __init__(self) -> None:
        self.revision = 0
        """As of which they were read."""
        self.floor = 0
        """When the answer last changed for a service that has no instance, at the latest."""
        self.services: dict[ServiceName, Service] = {}
        self.count = 0
        self.by_lease: dict[int, Entry] = {}
        """Of the keys on one lease the one that was put last."""
        self.namespaces: set[str] = set()
        self.settings: dict[ServiceName, GuardSettings] = {}
        self.guards: dict[ServiceName, GuardNote] = {}
        self.checkers: frozenset[int] = frozenset()
        self.strays: dict[bytes, str] = {}

    def take(self, change: Change, gone: Reason | None) -> Delta | None:
        """One change; what it means for a service's answer."""
        deleted = change.kind == DELETE
        kv = None if deleted else KeyValue.FromString(change.kv)
        return self.put(change.key, kv, change.revision, gone)

    def put(self, key: bytes, kv: Any, revision: int, gone: Reason | None = None) -> Delta | None:
        """A key as it is now; `kv` is None when it was deleted."""
        self.strays.pop(key, None)
        try:
            if key.startswith(names.SERVICES_PREFIX):
                return self._instance(names.split_key(key), kv, revision, gone)
            if key.startswith(names.SETTINGS_PREFIX):
                self._settings(names.service_of_key(key, names.SETTINGS_PREFIX), kv)
            elif key.startswith(names.GUARDS_PREFIX):
                self._guard(names.service_of_key(key, names.GUARDS_PREFIX), kv)
            elif key.startswith(names.NAMESPACES_PREFIX):
                self._namespace(names.namespace_of_key(key), kv)
            elif key.startswith(names.CHECKERS_PREFIX):
                member = frozenset((names.checker_of_key(key),))
                self.checkers = self.checkers - member if kv is None else self.checkers | member
        except Invalid as error:
            if kv is not None:
                self.strays[key] = str(error)
        return None

    def _instance(
        self, name: InstanceName, kv: Any, revision: int, gone: Reason | None
    ) -> Delta | None:
        service = self.services.get(name.of)
        if service is None:
            if kv is None:
                return None
            service = self.services[name.of] = Service(name.of, self.floor)
        before = service.entries.get(name.id)
        if kv is None:
            if before is None:
                return None
            del service.entries[name.id]
            self.count -= 1
            after = None
        else:
            value: bytes = kv.value
            if before is not None and (before.value, before.lease) == (value, kv.lease):
                before.revision = revision
                before.encoded = None
                return None
            after = Entry(name, value, revision, kv.lease, kv.create_revision)
            service.entries[name.id] = after
            self.count += before is None
        self._index(before, after)
        service.revision = max(service.revision, revision)
        if not service.entries:
            del self.services[name.of]
            self.floor = max(self.floor, revision)
        return Delta(revision, before, after, gone if kv is None else None)

    def _index(self, before: Entry | None, after: Entry | None) -> None:
        if before is not None and self.by_lease.get(before.lease) is before:
            del self.by_lease[before.lease]
        if after is not None and after.lease:
            self.by_lease[after.lease] = after

    def _settings(self, service: ServiceName, kv: Any) -> None:
        self.settings.pop(service, None)
        if kv is not None:
            try:
                self.settings[service] = GuardSettings.of_json(json.loads(kv.value))
            except (ValueError, RecursionError) as error:
                raise Invalid(f"the settings of {service} cannot be read: {error}") from error

    def _guard(self, service: ServiceName, kv: Any) -> None:
        if kv is None:
            self.guards.pop(service, None)
            return
        try:
            told = json.loads(kv.value)
        except (ValueError, RecursionError):
            told = {}
        self.guards[service] = GuardNote(kv.mod_revision, told if isinstance(told, dict) else {})

    def _namespace(self, namespace: str, kv: Any) -> None:
        if kv is None:
            self.namespaces.discard(namespace)
        else:
            self.namespaces.add(namespace)


def _read_everything(view: View) -> Job[_Content]:
    """The tables as of a view."""
    content = _Content()
    content.revision = content.floor = view.revision
    start = _ROOT
    while True:
        request = RangeRequest(key=start, range_end=_ROOT_END, limit=REBUILD_SLICE_INSTANCES)
        answer = yield from view.range(request)
        page = RangeResponse.FromString(answer.body)
        for kv in page.kvs:
            content.put(kv.key, kv, kv.mod_revision)
        if not page.more:
            return content
        start = page.kvs[-1].key + b"\0"
        yield


def _why_gone(view: View, change: Change) -> Reason:
    """Why a key was deleted, as the journal has it."""
    record = view.journal_at(change.revision, change.sub)
    return Reason("deregistered") if record is None else reason_of(record)
