"""An instance of a service and what belongs to it, as frozen values, and their JSON.

Times are Unix time in milliseconds where a name ends in `_ms`, durations seconds where it ends in
`_s`. Mappings are not to be changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

__all__ = (
    "DEFAULT_NAMESPACE",
    "HEALTHY",
    "NO_REASON",
    "ROUTABLE",
    "Check",
    "CheckResult",
    "GrpcCheck",
    "Guard",
    "Health",
    "HttpCheck",
    "Instance",
    "InstanceEvent",
    "InstanceName",
    "Probe",
    "Reason",
    "Selection",
    "ServiceName",
    "Settings",
    "Status",
    "Stray",
    "TcpCheck",
    "rfc3339",
    "to_json",
)

DEFAULT_NAMESPACE = "default"


class Status(StrEnum):
    """How an instance is."""

    STARTING = "STARTING"
    UP = "UP"
    DEGRADED = "DEGRADED"
    DRAINING = "DRAINING"
    """It finishes what it has; nothing new may go there."""
    OUT_OF_SERVICE = "OUT_OF_SERVICE"
    DOWN = "DOWN"
    """It has missed its heartbeats, or a check failed."""
    UNKNOWN = "UNKNOWN"


ROUTABLE = frozenset((Status.UP, Status.DEGRADED))
"""New requests may go to instances of these statuses."""


class Health(StrEnum):
    """Which instances are wanted, as to their health."""

    HEALTHY = "HEALTHY"
    """UP and DEGRADED."""
    ALL = "ALL"
    HEALTHY_OR_ELSE_ALL = "HEALTHY_OR_ELSE_ALL"
    """All of them if none is healthy: better a try than nothing."""


class ServiceName(NamedTuple):
    """A service and its namespace."""

    namespace: str
    service: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}"


class InstanceName(NamedTuple):
    """An instance and where it belongs."""

    namespace: str
    service: str
    id: str

    @property
    def of(self) -> ServiceName:
        """The service."""
        return ServiceName(self.namespace, self.service)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}/{self.id}"


class Reason(NamedTuple):
    """Why something is as it is: a word for programs, a sentence for people."""

    code: str = ""
    text: str = ""


NO_REASON = Reason()


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A GET (or `method`) of `url`; only a path: on the instance's address and main port.

    Without `expected_statuses` 200 to 299 pass, and 429 means degraded.
    """

    url: str
    method: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    expected_statuses: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """A connection to `target` (host:port; empty: the instance's address and main port)."""

    target: str = ""


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """`grpc.health.v1.Health/Check` for `service` at `target` (as of TcpCheck)."""

    target: str = ""
    service: str = ""


Probe: TypeAlias = HttpCheck | TcpCheck | GrpcCheck


@dataclass(frozen=True, slots=True)
class Check:
    """A probe and when to believe it. Zeros mean the server's defaults: 10 s, 2 s, 1 and 3."""

    probe: Probe
    name: str = ""
    """Names it among the checks of an instance; its kind (http, tcp, grpc) if empty."""
    interval_s: float = 0.0
    timeout_s: float = 0.0
    healthy_after: int = 0
    unhealthy_after: int = 0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found last."""

    name: str
    status: Status
    output: str = ""
    checked_at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance of a service. To register one: `service`, `address` and `ports` are enough."""

    service: str
    namespace: str = DEFAULT_NAMESPACE
    id: str = ""
    """Empty in a registration: the server chooses one."""
    address: str = ""
    """An IP address or a host name."""
    ports: Mapping[str, int] = field(default_factory=dict, hash=False)
    """By name; the first is the main one."""
    zone: str = ""
    region: str = ""
    version: str = ""
    weight: int = 1
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    status: Status = Status.UP
    """What counts for others: the override, else DOWN when silent, else what is reported."""
    reported: Status = Status.UP
    """What the instance says of itself."""
    override: Status | None = None
    """An operator's decision, whatever the instance says."""
    silent: bool = False
    """It has missed its heartbeats."""
    stale: bool = False
    """It is silent, but the mass-expiry guard keeps its status as it was."""
    routable: bool = True
    """New requests may go there, says the server."""
    ttl_s: int = 0
    """A heartbeat is missed after this; 0 in a registration: the server's default, 10 s."""
    grace_s: int | None = None
    """Silent for so long, it is removed; None in a registration: the server's default, 30 s."""
    drain_s: int | None = None
    registered_at_ms: int = 0
    changed_at_ms: int = 0
    reason: Reason = NO_REASON
    """Of the last change."""
    check_results: tuple[CheckResult, ...] = ()
    checks: tuple[Check, ...] = ()
    """Run by the cluster; such an instance sends no heartbeats."""
    lease: int = 0
    """What its key is attached to; a keep-alive of it is a heartbeat."""
    create_revision: int = 0
    mod_revision: int = 0

    @property
    def name(self) -> InstanceName:
        """Which one it is."""
        return InstanceName(self.namespace, self.service, self.id)

    @property
    def port(self) -> int:
        """The main port; 0 if there is none."""
        return next(iter(self.ports.values()), 0)

    @property
    def target(self) -> str:
        """`address:port`, as gRPC and URLs want it (an IPv6 address is in brackets)."""
        return self.target_of()

    def target_of(self, port: str = "") -> str:
        """`address:port` with the port of that name. Raises KeyError with what there is."""
        if port and port not in self.ports:
            raise KeyError(f"{self.name} has no port {port!r}, but {', '.join(self.ports)}")
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.ports[port] if port else self.port}"

    def url(self, path: str = "/", *, scheme: str = "http", port: str = "") -> str:
        """A URL on this instance."""
        return f"{scheme}://{self.target_of(port)}/{path.removeprefix('/')}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which instances of a service are wanted."""

    health: Health = Health.HEALTHY
    tags: tuple[str, ...] = ()
    """Those that have all of these."""
    version: str = ""
    prefer_zone: str = ""
    """Those of this zone come first."""
    only_preferred: bool = False
    """Only those of the preferred zone, if there is one that qualifies."""
    unknown_is_healthy: bool = False


HEALTHY = Selection()
"""All that are healthy."""


@dataclass(frozen=True, slots=True)
class InstanceEvent:
    """A change of one instance, as a watch and the history tell it."""

    event: str
    """registered, updated, unhealthy, recovered, drained, deregistered, expired."""
    reason: Reason
    revision: int
    instance: Instance
    """As it is now; as it was last, if it is gone."""
    left: bool = False
    """It is no longer in the answer: gone, or no longer selected."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The mass-expiry guard holds instances of a service: they are stale, and stay."""

    since_ms: int
    until_ms: int
    held: int
    total: int
    state: str


@dataclass(frozen=True, slots=True)
class Stray:
    """A key among the instances that is none, and why."""

    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a service; None: the server's default."""

    guard_enabled: bool | None = None
    guard_percent: int | None = None
    """More than this share of the instances …"""
    guard_at_least: int | None = None
    """… and at least so many …"""
    guard_window_s: int | None = None
    """… fell silent within this time: they are held …"""
    guard_hold_s: int | None = None
    """… for so long at most."""


def rfc3339(unix_ms: int) -> str:
    """Such as 2026-03-01T12:00:00.000Z."""
    seconds, ms = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03}Z"


def to_json(instance: Instance) -> dict[str, Any]:
    """The instance as it is stored and shown everywhere, with `revision` and `routable`."""
    told: dict[str, Any] = {
        "id": instance.id,
        "namespace": instance.namespace,
        "service": instance.service,
        "address": instance.address,
        "port": instance.port,
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
        "grace_s": instance.grace_s or 0,
        "registered_at": rfc3339(instance.registered_at_ms),
        "changed_at": rfc3339(instance.changed_at_ms),
        "reason": {"code": instance.reason.code, "text": instance.reason.text},
        "revision": instance.mod_revision,
        "routable": instance.routable,
    }
    if instance.drain_s is not None:
        told["drain_s"] = instance.drain_s
    if instance.lease:
        # As etcdctl writes it; no JSON number is that wide.
        told["lease"] = f"{instance.lease:x}"
    if instance.check_results:
        told["check"] = {"results": {each.name: _result(each) for each in instance.check_results}}
    if instance.checks:
        told["checks"] = list(map(_check, instance.checks))
    return told


def _result(result: CheckResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "status": str(result.status),
        "output": result.output,
        "checked_at": rfc3339(result.checked_at_ms),
    }


def _check(check: Check) -> dict[str, Any]:
    probe = check.probe
    kind = "tcp"
    told: dict[str, Any]
    if isinstance(probe, HttpCheck):
        kind = "http"
        told = {
            "url": probe.url,
            "method": probe.method,
            "headers": dict(probe.headers),
            "expected_statuses": list(probe.expected_statuses),
        }
    else:
        told = {"target": probe.target}
        if isinstance(probe, GrpcCheck):
            kind = "grpc"
            told["service"] = probe.service
    return {
        "name": check.name,
        kind: told,
        "interval_ms": round(check.interval_s * 1000),
        "timeout_ms": round(check.timeout_s * 1000),
        "healthy_after": check.healthy_after,
        "unhealthy_after": check.unhealthy_after,
    }
