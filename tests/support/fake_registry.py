"""A registry in memory behind a real gRPC port: what the client's tests need of a cluster.

Outages, lost registrations and members that are behind can be had at once and at will, which no
real server offers. What the real one answers is tested with the real one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from kvstore.pb import registry_pb2 as pb

_SERVICE = "kvstore.registry.v1.Registry"
_STREAMS = {"Watch": "unary_stream", "HeartbeatStream": "stream_stream"}
_ROUTABLE = (pb.UP, pb.DEGRADED)


class FakeRegistry:
    """One member; `stop` and `start` again (on the same port) make an outage."""

    def __init__(self) -> None:
        self.instances: dict[str, Any] = {}
        self.revision = 1
        self.cluster_id = 7
        self.no_leader = False
        self.heartbeats: list[tuple[int, ...]] = []
        self.registered: list[Any] = []
        """Every registration that came, as it came."""
        self.acked: dict[str, int] = {}
        self.fail: dict[str, tuple[grpc.StatusCode, str]] = {}
        """Method -> the status that it answers with."""
        self.watches_opened: list[Any] = []
        self.kept_deltas = True
        """A watch with a revision goes on there; else it begins with a snapshot."""
        self.subscribers: set[str] = set()
        """Who watches with an id: these are waited for."""
        self._history: list[Any] = []
        self._changed = threading.Condition()
        self._epoch = 0
        self._server: grpc.Server | None = None
        self.port = 0
        self.start()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        server = grpc.server(
            ThreadPoolExecutor(64, "fake-registry"), options=[("grpc.so_reuseport", 0)]
        )
        names = [method.name for method in pb.DESCRIPTOR.services_by_name["Registry"].methods]
        handlers = {name: self._handler(name) for name in names}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        self._server = server

    def stop(self) -> None:
        if self._server is not None:
            with self._changed:
                self._epoch += 1
                self._changed.notify_all()
            self._server.stop(None).wait()
            self._server = None

    def change(self, work: Callable[[], None]) -> None:
        """Do something to the fields, and wake who watches."""
        with self._changed:
            work()
            self._changed.notify_all()

    def put(self, instance: Any, event: str = "updated") -> Any:
        """Write an instance."""
        with self._changed:
            self.revision += 1
            instance.mod_revision = self.revision
            instance.routable = instance.status in _ROUTABLE
            instance.name.namespace = instance.name.namespace or "default"
            self.instances[instance.name.id] = instance
            self._tell(instance, event, gone=False)
        return instance

    def remove(self, id: str, event: str = "deregistered") -> Any:
        """Delete an instance; the one that there was."""
        with self._changed:
            last = self.instances.pop(id, None)
            if last is not None:
                self.revision += 1
                self._tell(last, event, gone=True)
        return last

    def _tell(self, instance: Any, event: str, *, gone: bool) -> None:
        told = pb.InstanceEvent(
            event=event,
            reason=pb.Reason(code=event),
            revision=self.revision,
            instance=instance,
            left=gone or not instance.routable,
        )
        self._history.append(told)
        self._changed.notify_all()

    def _header(self) -> Any:
        return pb.Header(
            cluster_id=self.cluster_id,
            member_id=1,
            revision=self.revision,
            no_leader=self.no_leader,
        )

    # The methods.

    def _handler(self, name: str) -> Any:
        method = pb.DESCRIPTOR.services_by_name["Registry"].methods_by_name[name]
        kind = _STREAMS.get(name, "unary_unary")
        behavior = getattr(self, f"_{name}", None)

        def serve(request: Any, context: Any) -> Any:
            failure = self.fail.get(name)
            if failure is not None:
                context.abort(*failure)
            if behavior is None:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the fake has no {name}")
            return behavior(request, context)

        def stream(request: Any, context: Any) -> Iterator[Any]:
            failure = self.fail.get(name)
            if failure is not None:
                context.abort(*failure)
            yield from getattr(self, f"_{name}")(request, context)

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            serve if kind == "unary_unary" else stream,
            request_deserializer=getattr(pb, method.input_type.name).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _Register(self, request: Any, context: Any) -> Any:
        wanted = request.instance
        if not wanted.ports:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the instance has no port")
        with self._changed:
            self.registered.append(wanted)
            instance = pb.Instance()
            instance.CopyFrom(wanted)
            name = instance.name
            name.id = name.id or f"{name.service}-{len(self.registered):016x}"
            instance.ttl_s = instance.ttl_s or 10
            instance.reported = instance.reported or pb.UP
            before = self.instances.get(name.id)
            instance.lease = before.lease if before else 1000 + len(self.registered)
            instance.status = instance.override or instance.reported
            self.put(instance, "updated" if before else "registered")
            return pb.RegisterResponse(
                header=self._header(), instance=instance, created=before is None
            )

    def _Heartbeat(self, request: Any, context: Any) -> Any:
        self.heartbeats.append(tuple(request.leases))
        by_lease = {each.lease: each.ttl_s for each in self.instances.values()}
        ttls = [by_lease.get(lease, 0) for lease in request.leases]
        ttls += [getattr(self.instances.get(n.id), "ttl_s", 0) for n in request.instances]
        return pb.HeartbeatResponse(header=self._header(), ttl_s=ttls)

    def _HeartbeatStream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            yield self._Heartbeat(request, context)

    def _Deregister(self, request: Any, context: Any) -> Any:
        last = self.remove(request.name.id)
        response = pb.DeregisterResponse(header=self._header(), existed=last is not None)
        if last is not None:
            response.last.CopyFrom(last)
        if request.HasField("wait"):
            with self._changed:
                revision = self.revision
                complete = self._changed.wait_for(
                    lambda: all(self.acked.get(s, 0) >= revision for s in self.subscribers),
                    request.wait.timeout_ms / 1000,
                )
                behind = [s for s in self.subscribers if self.acked.get(s, 0) < revision]
                response.acknowledged.CopyFrom(
                    pb.Acknowledged(
                        complete=complete,
                        acknowledged=len(self.subscribers) - len(behind),
                        laggards=[pb.Subscriber(id=each, member_id=1) for each in behind],
                    )
                )
        return response

    def _SetStatus(self, request: Any, context: Any) -> Any:
        instance = self.instances.get(request.name.id)
        if instance is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such instance")
        changed = pb.Instance()
        changed.CopyFrom(instance)
        if request.WhichOneof("what") == "reported":
            changed.reported = request.reported
        changed.status = changed.override or changed.reported
        return pb.SetStatusResponse(header=self._header(), instance=self.put(changed))

    def _GetInstances(self, request: Any, context: Any) -> Any:
        return pb.GetInstancesResponse(
            header=self._header(),
            instances=[each for each in self.instances.values() if each.routable],
            service_revision=self.revision,
        )

    def _Ack(self, request: Any, context: Any) -> Any:
        with self._changed:
            known = request.subscriber_id in self.subscribers
            if known:
                self.acked[request.subscriber_id] = request.revision
            self._changed.notify_all()
        return pb.AckResponse(header=self._header(), known=known)

    def _Watch(self, request: Any, context: Any) -> Iterator[Any]:
        with self._changed:
            self.watches_opened.append(request)
            epoch = self._epoch
            if request.subscriber_id:
                self.subscribers.add(request.subscriber_id)
            told = len(self._history)
            goes_on = bool(request.after_revision) and self.kept_deltas
            if goes_on:
                missed = [e for e in self._history if e.revision > request.after_revision]
                first = pb.WatchResponse(
                    header=self._header(),
                    revision=self.revision,
                    events=missed,
                    is_progress=not missed,
                )
            else:
                first = pb.WatchResponse(
                    header=self._header(),
                    revision=self.revision,
                    is_snapshot=True,
                    snapshot=[each for each in self.instances.values() if each.routable],
                )
        yield first
        context.add_callback(lambda: self.change(lambda: None))
        try:
            while context.is_active():
                with self._changed:
                    while (
                        len(self._history) == told and self._epoch == epoch and context.is_active()
                    ):
                        self._changed.wait()
                    if self._epoch != epoch:
                        return
                    events = self._history[told:]
                    told = len(self._history)
                    response = pb.WatchResponse(
                        header=self._header(), revision=self.revision, events=events
                    )
                if events:
                    yield response
        finally:
            with self._changed:
                self.subscribers.discard(request.subscriber_id)
                self._changed.notify_all()
