"""One instance of a service as a value: its fields, its statuses, and its JSON.

What is stored is one JSON object, keys sorted, as compact as can be, so that equal instances are
equal bytes. Fields that this version does not know are kept as they are.

*Status.* What an instance says of itself is `reported`; an operator may set an `override`; the
cluster finds it `silent` when its heartbeats stop. What counts for others follows from these:
`status = override, else DOWN when silent, else reported`. It is stored too, for readers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

from kvstore.checks.limits import CHECKS_MAX
from kvstore.checks.spec import BadCheck, Check, check_of_json, distinct, validate
from kvstore.checks.spec import to_json as check_to_json
from kvstore.registry import limits
from kvstore.registry.names import InstanceName, Invalid, check_label
from kvstore.registry.times import milliseconds, rfc3339

__all__ = (
    "EDS_HEALTH",
    "REGISTERED",
    "ROUTABLE",
    "Instance",
    "Invalid",
    "Reason",
    "Status",
    "check",
    "consul_status",
    "decode",
    "encode",
    "eureka_status",
    "is_routable",
    "to_json",
)


class Status(StrEnum):
    """How an instance is."""

    STARTING = "STARTING"
    UP = "UP"
    DEGRADED = "DEGRADED"
    DRAINING = "DRAINING"
    OUT_OF_SERVICE = "OUT_OF_SERVICE"
    DOWN = "DOWN"
    UNKNOWN = "UNKNOWN"


ROUTABLE: Final = frozenset((Status.UP, Status.DEGRADED))
"""New requests may go there. (UNKNOWN, too, where a policy says so.)"""

EDS_HEALTH: Final[Mapping[Status, int]] = {
    Status.STARTING: 2,
    Status.UP: 1,
    Status.DEGRADED: 5,
    Status.DRAINING: 3,
    Status.OUT_OF_SERVICE: 3,
    Status.DOWN: 2,
    Status.UNKNOWN: 0,
}
"""`envoy.config.core.v3.HealthStatus`: UNHEALTHY 2, HEALTHY 1, DEGRADED 5, DRAINING 3."""

_EUREKA = {Status.DEGRADED: "UP", Status.DRAINING: "OUT_OF_SERVICE"}
_CONSUL = {Status.UP: "passing", Status.DEGRADED: "warning", Status.UNKNOWN: ""}


def is_routable(status: Status, *, unknown: bool = False) -> bool:
    """Whether new requests may go to an instance of this status."""
    return status in ROUTABLE or (unknown and status is Status.UNKNOWN)


def eureka_status(status: Status) -> str:
    """The word that a Eureka client understands."""
    return _EUREKA.get(status, str(status))


def consul_status(status: Status) -> str:
    """The status of a Consul check; empty: there is no check."""
    return _CONSUL.get(status, "critical")


class Reason(NamedTuple):
    """Why an instance is as it is: a word for programs, a sentence for people."""

    code: str
    text: str = ""

    @property
    def line(self) -> str:
        """Both in one line, for the journal."""
        return f"{self.code}: {self.text}" if self.text else self.code

    @classmethod
    def of_line(cls, line: str) -> Reason:
        """Reads what `line` gave."""
        code, _, text = line.partition(": ")
        return cls(code, text)


REGISTERED: Final = Reason("registered")


def _empty() -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An instance; never changed, only replaced. The mappings are not to be changed either."""

    namespace: str
    service: str
    id: str
    address: str
    ports: Mapping[str, int]
    """By name, in the order given; the first is the main one."""
    zone: str = ""
    region: str = ""
    version: str = ""
    weight: int = 1
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=_empty)
    reported: Status = Status.UP
    override: Status | None = None
    silent: bool = False
    """The cluster has missed its heartbeats."""
    stale: bool = False
    """It is silent, but a guard keeps its status as it was."""
    ttl_s: int = 0
    """It has to send a heartbeat in this time; 0: it sends none."""
    grace_s: int = 0
    """It is removed when it was silent for this time."""
    drain_s: int | None = None
    lease: int = 0
    """The lease that the registry gave it; 0: not registered through the registry, so it is
    neither watched over nor guarded."""
    registered_ms: int = 0
    changed_ms: int = 0
    reason: Reason = REGISTERED
    check: Mapping[str, Any] | None = None
    """The last output of a health check."""
    checks: tuple[Check, ...] = ()
    """Run by the cluster, which then also sends the heartbeats."""
    extra: Mapping[str, Any] = field(default_factory=_empty)
    """Fields that this version does not know."""

    @property
    def name(self) -> InstanceName:
        """Which one it is."""
        return InstanceName(self.namespace, self.service, self.id)

    @property
    def status(self) -> Status:
        """What counts for others."""
        if self.override is not None:
            return self.override
        return Status.DOWN if self.silent else self.reported

    @property
    def port(self) -> int:
        """The main port."""
        return next(iter(self.ports.values()))

    @property
    def routable(self) -> bool:
        """Whether new requests may go there."""
        return self.status in ROUTABLE

    def changed(self, reason: Reason, now_ms: int, **fields: Any) -> Instance:
        """Another one with these fields, and the reason for that."""
        return replace(self, reason=reason, changed_ms=now_ms, **fields)


def to_json(instance: Instance) -> dict[str, Any]:
    """The object that is stored, and shown with `-w json`."""
    told: dict[str, Any] = {
        **instance.extra,
        "id": instance.id,
        "namespace": instance.namespace,
        "service": instance.service,
        "address": instance.address,
        "port": instance.port,
        # Sorted keys would lose which port is the main one: `port` tells.
        "ports": dict(instance.ports),
        "zone": instance.zone,
        "region": instance.region,
        "version": instance.version,
        "weight": instance.weight,
        "tags": list(instance.tags),
        "metadata": dict(instance.metadata),
        "status": str(instance.status),
        "reported": str(instance.reported),
        "override": None if instance.override is None else str(instance.override),
        "silent": instance.silent,
        "stale": instance.stale,
        "ttl_s": instance.ttl_s,
        "grace_s": instance.grace_s,
        "registered_at": rfc3339(instance.registered_ms),
        "changed_at": rfc3339(instance.changed_ms),
        "reason": {"code": instance.reason.code, "text": instance.reason.text},
    }
    if instance.drain_s is not None:
        told["drain_s"] = instance.drain_s
    if instance.lease:
        # As etcdctl writes it: `etcdctl lease keep-alive` takes it. No JSON number is that wide.
        told["lease"] = f"{instance.lease:x}"
    if instance.check is not None:
        told["check"] = dict(instance.check)
    if instance.checks:
        told["checks"] = [check_to_json(each) for each in instance.checks]
    return told


def encode(instance: Instance) -> bytes:
    """The value that is stored. Raises Invalid when it is too large."""
    value = _dump(to_json(instance))
    if len(value) > limits.VALUE_BYTES_MAX:
        raise Invalid(
            f"the instance takes {len(value)} bytes; {limits.VALUE_BYTES_MAX} are allowed"
        )
    return value


def _dump(told: Mapping[str, Any]) -> bytes:
    text = json.dumps(told, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Invalid("the instance holds text that is not Unicode") from error


def decode(value: bytes, name: InstanceName) -> Instance:
    """The instance that stands under the key of `name`. Raises Invalid if it is none."""
    if len(value) > limits.VALUE_BYTES_MAX:
        raise Invalid(f"the value takes {len(value)} bytes; {limits.VALUE_BYTES_MAX} are allowed")
    try:
        told = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the value is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise Invalid("the value is JSON, but not an object")
    for part in ("namespace", "service", "id"):
        if told.get(part, getattr(name, part)) != getattr(name, part):
            raise Invalid(f"the value tells another {part} than its key")
    instance = _Reader(told).instance(name)
    check(instance)
    return instance


class _Reader:
    """Takes the known fields out of a JSON object; what is left is unknown."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._left = dict(told)

    def instance(self, name: InstanceName) -> Instance:
        for part in ("namespace", "service", "id"):
            self._left.pop(part, None)
        ports = self._ports()
        status = self._optional("status", _status)
        override = self._optional("override", _status)
        silent = self._take("silent", _flag, False)
        reported = self._optional("reported", _status)
        return Instance(
            namespace=name.namespace,
            service=name.service,
            id=name.id,
            address=self._take("address", _text, ""),
            ports=ports,
            zone=self._take("zone", _text, ""),
            region=self._take("region", _text, ""),
            version=self._take("version", _text, ""),
            weight=self._take("weight", _number, 1),
            tags=self._take("tags", _texts, ()),
            metadata=self._take("metadata", _text_map, {}),
            # Who writes a value by hand says `status`.
            reported=reported or status or Status.UP,
            override=override,
            silent=silent,
            stale=self._take("stale", _flag, False),
            ttl_s=self._take("ttl_s", _number, 0),
            grace_s=self._take("grace_s", _number, 0),
            drain_s=self._optional("drain_s", _number),
            lease=self._take("lease", _hexadecimal, 0),
            registered_ms=self._take("registered_at", _time, 0),
            changed_ms=self._take("changed_at", _time, 0),
            reason=self._take("reason", _reason, REGISTERED),
            check=self._optional("check", _object),
            checks=self._take("checks", _checks, ()),
            extra=self._left,
        )

    def _ports(self) -> dict[str, int]:
        main = self._optional("port", _number)
        ports: dict[str, int] = self._take("ports", _number_map, {})
        if not ports:
            return {} if main is None else {"main": main}
        if main is None:
            return ports
        firsts = [name for name, number in ports.items() if number == main]
        if not firsts:
            raise Invalid(f"port is {main}, which is none of the ports")
        return {firsts[0]: main, **ports}

    def _take(self, name: str, read: Callable[[Any], Any], default: Any) -> Any:
        if name not in self._left:
            return default
        told = self._left.pop(name)
        try:
            return read(told)
        except (TypeError, ValueError) as error:
            raise Invalid(f"{name}: {error}") from error

    def _optional(self, name: str, read: Callable[[Any], Any]) -> Any:
        if self._left.get(name) is None:
            self._left.pop(name, None)
            return None
        return self._take(name, read, None)


def _of(kind: type, told: Any, wanted: str) -> Any:
    if not isinstance(told, kind) or (kind is int and isinstance(told, bool)):
        raise TypeError(f"{wanted} is expected, not {json.dumps(told)[:40]}")
    return told


def _text(told: Any) -> str:
    text: str = _of(str, told, "text")
    return text


def _flag(told: Any) -> bool:
    flag: bool = _of(bool, told, "true or false")
    return flag


def _number(told: Any) -> int:
    number: int = _of(int, told, "a whole number")
    return number


def _object(told: Any) -> dict[str, Any]:
    found: dict[str, Any] = _of(dict, told, "an object")
    return found


def _texts(told: Any) -> tuple[str, ...]:
    return tuple(map(_text, _of(list, told, "a list")))


def _text_map(told: Any) -> dict[str, str]:
    return {name: _text(value) for name, value in _object(told).items()}


def _number_map(told: Any) -> dict[str, int]:
    return {name: _number(value) for name, value in _object(told).items()}


def _checks(told: Any) -> tuple[Check, ...]:
    return tuple(map(check_of_json, _of(list, told, "a list")))


def _status(told: Any) -> Status:
    try:
        return Status(_text(told))
    except ValueError:
        raise Invalid(f"{told[:40]!r} is none of {', '.join(Status)}") from None


def _hexadecimal(told: Any) -> int:
    return int(_text(told), 16)


def _time(told: Any) -> int:
    return milliseconds(_text(told))


def _reason(told: Any) -> Reason:
    found = _object(told)
    return Reason(_text(found.get("code", "")), _text(found.get("text", "")))


def check(instance: Instance) -> None:
    """Raises Invalid, with a sentence, for what cannot be an instance."""
    _check_place(instance)
    _check_length("zone", instance.zone, limits.TEXT_CHARS_MAX)
    _check_length("region", instance.region, limits.TEXT_CHARS_MAX)
    _check_length("version", instance.version, limits.TEXT_CHARS_MAX)
    _check_length("reason", instance.reason.text, limits.REASON_CHARS_MAX)
    if not 0 <= instance.weight <= limits.WEIGHT_MAX:
        raise Invalid(f"the weight is {instance.weight}; 0 to {limits.WEIGHT_MAX} are allowed")
    if len(instance.tags) > limits.TAGS_MAX:
        raise Invalid(f"there are {len(instance.tags)} tags; {limits.TAGS_MAX} are allowed")
    for tag in instance.tags:
        _check_length("tag", tag, limits.TAG_CHARS_MAX)
    size = sum(
        len(f"{name}{value}".encode("utf-8", "replace"))
        for name, value in instance.metadata.items()
    )
    if size > limits.METADATA_BYTES_MAX:
        raise Invalid(f"the metadata takes {size} bytes; {limits.METADATA_BYTES_MAX} are allowed")
    if len(instance.checks) > CHECKS_MAX:
        raise Invalid(f"there are {len(instance.checks)} checks; {CHECKS_MAX} are allowed")
    try:
        for each in distinct(instance.checks):
            validate(each)
    except BadCheck as error:
        raise Invalid(str(error)) from None
    least = 1 if instance.lease else 0
    if not least <= instance.ttl_s <= limits.DURATION_MAX_S:
        raise Invalid(
            f"the TTL is {instance.ttl_s} s; {least} s to {limits.DURATION_MAX_S} s are allowed"
        )
    for what, duration in (("grace time", instance.grace_s), ("drain time", instance.drain_s or 0)):
        if not 0 <= duration <= limits.DURATION_MAX_S:
            raise Invalid(
                f"the {what} is {duration} s; 0 s to {limits.DURATION_MAX_S} s are allowed"
            )


def _check_place(instance: Instance) -> None:
    address = instance.address
    if not address:
        raise Invalid("the instance has no address")
    _check_length("address", address, limits.ADDRESS_CHARS_MAX)
    if not address.isascii() or not address.isprintable() or set(address) & set(" /\"'\\"):
        raise Invalid(f"the address {address!r} is neither an IP address nor a host name")
    if not instance.ports:
        raise Invalid("the instance has no port")
    if len(instance.ports) > limits.PORTS_MAX:
        raise Invalid(f"there are {len(instance.ports)} ports; {limits.PORTS_MAX} are allowed")
    for name, port in instance.ports.items():
        check_label(name, "port")
        if not 1 <= port <= 65_535:
            raise Invalid(f"the port {name} is {port}; 1 to 65535 are allowed")


def _check_length(what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise Invalid(f"the {what} is {len(text)} characters long; {most} are allowed")
