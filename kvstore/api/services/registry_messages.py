"""Between the registry's values and the messages of kvstore.registry.v1, both ways.

An instance is put into protobuf once and kept with its entry: answers and watch responses are
then put together from bytes, however many ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from kvstore.api.encoding import encoded, length_delimited
from kvstore.checks.spec import BadCheck, check_of_json
from kvstore.checks.spec import to_json as check_to_json
from kvstore.pb import registry_pb2 as pb
from kvstore.registry import limits
from kvstore.registry.catalog import Entry, GuardNote
from kvstore.registry.guard import GuardSettings
from kvstore.registry.history import What
from kvstore.registry.model import Instance, Invalid, Reason, Status
from kvstore.registry.names import DEFAULT_NAMESPACE, InstanceName, ServiceName
from kvstore.registry.reading import Summary
from kvstore.registry.selection import Health, Selection
from kvstore.registry.subscribers import Acknowledged
from kvstore.registry.times import milliseconds, rfc3339
from kvstore.registry.watching import ALL_NAMESPACES, Event, Scope

__all__ = (
    "acknowledged_message",
    "encode_entries",
    "encoded_instances",
    "event_field",
    "fill_instance",
    "guard_message",
    "guard_settings",
    "instance_message",
    "instance_name",
    "instance_of",
    "past_event",
    "result_of",
    "scope_of",
    "selection_of",
    "service_name",
    "settings_message",
    "status_of",
    "stray_messages",
    "summary_message",
)

_NUMBERS: Final[Mapping[Status, int]] = {status: pb.Status.Value(status.name) for status in Status}
_STATUSES: Final[Mapping[int, Status]] = {number: status for status, number in _NUMBERS.items()}

# ---- requests ------------------------------------------------------------------------------


def service_name(message: Any) -> ServiceName:
    """A ServiceName; its service may be empty."""
    return ServiceName(message.namespace or DEFAULT_NAMESPACE, message.service)


def instance_name(message: Any) -> InstanceName:
    """An InstanceName; its service and id may be empty."""
    return InstanceName(message.namespace or DEFAULT_NAMESPACE, message.service, message.id)


def scope_of(message: Any) -> Scope:
    """What somebody watches: a service, a namespace, or all of them."""
    if not message.service:
        return message.namespace or DEFAULT_NAMESPACE
    if message.namespace == ALL_NAMESPACES:
        raise Invalid("a service of all namespaces cannot be watched; name one of them")
    return service_name(message)


def status_of(number: int, what: str) -> Status:
    """A status that somebody sent. Raises Invalid."""
    status = _STATUSES.get(number)
    if status is None:
        raise Invalid(f"{what}: a status is missing, one of {', '.join(Status)}")
    return status


def selection_of(message: Any) -> Selection:
    """A Selection. Raises Invalid."""
    try:
        health = Health(message.health)
    except ValueError:
        raise Invalid(
            f"selection.health is {message.health}, which is none of 0, 1 and 2"
        ) from None
    return Selection(
        health,
        tuple(sorted(set(message.tags))),
        message.version,
        message.prefer_zone,
        message.only_preferred,
        message.unknown_is_healthy,
    )


def instance_of(message: Any) -> Instance:
    """An instance to be registered; what only answers carry is left out. Raises Invalid."""
    name = instance_name(message.name)
    ports: dict[str, int] = {}
    for port in message.ports:
        if port.name in ports:
            raise Invalid(f"the port {port.name!r} is given twice")
        ports[port.name] = port.number
    reported = status_of(message.reported, "reported") if message.reported else Status.UP
    try:
        checks = tuple(check_of_json(_check_json(check)) for check in message.checks)
    except BadCheck as error:
        raise Invalid(str(error)) from None
    return Instance(
        namespace=name.namespace,
        service=name.service,
        id=name.id,
        address=message.address,
        ports=ports,
        zone=message.zone,
        region=message.region,
        version=message.version,
        weight=message.weight if message.HasField("weight") else 1,
        tags=tuple(message.tags),
        metadata=dict(message.metadata),
        reported=reported,
        ttl_s=message.ttl_s,
        grace_s=message.grace_s if message.HasField("grace_s") else limits.DEFAULT_GRACE_S,
        drain_s=message.drain_s if message.HasField("drain_s") else None,
        checks=checks,
    )


def result_of(message: Any) -> dict[str, Any]:
    """What a check found, beside its status."""
    if not message.name:
        raise Invalid("check: the check has no name")
    output = message.output.encode()[: limits.CHECK_OUTPUT_BYTES_MAX].decode(errors="ignore")
    return {
        "name": message.name,
        "output": output,
        "checked_at": rfc3339(message.checked_at_ms),
    }


def guard_settings(message: Any) -> dict[str, Any]:
    """The settings that were given, as they are stored."""
    fields = {
        "guard_enabled": "enabled",
        "guard_percent": "percent",
        "guard_at_least": "at_least",
        "guard_window_s": "window_s",
        "guard_hold_s": "hold_s",
    }
    return {
        ours: getattr(message, theirs)
        for theirs, ours in fields.items()
        if message.HasField(theirs)
    }


def _check_json(message: Any) -> dict[str, Any]:
    """A check as it is stored: the message in its JSON form."""
    kind = message.WhichOneof("kind")
    if kind is None:
        raise Invalid("a check needs exactly one of http, tcp and grpc")
    told = getattr(message, kind)
    probe: dict[str, Any]
    if kind == "http":
        probe = {
            "url": told.url,
            "method": told.method,
            "headers": dict(told.headers),
            "expected_statuses": list(told.expected_statuses),
        }
    elif kind == "tcp":
        probe = {"target": told.target}
    else:
        probe = {"target": told.target, "service": told.service}
    return {
        "name": message.name,
        kind: probe,
        "interval_ms": message.interval_ms,
        "timeout_ms": message.timeout_ms,
        "healthy_after": message.healthy_after,
        "unhealthy_after": message.unhealthy_after,
    }


# ---- answers -------------------------------------------------------------------------------


def instance_message(entry: Entry) -> Any:
    """An Instance; of what is none only its name and revision."""
    message = pb.Instance(lease=entry.lease, mod_revision=entry.revision)
    message.create_revision = entry.created
    if entry.instance is None:
        _set_name(message.name, entry.name)
    else:
        fill_instance(message, entry.instance)
    return message


def _set_name(message: Any, name: InstanceName) -> None:
    message.namespace, message.service, message.id = name


def fill_instance(message: Any, instance: Instance) -> None:
    """Puts an instance into an Instance; where it stands is left out."""
    _set_name(message.name, instance.name)
    message.address = instance.address
    for name, number in instance.ports.items():
        message.ports.add(name=name, number=number)
    message.zone = instance.zone
    message.region = instance.region
    message.version = instance.version
    message.weight = instance.weight
    message.tags.extend(instance.tags)
    message.metadata.update(instance.metadata)
    message.status = _NUMBERS[instance.status]
    message.reported = _NUMBERS[instance.reported]
    if instance.override is not None:
        message.override = _NUMBERS[instance.override]
    message.silent = instance.silent
    message.stale = instance.stale
    message.routable = instance.routable
    message.ttl_s = instance.ttl_s
    message.grace_s = instance.grace_s
    if instance.drain_s is not None:
        message.drain_s = instance.drain_s
    message.registered_at_ms = instance.registered_ms
    message.changed_at_ms = instance.changed_ms
    message.reason.code, message.reason.text = instance.reason
    _add_results(message, instance.check)
    for check in instance.checks:
        _add_check(message, check_to_json(check))


def _add_results(message: Any, check: Mapping[str, Any] | None) -> None:
    """The results of checks; of what somebody else wrote there, what can be read."""
    if check is None:
        return
    results = check.get("results")
    told = list(results.values()) if isinstance(results, Mapping) else [check]
    for each in told:
        if not isinstance(each, Mapping):
            continue
        result = message.check_results.add(
            name=str(each.get("name", "")), output=str(each.get("output", each.get("summary", "")))
        )
        status = str(each.get("status"))
        if status in Status.__members__:
            result.status = _NUMBERS[Status(status)]
        result.checked_at_ms = _time_ms(each.get("checked_at"))


def _add_check(message: Any, told: Any) -> None:
    check = message.checks.add()
    for name in ("name", "interval_ms", "timeout_ms", "healthy_after", "unhealthy_after"):
        setattr(check, name, told[name])
    if "http" in told:
        http = told["http"]
        check.http.url, check.http.method = http["url"], http["method"]
        check.http.headers.update(http["headers"])
        check.http.expected_statuses.extend(http["expected_statuses"])
    elif "grpc" in told:
        check.grpc.target, check.grpc.service = told["grpc"]["target"], told["grpc"]["service"]
    else:
        check.tcp.SetInParent()
        check.tcp.target = told["tcp"]["target"]


def _time_ms(text: Any) -> int:
    try:
        return milliseconds(str(text))
    except Invalid:
        return 0


def _encoded_instance(entry: Entry) -> bytes:
    if entry.encoded is None:
        entry.encoded = encoded(instance_message(entry))
    return entry.encoded


async def encode_entries(entries: Sequence[Entry]) -> None:
    """Puts instances into protobuf, in slices; each takes about 25 µs."""
    left = limits.READING_SLICE_INSTANCES
    for entry in entries:
        if entry.encoded is None:
            _encoded_instance(entry)
            left -= 1
            if not left:
                left = limits.READING_SLICE_INSTANCES
                await asyncio.sleep(0)


def encoded_instances(field: int, entries: Iterable[Entry]) -> bytes:
    """A repeated field of instances."""
    return b"".join(length_delimited(field, _encoded_instance(entry)) for entry in entries)


def _reason(reason: Reason) -> Any:
    return pb.Reason(code=reason.code, text=reason.text)


def event_field(field: int, event: Event) -> bytes:
    """A field with an InstanceEvent."""
    message = pb.InstanceEvent(
        event=event.event, reason=_reason(event.reason), revision=event.revision, left=event.left
    )
    body = encoded(message) + length_delimited(4, _encoded_instance(event.entry))
    return length_delimited(field, body)


def past_event(what: What) -> Any:
    """What happened to an instance."""
    event = pb.InstanceEvent(
        event=what.event,
        reason=_reason(what.reason),
        revision=what.revision,
        left=what.event in ("deregistered", "expired"),
    )
    if what.instance is None:
        _set_name(event.instance.name, what.name)
    else:
        fill_instance(event.instance, what.instance)
    event.instance.mod_revision = what.revision
    return event


def guard_message(note: GuardNote | None) -> Any:
    """A Guard; None if there is none."""
    if note is None:
        return None
    told = note.told
    return pb.Guard(
        since_ms=_time_ms(told.get("since")),
        until_ms=_time_ms(told.get("until")),
        held=_count(told.get("silent")),
        total=_count(told.get("of")),
        state=str(told.get("state", "")),
    )


def _count(told: Any) -> int:
    return told if type(told) is int and 0 <= told < 1 << 32 else 0


def stray_messages(strays: Mapping[bytes, str]) -> list[Any]:
    """Keys that are none of the registry's."""
    return [
        pb.Stray(key=key.decode("utf-8", "backslashreplace"), problem=problem)
        for key, problem in sorted(strays.items())
    ]


def summary_message(summary: Summary) -> Any:
    """One service in a list."""
    return pb.ServiceSummary(
        name=pb.ServiceName(namespace=summary.name.namespace, service=summary.name.service),
        instances=summary.instances,
        routable=summary.routable,
        stale=summary.stale,
        by_status=summary.by_status,
        tags=summary.tags,
        versions=summary.versions,
        service_revision=summary.revision,
        guard=guard_message(summary.guard),
    )


def acknowledged_message(acknowledged: Acknowledged | None) -> Any:
    """What came of waiting; None if nobody waited."""
    if acknowledged is None:
        return None
    return pb.Acknowledged(
        complete=acknowledged.complete,
        acknowledged=acknowledged.acknowledged,
        laggards=[
            pb.Subscriber(
                id=each.id,
                member_id=each.member_id,
                member_name=each.member_name,
                acked_revision=each.acked_revision,
            )
            for each in acknowledged.laggards
        ],
        silent_members=acknowledged.silent_members,
        cannot_acknowledge=acknowledged.cannot_acknowledge,
        waited_ms=acknowledged.waited_ms,
    )


def settings_message(settings: GuardSettings) -> Any:
    """The settings of a service, each of them."""
    return pb.Settings(
        guard_enabled=settings.enabled,
        guard_percent=settings.percent,
        guard_at_least=settings.at_least,
        guard_window_s=int(settings.window_s),
        guard_hold_s=int(settings.hold_s),
    )
