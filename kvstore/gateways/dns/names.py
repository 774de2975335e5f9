"""What a name asks for: from the labels of a question to a service, an instance, an address.

| name | asks for |
|---|---|
| `<service>.<namespace>.svc.<zone>` | a service |
| `_<port>._tcp.<service>.<namespace>.svc.<zone>` | one of its ports (`_udp` too) |
| `<instance>.<service>.<namespace>.svc.<zone>` | one instance, by id or as `10-0-1-6` |
| `[<tag>.]<service>.service[.<dc>].<consul domain>` | a service, its instances with a tag |
| `_<service>._<tag>[.service][.<dc>].<consul domain>` | the same (RFC 2782; `_tcp`: any tag) |
| `<hex>.addr[.<dc>].<consul domain>` | an address |
| `6.1.0.10.in-addr.arpa`, `….ip6.arpa` | the instances at an address |

Everything here is in lower case: names are compared without regard to it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final, NamedTuple

from kvstore.gateways.dns.limits import NAME_BYTES_MAX
from kvstore.registry.names import DEFAULT_NAMESPACE, ServiceName

__all__ = (
    "Asked",
    "What",
    "Zone",
    "ZoneKind",
    "address_label",
    "address_of_label",
    "hex_label",
    "host_wire",
    "instance_label",
    "packed_address",
    "read_name",
    "wire_name",
)

LABEL_BYTES_MAX: Final = 63
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_NOT_IN_LABEL = re.compile(r"[^a-z0-9-]+")
_DASHED_V4 = re.compile(r"\d{1,3}(-\d{1,3}){3}")
_DASHED_V6 = re.compile(r"[0-9a-f]{0,4}(-[0-9a-f]{0,4}){2,7}")
_PROTOCOLS = ("_tcp", "_udp")
"""The registry does not know which of them a port speaks."""
_ANY_TAG = frozenset(("tcp", "udp"))
"""Consul: the protocol in the place of a tag."""


class ZoneKind(Enum):
    """Which rules a zone's names follow."""

    SERVICES = auto()
    CONSUL = auto()
    REVERSE_V4 = auto()
    REVERSE_V6 = auto()


class Zone(NamedTuple):
    """A domain that we answer for."""

    wire: bytes
    """Its name on the wire."""
    kind: ZoneKind
    datacenter: str = ""
    """Of the Consul domain: which one we are."""


class What(Enum):
    """Kinds of things that have names."""

    APEX = auto()
    """The zone itself."""
    NAME_SERVER = auto()
    """`ns.<zone>`: this server."""
    VERSION = auto()
    """`dns-version.<zone>`, of Kubernetes' specification."""
    BRANCH = auto()
    """Exists because of the names below it; has no records of its own."""
    NAMESPACE = auto()
    """A branch, if there is this namespace."""
    SERVICE = auto()
    """All instances, or those with a tag; `detail` is the tag."""
    PROTOCOL = auto()
    """A branch, if there is this service."""
    PORT = auto()
    """A named port of all instances; `detail` is its name."""
    INSTANCE = auto()
    """One instance; `detail` is its label."""
    ADDRESS = auto()
    """The address that the name itself spells."""
    REVERSE = auto()
    """Who is at an address."""
    NOTHING = auto()


class Asked(NamedTuple):
    """What a name asks for."""

    zone: Zone
    what: What
    service: ServiceName | None = None
    domain: bytes = b""
    """The name, on the wire, under which the service's instances have names of their own."""
    detail: str = ""
    address: bytes = b""
    """Packed."""


def wire_name(labels: Sequence[bytes]) -> bytes:
    """The labels as they stand in a message, uncompressed."""
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def host_wire(host: str) -> bytes | None:
    """A host name as it stands in a message; None if it cannot be one."""
    parts = host.removesuffix(".").split(".")
    if not all(len(part) <= LABEL_BYTES_MAX and _HOST_LABEL.fullmatch(part) for part in parts):
        return None
    wire = wire_name([part.encode() for part in parts])
    return wire if len(wire) <= NAME_BYTES_MAX else None


def packed_address(address: str) -> bytes | None:
    """The 4 or 16 bytes of an address; None for what is none."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError):
        return None


def address_label(packed: bytes) -> bytes:
    """The address as one label: `10-0-1-6`, `fd00--1`."""
    if len(packed) == 4:
        return b"%d-%d-%d-%d" % tuple(packed)
    text = socket.inet_ntop(socket.AF_INET6, packed)
    if "." in text or text.startswith(":") or text.endswith(":"):
        # No label begins or ends with a hyphen.
        text = packed.hex("-", 2)
    return text.replace(":", "-").encode()


def address_of_label(label: str) -> bytes | None:
    """The address that a label spells."""
    if _DASHED_V4.fullmatch(label):
        return packed_address(label.replace("-", "."))
    if _DASHED_V6.fullmatch(label):
        return packed_address(label.replace("-", ":"))
    return None


def hex_label(packed: bytes) -> bytes:
    """The address as Consul writes it: `0a000106`."""
    return packed.hex().encode()


def instance_label(instance_id: str) -> str:
    """The label of an instance's id; empty if none can be made of it.

    What cannot stand in a label becomes a hyphen, so that two ids may have the same one.
    """
    label = _NOT_IN_LABEL.sub("-", instance_id.lower()).strip("-")
    return label if len(label) <= LABEL_BYTES_MAX else ""


def read_name(zone: Zone, labels: Sequence[bytes], wire: bytes) -> Asked:
    """What a name asks for. `labels` are those before the zone, `wire` is all of it."""
    if zone.kind is ZoneKind.REVERSE_V4 or zone.kind is ZoneKind.REVERSE_V6:
        return _reverse(zone, labels)
    try:
        texts = [label.decode("ascii") for label in labels]
    except UnicodeDecodeError:
        return Asked(zone, What.NOTHING)
    if not texts:
        return Asked(zone, What.APEX)
    if texts == ["ns"]:
        return Asked(zone, What.NAME_SERVER)
    if zone.kind is ZoneKind.CONSUL:
        return _consul(zone, texts)
    return _service(zone, texts, wire)


def _service(zone: Zone, texts: list[str], wire: bytes) -> Asked:
    if texts == ["dns-version"]:
        return Asked(zone, What.VERSION)
    if texts.pop() != "svc" or len(texts) > 4:
        return Asked(zone, What.NOTHING)
    if not texts:
        return Asked(zone, What.BRANCH)
    if len(texts) == 1:
        return Asked(zone, What.NAMESPACE, detail=texts[0])
    service = ServiceName(texts.pop(), texts.pop())
    # What is left of the name in front of the service's own; each label has a byte of length.
    domain = wire[sum(len(text) + 1 for text in texts) :]
    match texts:
        case []:
            return Asked(zone, What.SERVICE, service, domain)
        case [protocol] if protocol in _PROTOCOLS:
            return Asked(zone, What.PROTOCOL, service, domain)
        case [label]:
            return Asked(zone, What.INSTANCE, service, domain, label)
        case [port, protocol] if port.startswith("_") and protocol in _PROTOCOLS:
            return Asked(zone, What.PORT, service, domain, port[1:])
    return Asked(zone, What.NOTHING)


def _consul(zone: Zone, texts: list[str]) -> Asked:
    if texts == [zone.datacenter]:
        return Asked(zone, What.BRANCH)
    kinds = [at for at, text in enumerate(texts) if text in ("service", "addr")]
    if kinds:
        before, kind, after = texts[: kinds[-1]], texts[kinds[-1]], texts[kinds[-1] + 1 :]
    else:
        # RFC 2782 without `.service`.
        before, kind, after = texts[:2], "service", texts[2:]
        if not before[0].startswith("_"):
            return Asked(zone, What.NOTHING)
    namespace = _consul_place(after, zone.datacenter)
    if namespace is None:
        return Asked(zone, What.NOTHING)
    if not before:
        return Asked(zone, What.BRANCH)
    if kind == "addr":
        return _consul_address(zone, before)
    if len(before) == 2 and before[0].startswith("_") and before[1].startswith("_"):
        name, tag = before[0][1:], before[1][1:]
        tag = "" if tag in _ANY_TAG else tag
    elif not kinds:
        return Asked(zone, What.NOTHING)
    else:
        name, tag = before[-1], ".".join(before[:-1])
    # Instances have no names below the service's there; their addresses have.
    domain = b"\x04addr" + wire_name([zone.datacenter.encode()])[:-1] + zone.wire
    return Asked(zone, What.SERVICE, ServiceName(namespace, name), domain, tag)


def _consul_place(texts: list[str], datacenter: str) -> str | None:
    """The namespace that is meant; None if the name leads elsewhere."""
    match texts:
        case []:
            return DEFAULT_NAMESPACE
        case [dc] | [dc, "dc"] if dc == datacenter:
            return DEFAULT_NAMESPACE
        case [namespace, "ns"]:
            return namespace
        case [namespace, "ns", dc, "dc"] | [namespace, "ns", dc] if dc == datacenter:
            return namespace
    return None


def _consul_address(zone: Zone, before: list[str]) -> Asked:
    if len(before) == 1 and re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{32}", before[0]):
        return Asked(zone, What.ADDRESS, address=bytes.fromhex(before[0]))
    return Asked(zone, What.NOTHING)


def _reverse(zone: Zone, labels: Sequence[bytes]) -> Asked:
    if not labels:
        return Asked(zone, What.APEX)
    if zone.kind is ZoneKind.REVERSE_V4:
        numbers, most = [_number(label, 3, 10) for label in labels], 255
        whole = 4
    else:
        numbers, most = [_number(label, 1, 16) for label in labels], 15
        whole = 32
    if len(numbers) > whole or not all(0 <= number <= most for number in numbers):
        return Asked(zone, What.NOTHING)
    if len(numbers) < whole:
        return Asked(zone, What.BRANCH)
    numbers.reverse()
    if whole == 4:
        return Asked(zone, What.REVERSE, address=bytes(numbers))
    packed = bytes.fromhex("".join(f"{number:x}" for number in numbers))
    return Asked(zone, What.REVERSE, address=packed)


def _number(label: bytes, digits: int, base: int) -> int:
    """The number that a label spells without needless zeros; -1 if it does not."""
    try:
        number = int(label, base) if label.isalnum() and len(label) <= digits else -1
    except ValueError:
        return -1
    return -1 if len(label) > 1 and label.startswith(b"0") else number
