"""The registry of the blocking client: `client.registry`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

import grpc

from kvstore.client.call import Effect, Unary
from kvstore.client.methods import adopt
from kvstore.client.registry import convert, operations
from kvstore.client.registry.answers import HeartbeatResult
from kvstore.client.registry.balancers import Balancer
from kvstore.client.registry.blocking.registration import Heart, Registration
from kvstore.client.registry.blocking.resolver import Resolver
from kvstore.client.registry.blocking.watch import RegistryWatch
from kvstore.client.registry.failures import Failure, judge
from kvstore.client.registry.limits import DRAIN_S
from kvstore.client.registry.outliers import Outliers
from kvstore.client.registry.registration import wanted_instance
from kvstore.client.registry.resolving import Toolbox, subscriber_name
from kvstore.client.registry.retries import RetryBudget, RetryPolicy
from kvstore.client.registry.stream import Cursor, heartbeat_stream
from kvstore.client.registry.values import DEFAULT_NAMESPACE, HEALTHY, Check, Selection, Status
from kvstore.client.streams import Stream
from kvstore.pb import registry_pb2 as pb

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("Registry",)

P = ParamSpec("P")
T = TypeVar("T")


class _Stops(Protocol):
    def _stop(self) -> None: ...


def _blocking(build: Callable[P, Unary[T]]) -> Callable[Concatenate[Registry, P], T]:
    def method(self: Registry, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._client.call(build(*args, **kwargs))

    adopt(method, build)
    return method


class Registry:
    """The service registry; may be shared by threads."""

    register_instance = _blocking(operations.register_instance)
    heartbeat = _blocking(operations.heartbeat)
    deregister = _blocking(operations.deregister)
    set_status = _blocking(operations.set_status)
    drain = _blocking(operations.drain)
    get_instances = _blocking(operations.get_instances)
    list_services = _blocking(operations.list_services)
    ack = _blocking(operations.ack)
    explain = _blocking(operations.explain)
    history = _blocking(operations.history)
    end_guard = _blocking(operations.end_guard)
    set_settings = _blocking(operations.set_settings)
    get_settings = _blocking(operations.get_settings)
    create_namespace = _blocking(operations.create_namespace)
    delete_namespace = _blocking(operations.delete_namespace)
    list_namespaces = _blocking(operations.list_namespaces)

    def __init__(self, client: Client) -> None:
        self._client = client
        self._heart = Heart(client)
        self._lock = threading.Lock()
        self._open: set[_Stops] = set()

    def register(
        self,
        service: str,
        *,
        port: int | None = None,
        ports: Mapping[str, int] | None = None,
        address: str | None = None,
        id: str = "",
        namespace: str = DEFAULT_NAMESPACE,
        ttl: int = 10,
        grace: int = 30,
        drain: float = DRAIN_S,
        tags: Iterable[str] = (),
        zone: str = "",
        region: str = "",
        version: str = "",
        weight: int = 1,
        metadata: Mapping[str, str] | None = None,
        status: Status = Status.UP,
        checks: Iterable[Check] = (),
        handle_sigterm: bool = False,
        required: bool = True,
        timeout: float | None = None,
    ) -> Registration:
        """Register an instance of `service` and keep it so: heartbeats in the background, and a
        new registration when the cluster has lost or forgotten it.

        `with client.registry.register("payment", port=8080): ...`

        `port` is its only port, or `ports` are by name, the main one first. Without `address` it
        is the own address from which the cluster is reached. `ttl`, `grace`, `drain`: seconds
        until a silent instance is DOWN, until it is then removed, and for which a stopping one
        waits. `handle_sigterm`: at a SIGTERM the instance is deregistered first; once all who
        watch know it, or the drain time is over, the handler of before (or the default) gets the
        signal. `required=False`: no error when the cluster is away now; it registers later.
        """
        wanted = wanted_instance(
            service,
            endpoint=self._client._rotation.current,
            port=port,
            ports=ports,
            address=address,
            id=id,
            namespace=namespace,
            ttl=ttl,
            grace=grace,
            drain=drain,
            tags=tags,
            zone=zone,
            region=region,
            version=version,
            weight=weight,
            metadata=metadata,
            status=status,
            checks=checks,
        )
        self._client._check_usable()
        registration = Registration(self._client, wanted, drain)
        self._heart.keep(
            registration, required=required, handle_sigterm=handle_sigterm, timeout=timeout
        )
        return registration

    def resolver(
        self,
        service: str,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        selection: Selection = HEALTHY,
        subscriber: str | None = None,
        balancer: Balancer | None = None,
        outliers: Outliers | None = None,
        retry: RetryPolicy | None = None,
        budget: RetryBudget | None = None,
        judge: Callable[[BaseException], Failure] = judge,
    ) -> Resolver:
        """The instances of `service`, kept at hand; picks and calls them.

        `balancer` (default RoundRobin) chooses, `outliers` leaves out who keeps failing, `retry`
        and `budget` say how often a failed call is made again, `judge` reads exceptions.
        `subscriber` is the id under which changes are acknowledged (default: host, process and
        chance; "": they are not, and nobody waits for this resolver).
        """
        tools = Toolbox.make(
            balancer=balancer,
            outliers=outliers,
            retry=retry,
            budget=budget,
            judge=judge,
            random=self._client._random,
            clock=self._client._clock,
        )
        self._client._check_usable()
        return Resolver(
            self._client,
            namespace=namespace,
            service=service,
            selection=selection,
            subscriber=subscriber_name() if subscriber is None else subscriber,
            tools=tools,
        )

    def watch(
        self,
        service: str = "",
        *,
        namespace: str = DEFAULT_NAMESPACE,
        selection: Selection = HEALTHY,
        after_revision: int = 0,
        subscriber: str = "",
        timeout: float | None = None,
    ) -> RegistryWatch:
        """Instances of a service, then each change, until canceled.

        Without `service`: of all services of the namespace; of all namespaces if that is "*".
        `after_revision` goes on there, if the server still can. `subscriber` is the id under which
        each update is acknowledged once it was handed out or buffered, so that writers can wait.
        """
        self._client._check_usable()
        cursor = Cursor(
            namespace=namespace,
            service=service,
            selection=selection,
            subscriber=subscriber,
            after_revision=after_revision,
        )
        watch = RegistryWatch(self._client, cursor)
        try:
            watch._wait_established(self._client._timeout_s if timeout is None else timeout)
        except BaseException:
            watch.cancel()
            raise
        return watch

    def heartbeat_stream(self, batches: Iterable[Sequence[int]]) -> Iterator[HeartbeatResult]:
        """Heartbeats by lease, batch after batch over one stream; an answer for each, in order.

        Ends with `batches`, or with the error of the member that served it: there is no failover.
        """
        client = self._client
        endpoint = client._rotation.current
        call = Stream(
            heartbeat_stream(client._channel(endpoint))(
                (pb.HeartbeatRequest(leases=leases) for leases in batches),
                metadata=client._metadata,
            )
        )
        try:
            for message in call:
                yield convert.heartbeat_result(message)
        except grpc.RpcError as failure:
            raise client._failure(failure, endpoint, Effect.READ) from None
        finally:
            call.cancel()

    # Inside.

    def _add(self, part: _Stops) -> None:
        with self._lock:
            self._open.add(part)

    def _forget(self, part: _Stops) -> None:
        with self._lock:
            self._open.discard(part)

    def _close(self) -> None:
        """End whatever runs in the background; the client's `close` calls it."""
        with self._lock:
            parts = list(self._open)
        self._heart.close()
        for part in parts:
            part._stop()
