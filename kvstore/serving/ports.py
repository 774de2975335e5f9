"""The ports of a local cluster: chosen once, kept in its directory, since members remember them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = (
    "DEFAULT_BASE_PORT",
    "Layout",
    "LayoutError",
    "MemberPorts",
    "choose_layout",
    "port_free",
)

DEFAULT_BASE_PORT = 2379
MAX_NODES = 7
"""etcd advises no more: each write waits for a majority."""

_FIRST_STEP = 20_000
_NARROW_STEP = 10
_TRIES = 50
_FILE = "local.json"


class LayoutError(Exception):
    """The local cluster cannot have the ports or members wanted; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class MemberPorts:
    """One member's name and ports."""

    name: str
    client: int
    peer: int
    http: int

    @property
    def dns(self) -> int:
        """Where it answers DNS, if it does."""
        return self.http + 1

    @property
    def all(self) -> tuple[int, int, int]:
        return (self.client, self.peer, self.http)


@dataclass(frozen=True, slots=True)
class Layout:
    """All members of a local cluster; `note` says what was chosen otherwise than usual."""

    members: tuple[MemberPorts, ...]
    note: str = ""

    def save(self, directory: Path) -> None:
        """Writes the layout beside the members' data."""
        rows = [[each.name, each.client, each.peer, each.http] for each in self.members]
        (directory / _FILE).write_text(json.dumps({"members": rows}, indent=1) + "\n")


def port_free(port: int) -> bool:
    """True when nobody listens on the port at the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_layout(
    directory: Path,
    nodes: int,
    base_port: int | None,
    free: Callable[[int], bool] = port_free,
) -> Layout:
    """The stored layout of `directory`, or a new one on free ports; raises LayoutError.

    `base_port` None is the usual one, from which a new cluster moves away when it is taken.
    """
    stored = _load(directory)
    if stored is not None:
        return _check_stored(stored, directory, nodes, base_port, free)
    if not 1 <= nodes <= MAX_NODES:
        raise LayoutError(f"--nodes is {nodes}, but must be from 1 to {MAX_NODES}")
    wanted = _members(nodes, base_port or DEFAULT_BASE_PORT)
    taken = _taken(wanted, free)
    if not taken:
        return Layout(wanted)
    if base_port is not None:
        raise LayoutError(
            f"port {taken[0]} is taken; stop what listens there, or give another --base-port"
        )
    for attempt in range(1, _TRIES + 1):
        other = _members(nodes, DEFAULT_BASE_PORT + 100 * attempt)
        if not _taken(other, free):
            return Layout(
                other,
                f"port {taken[0]} is taken, so the client ports are "
                f"{', '.join(str(each.client) for each in other)} instead",
            )
    raise LayoutError("found no free ports near the usual ones; give a --base-port")


def _members(nodes: int, base: int) -> tuple[MemberPorts, ...]:
    """etcd's usual ports (2379, 22379, 32379, …) where they fit, else ten apart."""
    offsets = [0] + [_FIRST_STEP + 10_000 * i for i in range(nodes - 1)]
    if base + offsets[-1] + 2 > 65_535:
        offsets = [_NARROW_STEP * i for i in range(nodes)]
    if not base >= 1 or base + offsets[-1] + 2 > 65_535:
        raise LayoutError(f"--base-port is {base}, but all ports must lie between 1 and 65535")
    return tuple(
        MemberPorts(f"node{number}", base + offset, base + offset + 1, base + offset + 2)
        for number, offset in enumerate(offsets, start=1)
    )


def _taken(members: Sequence[MemberPorts], free: Callable[[int], bool]) -> list[int]:
    return [port for member in members for port in member.all if not free(port)]


def _load(directory: Path) -> Layout | None:
    try:
        text = (directory / _FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LayoutError(f"cannot read {directory / _FILE}: {error.strerror}") from None
    try:
        rows = json.loads(text)["members"]
        members = tuple(
            MemberPorts(str(name), int(client), int(peer), int(http))
            for name, client, peer, http in rows
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise LayoutError(
            f"{directory / _FILE} is not what this command writes; remove the directory to "
            "start afresh, or choose another --data"
        ) from None
    return Layout(members)


def _check_stored(
    stored: Layout,
    directory: Path,
    nodes: int,
    base_port: int | None,
    free: Callable[[int], bool],
) -> Layout:
    if len(stored.members) != nodes:
        raise LayoutError(
            f"the cluster in {directory} has {len(stored.members)} members, not {nodes}; "
            f"give --nodes {len(stored.members)}, or another --data"
        )
    if base_port is not None and stored.members[0].client != base_port:
        raise LayoutError(
            f"the cluster in {directory} began at port {stored.members[0].client}, and its "
            f"members know each other by their ports; leave --base-port out, or give "
            "another --data"
        )
    taken = _taken(stored.members, free)
    if taken:
        raise LayoutError(
            f"port {taken[0]} is taken, and the cluster in {directory} needs it; stop what "
            "listens there (another `kvstore local`?), or choose another --data"
        )
    return stored
