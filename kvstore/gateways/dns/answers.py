"""The answer to a question, from what the catalog holds: pure, no clock, no chance, no network.

1. *Healthy only*: instances to which new requests may go (UP, DEGRADED), also those that are stale.
2. A name that leads to none of them does not exist (NXDOMAIN); one that does, but has no record of
   the type that is asked for, has no data (NOERROR). Both say so with the zone's SOA.
3. TTL: the zone's, but no more than a third of the shortest TTL of the instances shown; 0 while an
   instance of the service drains.
4. Instances in our own zone come first: by priority in SRV, by order in A and AAAA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from dns.rcode import Rcode
from dns.rdatatype import RdataType

from kvstore.gateways.dns import records
from kvstore.gateways.dns.limits import (
    ANSWER_INSTANCES_MAX,
    NAME_BYTES_MAX,
    NEGATIVE_TTL_S_MAX,
)
from kvstore.gateways.dns.names import (
    Asked,
    What,
    ZoneKind,
    address_label,
    address_of_label,
    hex_label,
    host_wire,
    instance_label,
    packed_address,
    wire_name,
)
from kvstore.gateways.dns.records import Record
from kvstore.gateways.dns.settings import DnsSettings
from kvstore.registry.catalog import Entry, Service
from kvstore.registry.model import Instance, Status
from kvstore.registry.names import InstanceName, ServiceName

__all__ = ("Answer", "Answers", "Services")

NEAR: Final = 1
"""Priority of an instance in our own zone, or of all when none is known to be there."""
FAR: Final = 2
KUBERNETES_DNS_VERSION: Final = "1.1.0"

A, AAAA, CNAME = RdataType.A, RdataType.AAAA, RdataType.CNAME
SRV, TXT, PTR, NS, SOA, ANY = (
    RdataType.SRV,
    RdataType.TXT,
    RdataType.PTR,
    RdataType.NS,
    RdataType.SOA,
    RdataType.ANY,
)


class Services(Protocol):
    """What is read of `kvstore.registry.catalog.Catalog`."""

    @property
    def revision(self) -> int: ...
    @property
    def services(self) -> Mapping[ServiceName, Service]: ...
    def service(self, name: ServiceName) -> Service | None: ...
    def entry(self, name: InstanceName) -> Entry | None: ...
    def has_namespace(self, namespace: str) -> bool: ...


@dataclass(slots=True)
class Answer:
    """What to say."""

    rcode: Rcode = Rcode.NOERROR
    groups: list[list[Record]] = field(default_factory=list)
    """The answer section: each group is turned by itself, so that it begins with another record
    each time it is sent."""
    authority: list[Record] = field(default_factory=list)
    additional: dict[bytes, list[Record]] = field(default_factory=dict)
    """Records of the names that the answer leads to, by these names."""
    basis: ServiceName | None = None
    """It holds until the answer for this service changes; None: until anything changes."""
    once: bool = False
    """It was chosen out of several: the next one who asks is to get another."""


class _Found:
    """The instances that a question is about."""

    def __init__(self, shown: Sequence[Instance], ttl_s: int) -> None:
        self.shown = shown
        self.ttl_s = ttl_s


class Answers:
    """Makes answers from the catalog as it is now."""

    def __init__(
        self,
        settings: DnsSettings,
        services: Services,
        at_address: Callable[[bytes], Iterable[InstanceName]],
    ) -> None:
        self._settings = settings
        self._services = services
        self._at_address = at_address
        """Instances that may be at an address; whether they are is looked up."""
        main = settings.main.wire
        self._name_server = b"\x02ns" + main
        self._people = b"\x0ahostmaster" + main

    def answer(self, asked: Asked, owner: bytes, kind: int, turn: int = 0) -> Answer:
        """The answer to a question for records of the type `kind` of `owner`, as `asked` reads it.

        `turn` is another number each time: out of too many it chooses others.
        """
        answer = Answer(basis=asked.service)
        exists = self._fill(answer, asked, owner, kind, turn)
        if not answer.groups:
            answer.rcode = Rcode.NOERROR if exists else Rcode.NXDOMAIN
            answer.authority = [self._soa(asked, self._negative_ttl_s(asked))]
        return answer

    def _fill(self, answer: Answer, asked: Asked, owner: bytes, kind: int, turn: int) -> bool:
        """Adds the records there are; False if there is no such name."""
        ttl_s = self._settings.ttl_s
        match asked.what:
            case What.SERVICE | What.PORT | What.INSTANCE | What.PROTOCOL:
                return self._of_service(answer, asked, owner, kind, turn)
            case What.APEX:
                self._apex(answer, asked, kind)
            case What.NAME_SERVER:
                own = self._settings.own_addresses
                _add(answer, kind, [records.address(owner, ttl_s, each) for each in own])
            case What.VERSION:
                _add(answer, kind, [records.txt(owner, ttl_s, [KUBERNETES_DNS_VERSION])])
            case What.ADDRESS:
                _add(answer, kind, [records.address(owner, ttl_s, asked.address)])
            case What.REVERSE:
                return self._reverse(answer, asked, owner, kind)
            case What.NAMESPACE:
                return self._has_namespace(asked.detail)
            case What.BRANCH:
                pass
            case What.NOTHING:
                return False
        return True

    # ---- the zone itself -------------------------------------------------------------------

    def _apex(self, answer: Answer, asked: Asked, kind: int) -> None:
        zone, ttl_s = asked.zone.wire, self._settings.ttl_s
        _add(answer, kind, [self._soa(asked, self._negative_ttl_s(asked))])
        _add(answer, kind, [records.name_record(zone, NS, ttl_s, self._name_server)])
        if kind in (NS, ANY):
            own = self._settings.own_addresses
            answer.additional[self._name_server] = [
                records.address(self._name_server, ttl_s, each) for each in own
            ]

    def _soa(self, asked: Asked, ttl_s: int) -> Record:
        serial = self._services.revision
        return records.soa(asked.zone.wire, self._name_server, self._people, serial, ttl_s)

    def _negative_ttl_s(self, asked: Asked) -> int:
        service = self._services.service(asked.service) if asked.service else None
        if service is not None and _drains(service):
            return 0
        return min(self._settings.ttl_s, NEGATIVE_TTL_S_MAX)

    def _has_namespace(self, namespace: str) -> bool:
        if self._services.has_namespace(namespace):
            return True
        # Who writes instances by hand need not declare it.
        return any(name.namespace == namespace for name in self._services.services)

    # ---- services --------------------------------------------------------------------------

    def _of_service(self, answer: Answer, asked: Asked, owner: bytes, kind: int, turn: int) -> bool:
        found = self._find(asked, turn)
        if not found.shown:
            return False
        if asked.what is What.PROTOCOL:
            return True
        if asked.what is not What.PORT:
            self._addresses(answer, found, owner, kind, turn)
        if kind in (SRV, ANY):
            self._srv(answer, found, asked, owner)
        if kind in (TXT, ANY) and asked.what is not What.PORT:
            tell = _all_of if asked.what is What.INSTANCE else _line_of
            lines = [records.txt(owner, found.ttl_s, tell(each)) for each in found.shown]
            answer.groups.append(_distinct(lines))
        return True

    def _find(self, asked: Asked, turn: int) -> _Found:
        assert asked.service is not None
        service = self._services.service(asked.service)
        if service is None:
            return _Found((), 0)
        drains = False
        shown: list[Instance] = []
        wanted = _selection(asked, service)
        for instance in service.instances():
            drains = drains or instance.status is Status.DRAINING
            if instance.routable and wanted(instance):
                shown.append(instance)
        if len(shown) > ANSWER_INSTANCES_MAX:
            begin = turn * ANSWER_INSTANCES_MAX % len(shown)
            shown = (shown[begin:] + shown[:begin])[:ANSWER_INSTANCES_MAX]
        ttl_s = self._settings.ttl_s
        for instance in shown:
            if instance.ttl_s and instance.ttl_s // 3 < ttl_s:
                ttl_s = instance.ttl_s // 3
        return _Found(shown, 0 if drains else ttl_s)

    def _addresses(self, answer: Answer, found: _Found, owner: bytes, kind: int, turn: int) -> None:
        """A and AAAA; CNAME if instances are known by host names alone."""
        if kind not in (A, AAAA, CNAME, ANY):
            return
        # Who is to get no share of the requests is left out, while anybody is left.
        shown = [each for each in found.shown if each.weight] or found.shown
        near: list[Record] = []
        far: list[Record] = []
        hosts: list[bytes] = []
        for instance in shown:
            packed = packed_address(instance.address)
            if packed is not None:
                group = near if self._priority(instance) == NEAR else far
                group.append(records.address(owner, found.ttl_s, packed))
            elif (host := host_wire(instance.address)) is not None:
                hosts.append(host)
        if near or far:
            close = _distinct(near)
            _add(answer, kind, close)
            _add(answer, kind, [each for each in _distinct(far) if each not in set(close)])
        elif hosts:
            hosts = list(dict.fromkeys(hosts))
            alias = records.name_record(owner, CNAME, found.ttl_s, hosts[turn % len(hosts)])
            answer.groups.append([alias])
            answer.once = len(hosts) > 1

    def _srv(self, answer: Answer, found: _Found, asked: Asked, owner: bytes) -> None:
        near: list[Record] = []
        far: list[Record] = []
        ttl_s = found.ttl_s
        for instance in found.shown:
            port = instance.ports[asked.detail] if asked.what is What.PORT else instance.port
            packed = packed_address(instance.address)
            if packed is None:
                target = host_wire(instance.address)
                if target is None:
                    continue
            else:
                target = _address_name(asked, packed)
                if target not in answer.additional:
                    answer.additional[target] = [records.address(target, ttl_s, packed)]
            priority = self._priority(instance)
            group = near if priority == NEAR else far
            group.append(records.srv(owner, ttl_s, priority, instance.weight, port, target))
        answer.groups += [group for group in (_distinct(near), _distinct(far)) if group]

    def _priority(self, instance: Instance) -> int:
        own = self._settings.own_zone
        return NEAR if not own or instance.zone == own else FAR

    # ---- addresses -------------------------------------------------------------------------

    def _reverse(self, answer: Answer, asked: Asked, owner: bytes, kind: int) -> bool:
        ttl_s = self._settings.ttl_s
        targets: list[bytes] = []
        for name in sorted(self._at_address(asked.address)):
            entry = self._services.entry(name)
            instance = entry.instance if entry is not None else None
            if instance is None or not instance.routable:
                continue
            if packed_address(instance.address) == asked.address:
                targets.append(self._instance_name(instance, asked.address))
                if instance.ttl_s:
                    ttl_s = min(ttl_s, instance.ttl_s // 3)
        distinct = dict.fromkeys(targets)
        _add(answer, kind, [records.name_record(owner, PTR, ttl_s, each) for each in distinct])
        return bool(targets)

    def _instance_name(self, instance: Instance, packed: bytes) -> bytes:
        """The name of an instance: by its id, or by its address where that makes no name."""
        parent = [instance.service.encode(), instance.namespace.encode(), b"svc"]
        own = instance_label(instance.id).encode()
        for label in (own, address_label(packed)):
            wire = wire_name([label, *parent])[:-1] + self._settings.main.wire
            if label and len(wire) <= NAME_BYTES_MAX:
                break
        return wire


def _add(answer: Answer, kind: int, group: list[Record]) -> None:
    """Adds those records of a group that are asked for."""
    wanted = [each for each in group if kind in (each.type, ANY)]
    if wanted:
        answer.groups.append(wanted)


def _distinct(group: Iterable[Record]) -> list[Record]:
    return list(dict.fromkeys(group))


def _drains(service: Service) -> bool:
    return any(each.status is Status.DRAINING for each in service.instances())


def _selection(asked: Asked, service: Service) -> Callable[[Instance], bool]:
    """Which instances of the service a name is about."""
    detail = asked.detail
    match asked.what:
        case What.PORT:
            return lambda each: detail in each.ports
        case What.SERVICE if detail:
            return lambda each: any(tag.lower() == detail for tag in each.tags)
        case What.INSTANCE:
            packed = address_of_label(detail)
            # An address that somebody has beats an id that looks like one: SRV targets are
            # addresses in this form, and must be nothing else.
            if packed is not None and any(
                packed_address(each.address) == packed for each in service.instances()
            ):
                return lambda each: packed_address(each.address) == packed
            return lambda each: instance_label(each.id) == detail
    return lambda _: True


def _address_name(asked: Asked, packed: bytes) -> bytes:
    """The name of an address that an SRV record leads to."""
    consul = asked.zone.kind is ZoneKind.CONSUL
    label = hex_label(packed) if consul else address_label(packed)
    return bytes((len(label),)) + label + asked.domain


def _line_of(instance: Instance) -> list[str]:
    """An instance in the TXT record of its service (RFC 1464)."""
    told = [
        f"id={instance.id}",
        f"address={instance.address}",
        f"port={instance.port}",
        f"status={instance.status}",
    ]
    for name in ("version", "zone", "region"):
        value = getattr(instance, name)
        if value:
            told.append(f"{name}={value}")
    if instance.stale:
        told.append("stale=true")
    return told


def _all_of(instance: Instance) -> list[str]:
    """An instance in the TXT record of its own name: tags and metadata too."""
    return [
        *_line_of(instance),
        *(f"port.{name}={port}" for name, port in instance.ports.items()),
        f"weight={instance.weight}",
        *(f"tag={tag}" for tag in instance.tags),
        *(f"meta.{name}={value}" for name, value in instance.metadata.items()),
    ]
