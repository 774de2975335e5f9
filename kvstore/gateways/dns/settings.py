"""What the DNS front door is told: its zones, its TTL, and the zone it stands in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kvstore.gateways.dns.limits import ZONE_BYTES_MAX
from kvstore.gateways.dns.names import Zone, ZoneKind, host_wire

__all__ = ("BadZoneError", "DnsSettings", "make_settings")

TTL_S_MAX = 86_400
_DATACENTER = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")


class BadZoneError(ValueError):
    """A zone, or something else of the settings, that cannot be; the text says why."""


def _reverse_zones() -> tuple[Zone, ...]:
    return (
        Zone(b"\x07in-addr\x04arpa\0", ZoneKind.REVERSE_V4),
        Zone(b"\x03ip6\x04arpa\0", ZoneKind.REVERSE_V6),
    )


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """Checked settings."""

    zones: Mapping[bytes, Zone]
    """By their names on the wire."""
    main: Zone
    """Where every service has its name."""
    ttl_s: int
    """The most that an answer may be remembered."""
    own_zone: str = ""
    """Where this member and those who ask it are: instances there come first. Empty: unknown."""
    own_addresses: tuple[bytes, ...] = field(default=())
    """Packed: where this server listens."""


def make_settings(
    zone: str,
    *,
    ttl_s: int,
    consul_domain: str = "",
    datacenter: str = "dc1",
    own_zone: str = "",
    own_addresses: tuple[bytes, ...] = (),
) -> DnsSettings:
    """Checks what people wrote; raises BadZoneError with a sentence."""
    main = Zone(_zone_wire(zone), ZoneKind.SERVICES)
    zones = {each.wire: each for each in (*_reverse_zones(), main)}
    if consul_domain:
        if not _DATACENTER.fullmatch(datacenter):
            raise BadZoneError(f"the datacenter {datacenter!r} is not one label of a name")
        consul = Zone(_zone_wire(consul_domain), ZoneKind.CONSUL, datacenter)
        if consul.wire in zones:
            raise BadZoneError(
                f"the zone and the Consul domain are both {zone!r}; name another domain, or none"
            )
        zones[consul.wire] = consul
    if not 0 <= ttl_s <= TTL_S_MAX:
        raise BadZoneError(f"the TTL is {ttl_s} s; 0 s to {TTL_S_MAX} s are allowed")
    return DnsSettings(zones, main, ttl_s, own_zone, own_addresses)


def _zone_wire(zone: str) -> bytes:
    wire = host_wire(zone.lower())
    if wire is None:
        raise BadZoneError(f"the zone {zone!r} is not a domain name such as kv.local")
    if len(wire) > ZONE_BYTES_MAX:
        raise BadZoneError(
            f"the zone {zone!r} is too long: names of services must fit before it; "
            f"{ZONE_BYTES_MAX - 2} characters are allowed"
        )
    if wire.endswith(b"\x04arpa\0"):
        raise BadZoneError(f"the zone {zone!r} belongs to the names of addresses")
    return wire
