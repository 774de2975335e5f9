"""What is measured: loads, the rows of a run, and what each must reach beside etcd."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

__all__ = ("LOADS", "SPECIALS", "Row", "Selection", "Target", "select", "target_of")

LOADS = (
    "put", "range", "range-follower", "serializable", "range-1000", "txn", "mixed",
    "lease-grant", "keepalive", "watch-fanout", "watch-shared", "watch-keys", "watch-latency",
    "delete",
)  # fmt: skip
"""Run for a time under load. In a scenario they run in this order: `delete` leaves it emptied."""

SPECIALS = (
    "failover", "restart", "memory", "h2load-put", "h2load-range",
    "put-keys", "snapshot-p99", "snapshot-own-p99", "leases",
)  # fmt: skip
"""Measured in their own way."""

OURS_ALONE = {"snapshot-own-p99"}
"""What etcd has nothing to be compared with."""
ONCE = {"leases"}
"""One pair, however many are asked for: a run must outlast the leases' TTL."""

THREE_ONLY = {"range-follower", "failover"}
STREAMS = {"keepalive", "watch-fanout", "watch-shared", "watch-keys", "watch-latency"}
"""Their calls in flight are set by what they are."""
KEYLESS = STREAMS | {"lease-grant"}
UNHURRIED = {"failover", "restart", "memory", "snapshot-p99", "snapshot-own-p99", "leases"}
"""They have no number of calls in flight."""

BASE_INFLIGHT, BASE_VALUE, BASE_KEYS = 128, 100, 1_000
MANY_KEYS = 1_000_000
MANY_LEASES = 100_000


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    load: str
    nodes: int = 3
    inflight: int = BASE_INFLIGHT
    value_bytes: int = BASE_VALUE
    keys: int = BASE_KEYS

    @property
    def scenario(self) -> tuple[int, int, int]:
        """Rows of one scenario run on the same stores."""
        return self.nodes, self.value_bytes, self.keys

    @property
    def sides(self) -> tuple[str, ...]:
        """Whose figures it holds."""
        return ("kvstore",) if self.load in OURS_ALONE else ("kvstore", "etcd")

    @property
    def name(self) -> str:
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        parts = [self.load, nodes]
        if self.load not in STREAMS and self.load not in UNHURRIED:
            parts.append(f"{self.inflight:,} in flight")
        if self.load == "leases":
            parts.append(f"{self.keys:,} leases")
        elif self.load not in KEYLESS and self.load != "failover":
            if self.value_bytes != BASE_VALUE:
                parts.append(f"{self.value_bytes:,} B")
            if self.keys != BASE_KEYS:
                parts.append(f"{self.keys:,} keys")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Target:
    """What the ratio ours/etcd must be and is wished to be; `less` where less is better."""

    must: float
    goal: float
    less: bool = False
    own: bool = False
    """About our value as it is, which is a ratio or a count already, and not about etcd's."""

    def verdict(self, ratio: float) -> str:
        if self.less:
            return "goal" if ratio <= self.goal else "must" if ratio <= self.must else "missed"
        return "goal" if ratio >= self.goal else "must" if ratio >= self.must else "missed"


OWN_TARGETS = {
    "put-keys": ((Row("put-keys", keys=MANY_KEYS),), Target(0.8, 0.95, own=True)),
    "snapshot-p99": (
        tuple(Row("snapshot-p99", nodes, 128, 1024, MANY_KEYS) for nodes in (1, 3)),
        Target(3.0, 1.5, less=True, own=True),
    ),
    "snapshot-own-p99": (
        tuple(Row("snapshot-own-p99", nodes, 128, 1024, MANY_KEYS) for nodes in (1, 3)),
        Target(3.0, 1.5, less=True, own=True),
    ),
    "leases": (
        tuple(Row("leases", nodes, keys=MANY_LEASES) for nodes in (1, 3)),
        Target(0, 0, less=True, own=True),
    ),
}
"""Targets that a store must reach beside itself, and the rows that they are set for."""


def target_of(row: Row) -> Target | None:
    """The target of a row, where one is set (values of 100 B, 1,000 keys unless about keys)."""
    if row.load in OWN_TARGETS:
        points, target = OWN_TARGETS[row.load]
        return target if row in points else None
    keys = 1_000_000 if row.load == "memory" else BASE_KEYS
    if (row.value_bytes, row.keys) != (BASE_VALUE, keys):
        return None
    if row.load == "put":
        if row.nodes == 1:
            return Target(1.0, 1.3) if row.inflight == 128 else None
        return {1: Target(0.9, 1.2), 128: Target(1.0, 1.2), 1024: Target(1.0, 1.2)}.get(
            row.inflight
        )
    if row.load in {"failover", "watch-latency", "memory"}:
        return {
            "failover": Target(1.1, 0.8, less=True),
            "watch-latency": Target(1.2, 1.0, less=True),
            "memory": Target(0.6, 0.2, less=True),
        }[row.load]
    if row.load not in STREAMS and (row.nodes, row.inflight) != (3, 128):
        return None
    return {
        "range": Target(1.3, 2.0),
        "range-follower": Target(1.3, 2.0),
        "serializable": Target(1.3, 2.0),
        "range-1000": Target(1.0, 1.5),
        "txn": Target(0.9, 1.1),
        "watch-fanout": Target(0.5, 1.0),
        "keepalive": Target(0.5, 1.0),
    }.get(row.load)


@dataclass(frozen=True, slots=True)
class Selection:
    """Of the command line; an empty dimension means the standard rows."""

    only: Sequence[str] = ()
    nodes: Sequence[int] = ()
    inflight: Sequence[int] = ()
    value_bytes: Sequence[int] = ()
    keys: Sequence[int] = ()


def standard() -> Iterable[Row]:
    """From one base point (3 nodes, 128 in flight, 100 B, 1,000 keys) along each dimension."""
    for nodes in (1, 3):
        for load in ("put", "range", "serializable", "txn", "mixed"):
            for inflight in (1, 8, 128, 1024):
                yield Row(load, nodes, inflight)
        for load in ("range-follower", "range-1000", "delete", "lease-grant"):
            for inflight in (1, 128):
                yield Row(load, nodes, inflight)
        for load in sorted(STREAMS):
            yield Row(load, nodes)
        yield Row("h2load-put", nodes)
        yield Row("h2load-range", nodes)
    for load in ("put", "range", "mixed"):
        for value in (1024, 16 * 1024):
            yield Row(load, value_bytes=value)
        for keys in (100_000, 1_000_000):
            yield Row(load, keys=keys)
    yield Row("failover")
    for keys in (100_000, 1_000_000):
        yield Row("restart", 1, keys=keys)
        yield Row("memory", 1, keys=keys)
    yield Row("put-keys", keys=MANY_KEYS)
    # A million values of 1 KB: the snapshot of 1 GB.
    yield Row("snapshot-p99", 1, value_bytes=1024, keys=MANY_KEYS)
    yield Row("snapshot-own-p99", 1, value_bytes=1024, keys=MANY_KEYS)
    yield Row("leases", keys=MANY_LEASES)


def select(chosen: Selection) -> list[Row]:
    """The rows of a run, grouped by scenario; raises ValueError for an unknown load."""
    unknown = set(chosen.only) - {*LOADS, *SPECIALS}
    if unknown:
        known = ", ".join((*LOADS, *SPECIALS))
        raise ValueError(f"no such load: {', '.join(sorted(unknown))}; there are {known}")
    if chosen.inflight or chosen.value_bytes or chosen.keys:
        rows = [
            Row(*point)
            for point in product(
                chosen.only or ("put",),
                chosen.nodes or (3,),
                chosen.inflight or (BASE_INFLIGHT,),
                chosen.value_bytes or (BASE_VALUE,),
                chosen.keys or (BASE_KEYS,),
            )
        ]
    else:
        rows = [
            row
            for row in standard()
            if (not chosen.only or row.load in chosen.only)
            and (not chosen.nodes or row.nodes in chosen.nodes)
        ]
    order = {load: number for number, load in enumerate((*LOADS, *SPECIALS))}
    rows = [row for row in rows if row.nodes > 1 or row.load not in THREE_ONLY]
    return sorted(
        dict.fromkeys(rows), key=lambda row: (*row.scenario, order[row.load], row.inflight)
    )
