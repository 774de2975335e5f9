"""The Registry service: kvstore.registry.v1 over the registry of this member."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from kvstore.api import validation
from kvstore.api.call import Call, MethodTable, UnaryHandler
from kvstore.api.encoding import encoded
from kvstore.api.guard import Guard
from kvstore.api.services import registry_messages as messages
from kvstore.api.services.registry_heartbeats import HeartbeatSession, answer_heartbeat
from kvstore.errors import EtcdError
from kvstore.pb import registry_pb2 as pb
from kvstore.registry import limits
from kvstore.registry.errors import invalid
from kvstore.registry.history import History
from kvstore.registry.model import Invalid
from kvstore.registry.names import (
    DEFAULT_NAMESPACE,
    InstanceName,
    ServiceName,
    check_instance_id,
    check_label,
)
from kvstore.registry.service import RegistryService
from kvstore.registry.watching import ALL_NAMESPACES, Batch, Progress

__all__ = ("RegistryApi",)

_SERVICE = "/kvstore.registry.v1.Registry/"
_HISTORY_LIMIT = 100
_HISTORY_LIMIT_MAX = 10_000


class RegistryApi:
    """Every method of kvstore.registry.v1.Registry."""

    def __init__(self, registry: RegistryService, guard: Guard) -> None:
        self._registry = registry
        self._guard = guard

    def register(self, table: MethodTable) -> None:
        """Adds the service's methods; a learner serves those that only read."""
        guard = self._guard
        for name, handler, reads in (
            ("Register", self.register_instance, False),
            ("Deregister", self.deregister, False),
            ("SetStatus", self.set_status, False),
            ("Drain", self.drain, False),
            ("GetInstances", self.get_instances, True),
            ("ListServices", self.list_services, True),
            ("Ack", self.ack, True),
            ("Explain", self.explain, True),
            ("History", self.history, True),
            ("EndGuard", self.end_guard, False),
            ("SetSettings", self.set_settings, False),
            ("GetSettings", self.get_settings, True),
            ("CreateNamespace", self.create_namespace, False),
            ("DeleteNamespace", self.delete_namespace, False),
            ("ListNamespaces", self.list_namespaces, True),
        ):
            table.unary(_SERVICE + name, guard.unary(_sentences(handler), learner=reads))
        table.unary(_SERVICE + "Heartbeat", guard.unary(self.heartbeat))
        table.session(
            _SERVICE + "HeartbeatStream",
            guard.session(lambda outlet: HeartbeatSession(self._registry, self.header, outlet)),
        )
        table.stream(_SERVICE + "Watch", guard.stream(self.watch, learner=True))

    def header(self, revision: int = 0) -> Any:
        """The header of an answer; 0: as of now."""
        registry = self._registry
        return pb.Header(
            cluster_id=registry.node.cluster_id,
            member_id=registry.node.member_id,
            revision=revision or registry.catalog.revision,
            no_leader=not registry.has_leader,
        )

    # ---- instances -------------------------------------------------------------------------

    async def register_instance(self, call: Call) -> bytes:
        """Register."""
        request = validation.parse(pb.RegisterRequest, call.payload)
        if not request.HasField("instance"):
            raise Invalid("the request has no instance")
        done = await self._registry.register(messages.instance_of(request.instance))
        return encoded(
            pb.RegisterResponse(
                header=self.header(),
                instance=messages.instance_message(done.entry),
                created=done.created,
            )
        )

    def heartbeat(self, call: Call) -> None:
        """Heartbeat: answered by callback, since there are thousands in a second."""
        request = validation.parse(pb.HeartbeatRequest, call.payload)

        def done(answer: bytes, error: EtcdError | None) -> None:
            if error is None:
                call.reply(answer)
            else:
                call.fail(error)

        answer_heartbeat(self._registry, request, self.header, done)

    async def deregister(self, call: Call) -> bytes:
        """Deregister."""
        request = validation.parse(pb.DeregisterRequest, call.payload)
        name = _instance(request.name)
        done = await self._registry.deregister(
            name, request.reason, wait_s=request.wait.timeout_ms / 1000
        )
        return encoded(
            pb.DeregisterResponse(
                header=self.header(),
                existed=done.last is not None,
                last=None if done.last is None else messages.instance_message(done.last),
                acknowledged=messages.acknowledged_message(done.acknowledged),
            )
        )

    async def set_status(self, call: Call) -> bytes:
        """SetStatus."""
        request = validation.parse(pb.SetStatusRequest, call.payload)
        name = _instance(request.name)
        registry = self._registry
        match request.WhichOneof("what"):
            case "reported":
                status = messages.status_of(request.reported, "reported")
                entry = await registry.report(name, status, request.reason)
            case "override":
                status = messages.status_of(request.override, "override")
                entry = await registry.override(name, status, request.reason)
            case "release" if request.release:
                entry = await registry.override(name, None, request.reason)
            case "check":
                status = messages.status_of(request.check.status, "check")
                result = messages.result_of(request.check)
                entry = await registry.check_result(name, status, result, request.reason)
            case _:
                raise Invalid("one of reported, override, release (true) and check is needed")
        return encoded(
            pb.SetStatusResponse(header=self.header(), instance=messages.instance_message(entry))
        )

    async def drain(self, call: Call) -> bytes:
        """Drain."""
        request = validation.parse(pb.DrainRequest, call.payload)
        name = messages.instance_name(request.name)
        if name.id:
            _instance(request.name)
        done = await self._registry.drain(
            _service(request.name),
            name.id,
            request.reason,
            undo=request.undo,
            wait_s=request.wait.timeout_ms / 1000,
        )
        await messages.encode_entries(done.entries)
        body = pb.DrainResponse(
            header=self.header(), acknowledged=messages.acknowledged_message(done.acknowledged)
        )
        return encoded(body) + messages.encoded_instances(2, done.entries)

    # ---- questions -------------------------------------------------------------------------

    async def get_instances(self, call: Call) -> bytes:
        """GetInstances."""
        request = validation.parse(pb.GetInstancesRequest, call.payload)
        answer = await self._registry.instances(
            messages.service_name(request.service),
            messages.selection_of(request.selection),
            linearizable=request.linearizable,
        )
        await messages.encode_entries(answer.entries)
        body = pb.GetInstancesResponse(
            header=self.header(answer.revision),
            service_revision=answer.service_revision,
            guard=messages.guard_message(answer.guard),
            strays=messages.stray_messages(answer.strays),
            fell_back=answer.fell_back,
        )
        return encoded(body) + messages.encoded_instances(2, answer.entries)

    async def list_services(self, call: Call) -> bytes:
        """ListServices."""
        request = validation.parse(pb.ListServicesRequest, call.payload)
        found = await self._registry.services(request.namespace, request.prefix)
        strays = self._registry.strays(request.namespace)
        return encoded(
            pb.ListServicesResponse(
                header=self.header(),
                services=[messages.summary_message(each) for each in found],
                strays=messages.stray_messages(strays),
            )
        )

    async def explain(self, call: Call) -> bytes:
        """Explain."""
        request = validation.parse(pb.ExplainRequest, call.payload)
        found = await self._registry.explain(
            _instance(request.name), messages.selection_of(request.selection)
        )
        entry = found.entry
        return encoded(
            pb.ExplainResponse(
                header=self.header(),
                instance=None if entry is None else messages.instance_message(entry),
                routable=found.routable,
                findings=[
                    pb.Finding(rule=each.rule, passes=each.passes, text=each.text)
                    for each in found.findings
                ],
                recent=[messages.past_event(what) for what in found.recent],
                verdict=found.verdict,
            )
        )

    async def history(self, call: Call) -> bytes:
        """History: who was there, or what happened."""
        request = validation.parse(pb.HistoryRequest, call.payload)
        history = self._registry.history
        response = pb.HistoryResponse(header=self.header())
        oldest = await history.oldest()
        if oldest is not None:
            response.oldest_revision, response.oldest_ms = oldest
        if request.WhichOneof("at") is None:
            await _add_events(history, request, response)
        else:
            await _add_state(history, request, response)
        return encoded(response)

    # ---- watching --------------------------------------------------------------------------

    async def watch(self, call: Call) -> AsyncIterator[bytes]:
        """Watch: the state, then changes, until the client leaves."""
        request = validation.parse_streamed(pb.WatchRequest, call.payload)
        registry = self._registry
        try:
            scope = messages.scope_of(request.service)
            if isinstance(scope, ServiceName):
                check_label(scope.service, "service")
            if len(request.subscriber_id) > limits.SUBSCRIBER_ID_CHARS_MAX:
                raise Invalid(
                    f"the subscriber id is {len(request.subscriber_id)} characters long; "
                    f"{limits.SUBSCRIBER_ID_CHARS_MAX} are allowed"
                )
            if request.after_revision < 0:
                raise Invalid("after_revision is negative")
            selection = messages.selection_of(request.selection)
            namespace = scope.namespace if isinstance(scope, ServiceName) else scope
            if namespace != ALL_NAMESPACES:
                await registry.must_know(namespace)
        except Invalid as error:
            raise invalid(str(error)) from None
        subscriber = await registry.watching.subscribe(
            scope,
            selection,
            id_=request.subscriber_id,
            after_revision=request.after_revision,
        )
        try:
            while True:
                told = await subscriber.next()
                if isinstance(told, Progress):
                    yield self._progress(told)
                    continue
                if told.encoded is None:
                    await messages.encode_entries(told.entries)
                    told.encoded = self._batch(told)
                yield told.encoded
        finally:
            subscriber.close()

    def _batch(self, batch: Batch) -> bytes:
        response = pb.WatchResponse(
            header=self.header(batch.revision),
            is_snapshot=batch.is_snapshot,
            revision=batch.revision,
            guard=messages.guard_message(batch.guard),
        )
        events = b"".join(messages.event_field(4, event) for event in batch.events)
        return encoded(response) + messages.encoded_instances(3, batch.entries) + events

    def _progress(self, progress: Progress) -> bytes:
        return encoded(
            pb.WatchResponse(
                header=self.header(progress.revision),
                is_progress=True,
                revision=progress.revision,
                guard=messages.guard_message(progress.guard),
            )
        )

    async def ack(self, call: Call) -> bytes:
        """Ack."""
        request = validation.parse(pb.AckRequest, call.payload)
        if not request.subscriber_id:
            raise Invalid("the subscriber has no id")
        scope = messages.scope_of(request.service)
        known = self._registry.subscribers.ack(request.subscriber_id, scope, request.revision)
        return encoded(pb.AckResponse(header=self.header(), known=known))

    # ---- guards, settings, namespaces ------------------------------------------------------

    async def end_guard(self, call: Call) -> bytes:
        """EndGuard."""
        request = validation.parse(pb.EndGuardRequest, call.payload)
        service = messages.service_name(request.service)
        held = await self._registry.end_guard(service, confirm=request.confirm)
        return encoded(pb.EndGuardResponse(header=self.header(), held=held))

    async def set_settings(self, call: Call) -> bytes:
        """SetSettings."""
        request = validation.parse(pb.SetSettingsRequest, call.payload)
        await self._registry.set_settings(
            messages.service_name(request.service), messages.guard_settings(request.settings)
        )
        return encoded(pb.SetSettingsResponse(header=self.header()))

    async def get_settings(self, call: Call) -> bytes:
        """GetSettings."""
        request = validation.parse(pb.GetSettingsRequest, call.payload)
        service = _service(request.service)
        catalog = self._registry.catalog
        await self._registry.must_know(service.namespace)
        return encoded(
            pb.GetSettingsResponse(
                header=self.header(),
                settings=messages.settings_message(catalog.settings(service)),
                stored=catalog.has_settings(service),
            )
        )

    async def create_namespace(self, call: Call) -> bytes:
        """CreateNamespace."""
        request = validation.parse(pb.CreateNamespaceRequest, call.payload)
        created = await self._registry.create_namespace(request.namespace)
        return encoded(pb.CreateNamespaceResponse(header=self.header(), created=created))

    async def delete_namespace(self, call: Call) -> bytes:
        """DeleteNamespace."""
        request = validation.parse(pb.DeleteNamespaceRequest, call.payload)
        existed = await self._registry.delete_namespace(request.namespace)
        return encoded(pb.DeleteNamespaceResponse(header=self.header(), existed=existed))

    async def list_namespaces(self, call: Call) -> bytes:
        """ListNamespaces."""
        validation.parse(pb.ListNamespacesRequest, call.payload)
        await self._registry.catalog.wait_ready()
        namespaces = self._registry.catalog.namespaces
        return encoded(pb.ListNamespacesResponse(header=self.header(), namespaces=namespaces))


def _sentences(handler: Callable[[Call], Coroutine[Any, Any, bytes]]) -> UnaryHandler:
    """A handler that says what is wrong with a request as gRPC does."""

    async def answered(call: Call) -> bytes:
        try:
            return await handler(call)
        except Invalid as error:
            raise invalid(str(error)) from None

    return answered


def _service(message: Any) -> ServiceName:
    """The service that a request is about; it has to name one."""
    name = messages.service_name(message)
    check_label(name.namespace, "namespace")
    check_label(name.service, "service")
    return name


def _instance(message: Any) -> InstanceName:
    """The instance that a request is about; it has to name one."""
    service = _service(message)
    return InstanceName(*service, check_instance_id(message.id))


def _about(message: Any) -> InstanceName | ServiceName | str | None:
    """What a question to the past is about: an instance, a service, a namespace, everything."""
    if message.id:
        return _instance(message)
    if message.service:
        return _service(message)
    if message.namespace in ("", ALL_NAMESPACES):
        return None
    return check_label(message.namespace or DEFAULT_NAMESPACE, "namespace")


async def _add_events(history: History, request: Any, response: Any) -> None:
    if request.limit > _HISTORY_LIMIT_MAX:
        raise Invalid(f"the limit is {request.limit}; {_HISTORY_LIMIT_MAX} is allowed")
    events = await history.since(
        _about(request.name),
        revision=max(request.from_revision, 0),
        until=request.until_revision or None,
        limit=request.limit or _HISTORY_LIMIT,
        newest_first=request.newest_first,
    )
    for what in events:
        response.events.add(time_ms=what.time_ms, event=messages.past_event(what))


async def _add_state(history: History, request: Any, response: Any) -> None:
    service = _service(request.name)
    if request.WhichOneof("at") == "time_ms":
        past = await history.at(service, time_ms=request.time_ms)
    else:
        past = await history.at(service, revision=request.revision)
    response.as_of_revision, response.as_of_ms = past.revision, past.time_ms
    for then in past.instances:
        if request.name.id not in ("", then.name.id):
            continue
        if then.instance is None:
            response.unknown.add(
                namespace=then.name.namespace, service=then.name.service, id=then.name.id
            )
        else:
            messages.fill_instance(response.instances.add(), then.instance)
