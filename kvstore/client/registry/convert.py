"""Between protobuf messages and the registry's values, both ways. Pure."""

from __future__ import annotations

from typing import Any

from kvstore.client.registry.answers import (
    Acknowledged,
    HeartbeatResult,
    PastEvent,
    RegistryHeader,
    ServiceSummary,
    Subscriber,
    Update,
)
from kvstore.client.registry.values import (
    Check,
    CheckResult,
    GrpcCheck,
    Guard,
    HttpCheck,
    Instance,
    InstanceEvent,
    InstanceName,
    Probe,
    Reason,
    Selection,
    ServiceName,
    Settings,
    Status,
    Stray,
    TcpCheck,
)
from kvstore.pb import registry_pb2 as pb

__all__ = (
    "acknowledged",
    "check_result_to_pb",
    "event",
    "guard",
    "header",
    "heartbeat_result",
    "instance",
    "instance_name",
    "instance_name_to_pb",
    "instance_to_pb",
    "milliseconds",
    "past_event",
    "selection_to_pb",
    "service_name_to_pb",
    "settings",
    "settings_to_pb",
    "status",
    "status_to_pb",
    "stray",
    "summary",
    "update",
)


def status(number: int) -> Status:
    """The status with this number; UNKNOWN for one that this client does not know."""
    try:
        return Status(pb.Status.Name(number))
    except ValueError:
        return Status.UNKNOWN


def status_to_pb(value: Status) -> Any:
    """The number of a status."""
    return pb.Status.Value(value.value)


def milliseconds(seconds: float) -> int:
    """A duration as the protocol counts it."""
    return round(seconds * 1000)


def header(message: Any) -> RegistryHeader:
    """A `Header`."""
    return RegistryHeader(
        message.cluster_id, message.member_id, message.revision, message.no_leader
    )


def instance_name(message: Any) -> InstanceName:
    """An `InstanceName`."""
    return InstanceName(message.namespace, message.service, message.id)


def instance_name_to_pb(namespace: str, service: str, id: str) -> Any:
    return pb.InstanceName(namespace=namespace, service=service, id=id)


def service_name_to_pb(namespace: str, service: str) -> Any:
    return pb.ServiceName(namespace=namespace, service=service)


def instance(message: Any) -> Instance:
    """An `Instance`."""
    name = message.name
    return Instance(
        namespace=name.namespace,
        service=name.service,
        id=name.id,
        address=message.address,
        ports={port.name: port.number for port in message.ports},
        zone=message.zone,
        region=message.region,
        version=message.version,
        weight=message.weight if message.HasField("weight") else 1,
        tags=tuple(message.tags),
        metadata=dict(message.metadata),
        status=status(message.status),
        reported=status(message.reported),
        override=status(message.override) if message.override else None,
        silent=message.silent,
        stale=message.stale,
        routable=message.routable,
        ttl_s=message.ttl_s,
        grace_s=message.grace_s if message.HasField("grace_s") else None,
        drain_s=message.drain_s if message.HasField("drain_s") else None,
        registered_at_ms=message.registered_at_ms,
        changed_at_ms=message.changed_at_ms,
        reason=_reason(message.reason),
        check_results=tuple(map(_check_result, message.check_results)),
        checks=tuple(map(_check, message.checks)),
        lease=message.lease,
        create_revision=message.create_revision,
        mod_revision=message.mod_revision,
    )


def instance_to_pb(value: Instance) -> Any:
    """As a registration tells it: without what only answers carry."""
    return pb.Instance(
        name=instance_name_to_pb(value.namespace, value.service, value.id),
        address=value.address,
        ports=[pb.Port(name=name, number=number) for name, number in value.ports.items()],
        zone=value.zone,
        region=value.region,
        version=value.version,
        weight=value.weight,
        tags=value.tags,
        metadata=value.metadata,
        reported=status_to_pb(value.reported),
        ttl_s=value.ttl_s,
        grace_s=value.grace_s,
        drain_s=value.drain_s,
        checks=[_check_to_pb(each) for each in value.checks],
    )


def _reason(message: Any) -> Reason:
    return Reason(message.code, message.text)


def _check_result(message: Any) -> CheckResult:
    return CheckResult(message.name, status(message.status), message.output, message.checked_at_ms)


def check_result_to_pb(value: CheckResult) -> Any:
    return pb.CheckResult(
        name=value.name,
        status=status_to_pb(value.status),
        output=value.output,
        checked_at_ms=value.checked_at_ms,
    )


def _check(message: Any) -> Check:
    kind = message.WhichOneof("kind")
    probe: Probe
    if kind == "http":
        http = message.http
        probe = HttpCheck(http.url, http.method, dict(http.headers), tuple(http.expected_statuses))
    elif kind == "grpc":
        probe = GrpcCheck(message.grpc.target, message.grpc.service)
    else:
        probe = TcpCheck(message.tcp.target)
    return Check(
        probe,
        message.name,
        message.interval_ms / 1000,
        message.timeout_ms / 1000,
        message.healthy_after,
        message.unhealthy_after,
    )


def _check_to_pb(value: Check) -> Any:
    message = pb.Check(
        name=value.name,
        interval_ms=milliseconds(value.interval_s),
        timeout_ms=milliseconds(value.timeout_s),
        healthy_after=value.healthy_after,
        unhealthy_after=value.unhealthy_after,
    )
    probe = value.probe
    if isinstance(probe, HttpCheck):
        message.http.CopyFrom(
            pb.HttpCheck(
                url=probe.url,
                method=probe.method,
                headers=probe.headers,
                expected_statuses=probe.expected_statuses,
            )
        )
    elif isinstance(probe, GrpcCheck):
        message.grpc.CopyFrom(pb.GrpcCheck(target=probe.target, service=probe.service))
    else:
        message.tcp.CopyFrom(pb.TcpCheck(target=probe.target))
    return message


def selection_to_pb(value: Selection) -> Any:
    return pb.Selection(
        health=value.health.value,
        tags=value.tags,
        version=value.version,
        prefer_zone=value.prefer_zone,
        only_preferred=value.only_preferred,
        unknown_is_healthy=value.unknown_is_healthy,
    )


def event(message: Any) -> InstanceEvent:
    """An `InstanceEvent`."""
    return InstanceEvent(
        message.event,
        _reason(message.reason),
        message.revision,
        instance(message.instance),
        message.left,
    )


def past_event(message: Any) -> PastEvent:
    """A `PastEvent`."""
    return PastEvent(message.time_ms, event(message.event))


def guard(holder: Any) -> Guard | None:
    """The guard of a message that may have one."""
    if not holder.HasField("guard"):
        return None
    message = holder.guard
    return Guard(message.since_ms, message.until_ms, message.held, message.total, message.state)


def heartbeat_result(message: Any) -> HeartbeatResult:
    """A `HeartbeatResponse`."""
    return HeartbeatResult(header(message.header), tuple(message.ttl_s))


def stray(message: Any) -> Stray:
    """A `Stray`."""
    return Stray(message.key, message.problem)


def summary(message: Any) -> ServiceSummary:
    """A `ServiceSummary`."""
    return ServiceSummary(
        ServiceName(message.name.namespace, message.name.service),
        message.instances,
        message.routable,
        message.stale,
        dict(message.by_status),
        tuple(message.tags),
        tuple(message.versions),
        message.service_revision,
        guard(message),
    )


def acknowledged(holder: Any) -> Acknowledged | None:
    """What came of waiting, of a message that may tell it."""
    if not holder.HasField("acknowledged"):
        return None
    message = holder.acknowledged
    return Acknowledged(
        complete=message.complete,
        acknowledged=message.acknowledged,
        laggards=tuple(
            Subscriber(each.id, each.member_id, each.member_name, each.acked_revision)
            for each in message.laggards
        ),
        silent_members=tuple(message.silent_members),
        cannot_acknowledge=dict(message.cannot_acknowledge),
        waited_s=message.waited_ms / 1000,
    )


def update(message: Any, endpoint: str = "") -> Update:
    """A `WatchResponse` that came from `endpoint`."""
    return Update(
        header=header(message.header),
        revision=message.revision,
        is_snapshot=message.is_snapshot,
        snapshot=tuple(map(instance, message.snapshot)),
        events=tuple(map(event, message.events)),
        is_progress=message.is_progress,
        guard=guard(message),
        endpoint=endpoint,
    )


def settings(message: Any) -> Settings:
    """A `Settings`."""
    return Settings(
        **{
            name: getattr(message, name) if message.HasField(name) else None
            for name in Settings.__dataclass_fields__
        }
    )


def settings_to_pb(value: Settings) -> Any:
    told = {name: getattr(value, name) for name in Settings.__dataclass_fields__}
    return pb.Settings(**{name: given for name, given in told.items() if given is not None})
