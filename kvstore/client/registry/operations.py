"""Every unary call of the registry, once: its arguments, its request, its result.

As `kvstore.client.operations`: each function builds a `Unary`, the clients' `registry` has a
method of the same name and signature. `namespace` is "default" unless given; `timeout` is in
seconds (None: the client's default, math.inf: none); `endpoint` asks that one member only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvstore.client.call import Effect, Method, Unary
from kvstore.client.registry import convert
from kvstore.client.registry.answers import (
    AckResult,
    DeregisterResult,
    DrainResult,
    Explanation,
    Finding,
    HeartbeatResult,
    HistoryResult,
    InstancesResult,
    NamespacesResult,
    RegisterResult,
    RegistryHeader,
    ServicesResult,
    SettingsResult,
    StatusResult,
)
from kvstore.client.registry.limits import WAIT_MARGIN_S
from kvstore.client.registry.values import (
    DEFAULT_NAMESPACE,
    HEALTHY,
    CheckResult,
    Instance,
    InstanceName,
    Selection,
    Settings,
    Status,
)
from kvstore.pb import registry_pb2 as pb

_PATH = "/kvstore.registry.v1.Registry/"
_REGISTER = Method(_PATH + "Register", pb.RegisterResponse)
_HEARTBEAT = Method(_PATH + "Heartbeat", pb.HeartbeatResponse)
_DEREGISTER = Method(_PATH + "Deregister", pb.DeregisterResponse)
_SET_STATUS = Method(_PATH + "SetStatus", pb.SetStatusResponse)
_DRAIN = Method(_PATH + "Drain", pb.DrainResponse)
_GET_INSTANCES = Method(_PATH + "GetInstances", pb.GetInstancesResponse)
_LIST_SERVICES = Method(_PATH + "ListServices", pb.ListServicesResponse)
_ACK = Method(_PATH + "Ack", pb.AckResponse)
_EXPLAIN = Method(_PATH + "Explain", pb.ExplainResponse)
_HISTORY = Method(_PATH + "History", pb.HistoryResponse)
_END_GUARD = Method(_PATH + "EndGuard", pb.EndGuardResponse)
_SET_SETTINGS = Method(_PATH + "SetSettings", pb.SetSettingsResponse)
_GET_SETTINGS = Method(_PATH + "GetSettings", pb.GetSettingsResponse)
_CREATE_NAMESPACE = Method(_PATH + "CreateNamespace", pb.CreateNamespaceResponse)
_DELETE_NAMESPACE = Method(_PATH + "DeleteNamespace", pb.DeleteNamespaceResponse)
_LIST_NAMESPACES = Method(_PATH + "ListNamespaces", pb.ListNamespacesResponse)

WATCH_PATH = _PATH + "Watch"
HEARTBEAT_STREAM_PATH = _PATH + "HeartbeatStream"

__all__ = (
    "ack",
    "create_namespace",
    "delete_namespace",
    "deregister",
    "drain",
    "end_guard",
    "explain",
    "get_instances",
    "get_settings",
    "heartbeat",
    "history",
    "list_namespaces",
    "list_services",
    "register_instance",
    "set_settings",
    "set_status",
)


def register_instance(
    instance: Instance, *, timeout: float | None = None, endpoint: str = ""
) -> Unary[RegisterResult]:
    """Register an instance, or change one that is registered; the plain call, no heartbeats.

    What only answers carry (status, override, times, lease, revisions) is ignored.
    """
    # Without an id a repeated request would register a second one.
    effect = Effect.REPEATABLE if instance.id else Effect.WRITE
    return Unary(
        _REGISTER,
        pb.RegisterRequest(instance=convert.instance_to_pb(instance)),
        effect,
        lambda m: RegisterResult(convert.header(m.header), convert.instance(m.instance), m.created),
        timeout,
        endpoint,
    )


def heartbeat(
    leases: Sequence[int] = (),
    *,
    instances: Sequence[InstanceName] = (),
    timeout: float | None = None,
    endpoint: str = "",
) -> Unary[HeartbeatResult]:
    """Say that instances are alive, by lease (the fast way) or by name."""
    request = pb.HeartbeatRequest(
        leases=leases,
        instances=[convert.instance_name_to_pb(*name) for name in instances],
    )
    return Unary(_HEARTBEAT, request, Effect.READ, convert.heartbeat_result, timeout, endpoint)


def deregister(
    service: str,
    id: str,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    reason: str = "",
    wait: float | None = None,
    timeout: float | None = None,
    endpoint: str = "",
) -> Unary[DeregisterResult]:
    """Remove an instance; with `wait`, return once its subscribers know, after so many seconds
    at the latest."""
    request = pb.DeregisterRequest(
        name=convert.instance_name_to_pb(namespace, service, id), reason=reason, wait=_wait(wait)
    )
    return Unary(
        _DEREGISTER,
        request,
        # Twice is harmless: the second time it is gone already.
        Effect.REPEATABLE,
        lambda m: DeregisterResult(
            convert.header(m.header),
            m.existed,
            convert.instance(m.last) if m.HasField("last") else None,
            convert.acknowledged(m),
        ),
        timeout,
        endpoint,
        _waiting(wait),
    )


def set_status(
    service: str,
    id: str,
    *,
    reported: Status | None = None,
    override: Status | None = None,
    release: bool = False,
    check: CheckResult | None = None,
    reason: str = "",
    namespace: str = DEFAULT_NAMESPACE,
    timeout: float | None = None,
    endpoint: str = "",
) -> Unary[StatusResult]:
    """Change how an instance is; exactly one of: what it says of itself (`reported`), what an
    operator decides (`override`) or no longer decides (`release`), what a `check` found."""
    given = (reported is not None, override is not None, release, check is not None)
    if sum(given) != 1:
        raise ValueError("give one of reported, override, release and check")
    request = pb.SetStatusRequest(
        name=convert.instance_name_to_pb(namespace, service, id), reason=reason
    )
    if reported is not None:
        request.reported = convert.status_to_pb(reported)
    elif override is not None:
        request.override = convert.status_to_pb(override)
    elif check is not None:
        request.check.CopyFrom(convert.check_result_to_pb(check))
    else:
        request.release = True
    return Unary(
        _SET_STATUS,
        request,
        Effect.REPEATABLE,
        lambda m: StatusResult(convert.header(m.header), convert.instance(m.instance)),
        timeout,
        endpoint,
    )


def drain(
    service: str,
    id: str = "",
    *,
    namespace: str = DEFAULT_NAMESPACE,
    reason: str = "",
    wait: float | None = None,
    undo: bool = False,
    timeout: float | None = None,
    endpoint: str = "",
) -> Unary[DrainResult]:
    """No new requests for an instance, or without an id for all of a service; `undo` ends that.

    `wait` as in `deregister`.
    """
    request = pb.DrainRequest(
        name=convert.instance_name_to_pb(namespace, service, id),
        reason=reason,
        wait=_wait(wait),
        undo=undo,
    )
    return Unary(
        _DRAIN,
        request,
        Effect.REPEATABLE,
        lambda m: DrainResult(
            convert.header(m.header),
            tuple(map(convert.instance, m.instances)),
            convert.acknowledged(m),
        ),
        timeout,
        endpoint,
        _waiting(wait),
    )


def get_instances(
    service: str,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    selection: Selection = HEALTHY,
    linearizable: bool = False,
    timeout: float | None = None,
    endpoint: str = "",
) -> Unary[InstancesResult]:
    """The instances of a service as one member sees them.

    `linearizable` asks the leader's majority first, so that every write that was answered is seen;
    that needs a quorum.
    """
    request = pb.GetInstancesRequest(
        service=convert.service_name_to_pb(namespace, service),
        selection=convert.selection_to_pb(selection),
        linearizable=linearizable,
    )
    return Unary(
        _GET_INSTANCES,
        request,
        Effect.READ,
        lambda m: InstancesResult(
            convert.header(m.header),
            tuple(map(convert.instance, m.instances)),
            m.service_revision,
            convert.guard(m),
            tuple(map(convert.stray, m.strays)),
            m.fell_back,
        ),
        timeout,
        endpoint,
    )


def list_services(
    *,
    namespace: str = "",
    prefix: str = "",
    timeout: float | None = None,
    endpoint: str = "",
) -> Unary[ServicesResult]:
    """The services of a namespace, of all without one, whose names begin with `prefix`."""
    return Unary(
        _LIST_SERVICES,
        pb.ListServicesRequest(namespace=namespace, prefix=prefix),
        Effect.READ,
        lambda m: ServicesResult(
            convert.header(m.header),
            tuple(map(convert.summary, m.services)),
            tuple(map(convert.stray, m.strays)),
        ),
        timeout,
        endpoint,
    )


def ack(
    subscriber: str,
    service: str,
    revision: int,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    timeout: float | None = None,
    endpoint: str = "",
) -> Unary[AckResult]:
    """Tell the member that one watches at (`endpoint`) that all up to `revision` is applied."""
    request = pb.AckRequest(
        subscriber_id=subscriber,
        service=convert.service_name_to_pb(namespace, service),
        revision=revision,
    )
    return Unary(
        _ACK,
        request,
        Effect.READ,
        lambda m: AckResult(convert.header(m.header), m.known),
        timeout,
        endpoint,
    )


def explain(
    service: str,
    id: str,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    selection: Selection = HEALTHY,
    timeout: float | None = None,
    endpoint: str = "",
) -> Unary[Explanation]:
    """Why an instance gets requests, or does not, from who selects like this."""
    request = pb.ExplainRequest(
        name=convert.instance_name_to_pb(namespace, service, id),
        selection=convert.selection_to_pb(selection),
    )
    return Unary(
        _EXPLAIN,
        request,
        Effect.READ,
        lambda m: Explanation(
            convert.header(m.header),
            convert.instance(m.instance) if m.HasField("instance") else None,
            m.routable,
            tuple(Finding(each.rule, each.passes, each.text) for each in m.findings),
            tuple(map(convert.event, m.recent)),
            m.verdict,
        ),
        timeout,
        endpoint,
    )


def history(
    service: str = "",
    id: str = "",
    *,
    namespace: str = DEFAULT_NAMESPACE,
    time_ms: int | None = None,
    revision: int | None = None,
    from_revision: int = 0,
    until_revision: int = 0,
    limit: int = 0,
    newest_first: bool = False,
    timeout: float | None = None,
    endpoint: str = "",
) -> Unary[HistoryResult]:
    """What happened, from `from_revision` on and below `until_revision`; or who was there at
    `time_ms` or `revision` (that needs a service)."""
    if time_ms is not None and revision is not None:
        raise ValueError("give time_ms or revision, not both")
    request = pb.HistoryRequest(
        name=convert.instance_name_to_pb(namespace, service, id),
        from_revision=from_revision,
        until_revision=until_revision,
        limit=limit,
        newest_first=newest_first,
    )
    if time_ms is not None:
        request.time_ms = time_ms
    if revision is not None:
        request.revision = revision
    return Unary(
        _HISTORY,
        request,
        Effect.READ,
        lambda m: HistoryResult(
            convert.header(m.header),
            tuple(map(convert.past_event, m.events)),
            tuple(map(convert.instance, m.instances)),
            tuple(map(convert.instance_name, m.unknown)),
            m.as_of_revision,
            m.as_of_ms,
            m.oldest_revision,
            m.oldest_ms,
        ),
        timeout,
        endpoint,
    )


def end_guard(
    service: str,
    *,
    confirm: bool,
    namespace: str = DEFAULT_NAMESPACE,
    timeout: float | None = None,
) -> Unary[int]:
    """End the hold of a service's mass-expiry guard; returns how many instances were held.

    `confirm`: they are really gone and are removed now. Else the guard is lifted: they go DOWN
    and have their grace time again.
    """
    request = pb.EndGuardRequest(
        service=convert.service_name_to_pb(namespace, service), confirm=confirm
    )
    return Unary(_END_GUARD, request, Effect.WRITE, lambda m: int(m.held), timeout)


def set_settings(
    service: str,
    settings: Settings,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    timeout: float | None = None,
) -> Unary[RegistryHeader]:
    """Store the settings of a service; what is None has the server's default from now on."""
    request = pb.SetSettingsRequest(
        service=convert.service_name_to_pb(namespace, service),
        settings=convert.settings_to_pb(settings),
    )
    return Unary(_SET_SETTINGS, request, Effect.REPEATABLE, _header, timeout)


def get_settings(
    service: str, *, namespace: str = DEFAULT_NAMESPACE, timeout: float | None = None
) -> Unary[SettingsResult]:
    """The settings of a service."""
    return Unary(
        _GET_SETTINGS,
        pb.GetSettingsRequest(service=convert.service_name_to_pb(namespace, service)),
        Effect.READ,
        lambda m: SettingsResult(convert.header(m.header), convert.settings(m.settings), m.stored),
        timeout,
    )


def create_namespace(namespace: str, *, timeout: float | None = None) -> Unary[bool]:
    """Make a namespace; False: it was there already."""
    return Unary(
        _CREATE_NAMESPACE,
        pb.CreateNamespaceRequest(namespace=namespace),
        Effect.WRITE,
        lambda m: bool(m.created),
        timeout,
    )


def delete_namespace(namespace: str, *, timeout: float | None = None) -> Unary[bool]:
    """Remove a namespace, refused while a service is in it; False: it was not there."""
    return Unary(
        _DELETE_NAMESPACE,
        pb.DeleteNamespaceRequest(namespace=namespace),
        Effect.WRITE,
        lambda m: bool(m.existed),
        timeout,
    )


def list_namespaces(*, timeout: float | None = None) -> Unary[NamespacesResult]:
    """The namespaces that exist."""
    return Unary(
        _LIST_NAMESPACES,
        pb.ListNamespacesRequest(),
        Effect.READ,
        lambda m: NamespacesResult(convert.header(m.header), tuple(m.namespaces)),
        timeout,
    )


def _wait(wait: float | None) -> Any:
    return None if wait is None else pb.WaitForSubscribers(timeout_ms=convert.milliseconds(wait))


def _waiting(wait: float | None) -> float:
    """The shortest default deadline of a call that waits on the server, in seconds."""
    return 0.0 if wait is None else wait + WAIT_MARGIN_S


def _header(message: Any) -> RegistryHeader:
    return convert.header(message.header)
