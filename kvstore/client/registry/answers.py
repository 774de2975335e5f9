"""What the registry's calls return: frozen values, built once from the protobuf answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kvstore.client.registry.values import (
    Guard,
    Instance,
    InstanceEvent,
    InstanceName,
    ServiceName,
    Settings,
    Stray,
)

__all__ = (
    "AckResult",
    "Acknowledged",
    "DeregisterResult",
    "DrainResult",
    "Explanation",
    "Finding",
    "HeartbeatResult",
    "HistoryResult",
    "InstancesResult",
    "NamespacesResult",
    "PastEvent",
    "RegisterResult",
    "RegistryHeader",
    "ServiceSummary",
    "ServicesResult",
    "SettingsResult",
    "StatusResult",
    "Subscriber",
    "Update",
)


@dataclass(frozen=True, slots=True)
class RegistryHeader:
    """Who answered, and as of which revision of the store."""

    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0
    no_leader: bool = False
    """The member had no leader: the answer may be old."""


@dataclass(frozen=True, slots=True)
class RegisterResult:
    """An instance is registered; not `created`: it was there before."""

    header: RegistryHeader
    instance: Instance
    created: bool


@dataclass(frozen=True, slots=True)
class HeartbeatResult:
    """The TTL in seconds of each heartbeat, leases first; 0: register again."""

    header: RegistryHeader
    ttl_s: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Somebody who watches a service and acknowledges what it has applied."""

    id: str
    member_id: int
    member_name: str
    acked_revision: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Who knows of a change by now."""

    complete: bool
    """False: the time was over before; see `laggards` and `silent_members`."""
    acknowledged: int
    laggards: tuple[Subscriber, ...] = ()
    silent_members: tuple[int, ...] = ()
    """Members that did not answer: what their subscribers know is not known."""
    cannot_acknowledge: Mapping[str, int] = field(default_factory=dict, hash=False)
    """How many hear of it by a way that has no acknowledgements ("dns", "etcd watch")."""
    waited_s: float = 0.0

    @property
    def everyone(self) -> bool:
        """All who may know of the instance are known to have heard of the change."""
        return self.complete and not any(self.cannot_acknowledge.values())


@dataclass(frozen=True, slots=True)
class DeregisterResult:
    """An instance is gone; not `existed`: it was gone already."""

    header: RegistryHeader
    existed: bool
    last: Instance | None
    acknowledged: Acknowledged | None
    """If waiting was asked for."""


@dataclass(frozen=True, slots=True)
class StatusResult:
    """The instance with its new status."""

    header: RegistryHeader
    instance: Instance


@dataclass(frozen=True, slots=True)
class DrainResult:
    """The instances that drain (or do so no longer)."""

    header: RegistryHeader
    instances: tuple[Instance, ...]
    acknowledged: Acknowledged | None
    """If waiting was asked for."""


@dataclass(frozen=True, slots=True)
class InstancesResult:
    """Instances of a service; iterates over them."""

    header: RegistryHeader
    instances: tuple[Instance, ...]
    service_revision: int
    """When the answer for this service last changed; a watch can begin there."""
    guard: Guard | None = None
    strays: tuple[Stray, ...] = ()
    fell_back: bool = False
    """No instance was healthy, these are all."""

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)

    def __len__(self) -> int:
        return len(self.instances)


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """A service in one line."""

    name: ServiceName
    instances: int
    routable: int
    stale: int
    by_status: Mapping[str, int] = field(hash=False)
    """How many of each status, by its word."""
    tags: tuple[str, ...]
    versions: tuple[str, ...]
    service_revision: int
    guard: Guard | None


@dataclass(frozen=True, slots=True)
class ServicesResult:
    """Services; iterates over them."""

    header: RegistryHeader
    services: tuple[ServiceSummary, ...]
    strays: tuple[Stray, ...] = ()

    def __iter__(self) -> Iterator[ServiceSummary]:
        return iter(self.services)

    def __len__(self) -> int:
        return len(self.services)


@dataclass(frozen=True, slots=True)
class Update:
    """One message of a watch: the whole state (`is_snapshot`), or what has changed."""

    header: RegistryHeader
    revision: int
    """Everything up to here is told now."""
    is_snapshot: bool = False
    snapshot: tuple[Instance, ...] = ()
    events: tuple[InstanceEvent, ...] = ()
    is_progress: bool = False
    """Nothing has changed, the stream is alive."""
    guard: Guard | None = None
    endpoint: str = ""
    """The member that said so: acknowledgements go there."""


@dataclass(frozen=True, slots=True)
class AckResult:
    """Not `known`: no such subscriber is watching at this member."""

    header: RegistryHeader
    known: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule on the way to the verdict: what it looked at, and what it found."""

    rule: str
    passes: bool
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an instance gets requests, or does not."""

    header: RegistryHeader
    instance: Instance | None
    routable: bool
    findings: tuple[Finding, ...]
    recent: tuple[InstanceEvent, ...]
    """What happened to it lately, newest first."""
    verdict: str


@dataclass(frozen=True, slots=True)
class PastEvent:
    """A change and when it happened."""

    time_ms: int
    event: InstanceEvent


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """What happened (`events`), or who was there then (`instances`)."""

    header: RegistryHeader
    events: tuple[PastEvent, ...] = ()
    instances: tuple[Instance, ...] = ()
    unknown: tuple[InstanceName, ...] = ()
    """Those of which it is only known that they were there."""
    as_of_revision: int = 0
    as_of_ms: int = 0
    oldest_revision: int = 0
    """History is kept from here on; 0: there is none."""
    oldest_ms: int = 0


@dataclass(frozen=True, slots=True)
class SettingsResult:
    """Settings of a service; not `stored`: these are the defaults."""

    header: RegistryHeader
    settings: Settings
    stored: bool


@dataclass(frozen=True, slots=True)
class NamespacesResult:
    """The namespaces that exist; iterates over them."""

    header: RegistryHeader
    namespaces: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(self.namespaces)
