"""Everything that a seed decides before anything happens: a different swarm each time.

Each parameter is drawn from a stream of its own, so that adding one changes no other. Legal but
rare choices of the product's bounds (one entry per batch, buffers of four) are drawn, too; they
are put in place for the time of the seed (`overridden`).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from kvstore.registry.guard import GuardSettings
from tests.sim.network import NetworkParams
from tests.sim.prng import Prng
from tests.sim.world import MS, TICK, US

__all__ = ("FAULT_KINDS", "PROFILES", "Params", "draw", "overridden")

PROFILES: Final = {"long": 20_000, "short": 2_000, "canary": 2_000}
"""Ticks of the safety phase by profile."""

CRASH_KINDS: Final = ("kill", "power loss", "crash at operation", "crash at point", "restart")
FAULT_KINDS: Final = {
    # What happens, and how often at most in 1,000 ticks (10 s).
    "kill": 1.5,
    "power loss": 1.5,
    "crash at operation": 2.0,
    "restart": 0.6,
    "long outage": 0.15,
    "all at once": 0.15,
    "pause": 0.8,
    "suspend": 0.4,
    "clock rate": 0.8,
    "wall clock": 0.5,
    "isolate": 0.6,
    "isolate leader": 0.5,
    "cut one way": 0.8,
    "partial": 0.5,
    "swizzle": 0.3,
    "reset": 1.5,
    "slow disk": 0.4,
    "disk error": 0.4,
    "disk full": 0.25,
    "rot": 0.4,
    "transfer leader": 0.6,
    "campaign": 0.3,
    "defragment": 0.5,
    "snapshot": 0.6,
    "membership": 0.8,
    "two changes": 0.4,
    "lost promotion": 0.4,
    "crash at point": 1.0,
    "old words": 0.4,
}
_CALM: Final = ("transfer leader", "campaign", "defragment", "snapshot", "membership", "wall clock")
"""Not faults, but disturbances."""

_CHOICES: Final[dict[str, tuple[int, ...]]] = {
    "apply.wait": (20, 100),
    "apply.one_entry": (1_000, 10_000),
    "sweep.one_revision": (1_000, 10_000),
    "snapshot.now": (500, 5_000),
}
"""How often the program takes its rare ways, per 10,000 questions, in seeds where it does."""

_RARE: Final[tuple[tuple[str, tuple[Any, ...]], ...]] = (
    ("kvstore.node.snapshots.SNAPSHOT_CHECK_S", (0.1, 0.3)),
    ("kvstore.node.snapshots.SNAPSHOT_SEND_RETRY_S", (0.1,)),
    ("kvstore.node.applying.APPLY_BATCH_ENTRIES", (1, 4)),
    ("kvstore.node.applying.APPLY_SLICE_OPERATIONS", (1, 2)),
    ("kvstore.node.applying.FORESIGHT_AFTER_SLICES", (0,)),
    ("kvstore.node.applying.LONG_BATCH_SLICES", (2,)),
    ("kvstore.node.snapshot_transfer.CHUNK_BYTES", (512, 4096)),
    ("kvstore.node.lifecycle.SWEEP_SLICE_REVISIONS", (1, 7)),
    ("kvstore.node.membership.HEALTHY_CONNECTION_S", (0.2, 1.0)),
    ("kvstore.node.timing.REQUEST_TIMEOUT_BASE_S", (0.5, 1.5)),
    ("kvstore.node.proposals.PROPOSE_CHUNK_BYTES", (64,)),
    ("kvstore.node.reads.READ_RETRY_S", (0.05,)),
    ("kvstore.watch.limits.BUFFERED_RESPONSES_MAX", (4,)),
    ("kvstore.watch.limits.ROUND_EVENTS_MAX", (1, 5)),
    ("kvstore.watch.limits.ROUND_REVISIONS_MAX", (1, 3)),
    ("kvstore.watch.limits.SLICE_STEPS", (1, 10)),
    ("kvstore.watch.limits.LIVE_CHANGES_MAX", (1, 3)),
)
_RARE_IN_REGISTRY: Final[tuple[tuple[str, tuple[Any, ...]], ...]] = (
    ("kvstore.registry.limits.KEEPER_BATCH_ITEMS", (1, 3)),
    ("kvstore.registry.limits.KEEPER_SLICE_ITEMS", (1, 2)),
    ("kvstore.registry.limits.HEARTBEAT_CHUNK", (1, 2)),
    ("kvstore.registry.heartbeats.HEARTBEAT_CHUNK", (1, 2)),
    ("kvstore.registry.catalog.REBUILD_SLICE_INSTANCES", (1, 3)),
    ("kvstore.registry.reading.READING_SLICE_INSTANCES", (1, 3)),
    ("kvstore.registry.history.HISTORY_SLICE_RECORDS", (1, 5)),
    ("kvstore.registry.limits.RECENT_DELTAS", (1, 10)),
    ("kvstore.registry.limits.SUBSCRIBER_EVENTS_MAX", (1, 5)),
    ("kvstore.registry.limits.WAKE_SLICE_SUBSCRIBERS", (1,)),
    ("kvstore.registry.limits.WATCH_PROGRESS_S", (0.2, 1.0)),
)
_ALWAYS: Final = (
    # Only a count of long turns, and here a turn takes no time.
    ("kvstore.node.loop._WATCHDOG_S", 2.0),
    # The virtual disk has no such reserve; a full one is a fault of its own.
    ("kvstore.node.maintenance.MIN_FREE_DISK_BYTES", 0),
)


@dataclass(slots=True)
class Params:
    """One seed's parameters."""

    seed: int
    profile: str = "short"
    ticks: int = 2_000
    nodes: int = 3
    heartbeat_ms: int = 50
    pre_vote: bool = True
    iteration_ns: int = 50 * US
    slow_disk_per_mille: int = 0
    network: NetworkParams = field(default_factory=NetworkParams)
    # What the members are told.
    snapshot_count: int = 10_000
    snapshot_min_wal_bytes: int = 64 * 1024**2
    catchup_entries: int = 5_000
    wal_segment_bytes: int = 256 * 1024
    quota_bytes: int = 2 * 1024**3
    watch_progress_interval_s: float = 600.0
    hash_check_s: float = 60.0
    bounds: dict[str, Any] = field(default_factory=dict)
    """Bounds of the product that this seed sets otherwise: dotted name → value."""
    choices: dict[str, int] = field(default_factory=dict)
    """How often the program takes which rare way, per 10,000 questions."""
    # Faults: how often in 1,000 ticks.
    rates: dict[str, float] = field(default_factory=dict)
    clock_rates_percent: tuple[int, ...] = (100,)
    within_atlas: bool = True
    """Whether damage leaves a clean quorum; without one, only safety is demanded."""
    down_ns: tuple[int, int] = (100 * MS, 5_000 * MS)
    """How long a member that crashed stays down."""
    # Clients.
    clients: int = 5
    keys: int = 6
    watchers: int = 2
    lease_clients: int = 1
    compactor: bool = True
    client_delay_ns: tuple[int, int] = (100 * US, 2 * MS)
    client_loss_rate: int = 0
    """Requests or answers lost, per 10,000."""
    client_timeout_ns: int = 3_000 * MS
    busy_think_ns: int = 20 * MS
    quiet_think_ns: int = 3_000 * MS
    quiet_percent: int = 30
    value_bytes: int = 16
    serializable: bool = True
    stop_traffic_early: bool = False
    # The service registry; without registrants nobody uses it.
    registrants: int = 0
    registry_services: int = 2
    registry_watchers: int = 2
    registry_askers: int = 2
    registry_strangers: int = 1
    registry_operator: bool = True
    ttl_s: tuple[int, int] = (1, 4)
    grace_s: tuple[int, int] = (0, 5)
    guard_window_s: int = 5
    guard_hold_s: int = 8

    @property
    def election_ms(self) -> int:
        """The election timeout."""
        return 10 * self.heartbeat_ms

    @property
    def election_ns(self) -> int:
        """The same in nanoseconds."""
        return self.election_ms * MS

    @property
    def safety_ns(self) -> int:
        """How long the safety phase is."""
        return self.ticks * TICK


def draw(seed: int, profile: str = "long") -> Params:
    """The parameters of a seed."""
    root = Prng(seed)
    params = Params(seed, profile, PROFILES[profile])
    shape = root.fork("shape")
    if profile == "long":
        params.nodes = shape.weighted([(12, 3), (5, 5), (1, 4), (1, 7)])
        params.nodes = 1 if shape.chance(5, 100) else params.nodes
    params.heartbeat_ms = shape.weighted([(1, 10), (2, 20), (4, 50), (4, 100)])
    if params.nodes > 3:
        params.heartbeat_ms = max(params.heartbeat_ms, 50)
    params.pre_vote = shape.chance(3, 4)
    params.iteration_ns = shape.pick((20, 50, 100, 300)) * US
    params.network = _network(root.fork("network"), profile)
    _members(params, root.fork("members"))
    _clients(params, root.fork("clients"))
    _faults(params, root.fork("faults"))
    _choices(params, root.fork("choices"))
    if profile != "canary" and root.fork("registry here").chance(1, 4):
        _registry(params, root.fork("registry"))
    return params


def _network(chance: Prng, profile: str) -> NetworkParams:
    fast = (100 * US, chance.pick((500 * US, 2 * MS, 10 * MS)))
    if profile != "long" or chance.chance(1, 5):
        return NetworkParams(delay_ns=fast)
    ordered = chance.chance(1, 2)

    def rate(*choices: int) -> int:
        return chance.pick((0, *choices))

    return NetworkParams(
        delay_ns=fast,
        slow_rate=rate(20, 200, 1_000),
        slow_ns=chance.pick((20 * MS, 100 * MS, 500 * MS)),
        loss_rate=0 if ordered else rate(10, 200, 1_000),
        double_rate=0 if ordered else rate(100, 1_000),
        replay_rate=0 if ordered else rate(100, 1_000),
        reset_rate=rate(2, 20),
        damage_rate=rate(500),
        ordered=ordered,
        capacity=chance.pick((4, 20, 4096, 4096)),
    )


def _members(params: Params, chance: Prng) -> None:
    if chance.chance(1, 2):
        params.snapshot_count = chance.pick((5, 20, 100))
        params.snapshot_min_wal_bytes = chance.pick((0, 2_000))
    params.catchup_entries = chance.pick((0, 5, 50, 5_000))
    params.wal_segment_bytes = chance.pick((8, 16, 64)) * 1024
    params.slow_disk_per_mille = chance.pick((0, 0, 5, 50))
    params.watch_progress_interval_s = chance.pick((0.5, 5.0, 600.0))
    params.hash_check_s = chance.pick((1.0, 10.0))
    for name, choices in _RARE:
        if chance.chance(1, 5):
            params.bounds[name] = chance.pick(choices)
    if "kvstore.watch.limits.BUFFERED_RESPONSES_MAX" in params.bounds:
        params.bounds["kvstore.watch.limits.RESUME_AT_RESPONSES"] = 2


def _clients(params: Params, chance: Prng) -> None:
    params.clients = chance.between(3, 12) if params.profile == "long" else chance.between(3, 6)
    params.keys = chance.between(4, 10)
    params.watchers = chance.between(1, 4)
    params.lease_clients = chance.between(0, 2)
    params.compactor = chance.chance(3, 4)
    params.client_delay_ns = (50 * US, chance.pick((500 * US, 5 * MS)))
    params.client_loss_rate = chance.pick((0, 20, 200))
    params.client_timeout_ns = chance.pick((500, 2_000, 8_000)) * MS
    params.value_bytes = chance.pick((8, 8, 100, 1_000))
    if params.profile == "long":
        # A fixed rate for the whole cluster, whatever the number of clients.
        params.quiet_think_ns = params.clients * chance.pick((400, 800)) * MS
        params.quiet_percent = chance.pick((50, 80))
        params.busy_think_ns = chance.pick((1, 20, 100)) * MS
    else:
        params.quiet_think_ns = params.clients * 250 * MS
        params.quiet_percent = 40
    params.stop_traffic_early = chance.chance(1, 4)


def _registry(params: Params, chance: Prng) -> None:
    long = params.profile == "long"
    params.registrants = chance.between(4, 12) if long else chance.between(3, 6)
    params.registry_services = chance.between(1, 3)
    params.registry_watchers = chance.between(1, 4)
    params.registry_askers = chance.between(1, 3)
    params.registry_strangers = chance.between(0, 2)
    params.registry_operator = chance.chance(2, 3)
    params.ttl_s = chance.pick(((1, 1), (1, 4), (2, 8))) if long else (1, 3)
    params.grace_s = chance.pick(((0, 1), (0, 5), (2, 10))) if long else (0, 3)
    params.guard_window_s = chance.pick((2, 5, 60))
    params.guard_hold_s = chance.pick((1, 8, 20))
    for name, choices in _RARE_IN_REGISTRY:
        if chance.chance(1, 4):
            params.bounds[name] = chance.pick(choices)


def _choices(params: Params, chance: Prng) -> None:
    for name, rates in _CHOICES.items():
        if chance.chance(1, 3):
            params.choices[name] = chance.pick(rates)


def _faults(params: Params, chance: Prng) -> None:
    long = params.profile == "long"
    for kind, often in FAULT_KINDS.items():
        if not long and kind not in CRASH_KINDS:
            continue
        on = chance.chance(1, 2) if long else chance.chance(4, 5)
        # Short seeds are about crashes and little else.
        strength = chance.pick((0.3, 1.0)) if long else 4.0
        if on:
            params.rates[kind] = often * strength
    if params.nodes == 1:
        for kind in ("isolate", "isolate leader", "cut one way", "partial", "swizzle", "reset"):
            params.rates.pop(kind, None)
    params.clock_rates_percent = chance.pick(((100,), (100,), (95, 105), (90, 100, 110)))
    if long:
        params.within_atlas = not chance.chance(1, 10)
        params.down_ns = chance.pick(((50 * MS, 1_000 * MS), (500 * MS, 8_000 * MS)))
    else:
        params.down_ns = (20 * MS, 600 * MS)


def _guard(params: Params) -> list[tuple[str, Any]]:
    """Guards that hold for seconds: nobody waits ten minutes for the end of a seed."""
    if not params.registrants:
        return []
    settings = GuardSettings(window_s=params.guard_window_s, hold_s=params.guard_hold_s)
    return [
        ("kvstore.registry.catalog._DEFAULTS", settings),
        ("kvstore.registry.limits.GUARD_HOLD_MAX_S", float(params.guard_hold_s)),
    ]


@contextmanager
def overridden(params: Params) -> Iterator[None]:
    """Puts the bounds of this seed in place, and back."""
    before: list[tuple[Any, str, Any]] = []
    try:
        for dotted, value in (*_ALWAYS, *_guard(params), *params.bounds.items()):
            path, _, name = dotted.rpartition(".")
            module = importlib.import_module(path)
            before.append((module, name, getattr(module, name)))
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in reversed(before):
            setattr(module, name, value)
