"""Everything that a seed decides before anything happens."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.sim.network import NetworkParams
from tests.sim.world import US

__all__ = ("Params",)


@dataclass(slots=True)
class Params:
    """One seed's parameters; see `draw`."""

    seed: int
    nodes: int = 3
    heartbeat_ms: int = 50
    iteration_ns: int = 50 * US
    slow_disk_per_mille: int = 0
    network: NetworkParams = field(default_factory=NetworkParams)
