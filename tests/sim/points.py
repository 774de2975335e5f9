"""The program's own fault points and rare choices inside a seed: counted, and made use of.

A point that is passed may be where a process dies (`Process.crash_point`). A choice is answered by
the seed: each has a stream of its own, and a rate that many seeds leave at zero.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from kvstore import faults
from tests.sim.disk import ProcessDied
from tests.sim.prng import Prng
from tests.sim.world import MS, World

__all__ = ("Points",)

_TURN_NS: Final = 3 * MS
"""How long a turn takes in a process that does not get to its applies."""
_BACKLOG_NS: Final = (10 * MS, 2_500 * MS)


class Points:
    """Installed (`with`) for the time of a seed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.passed: Counter[str] = Counter(dict.fromkeys(faults.POINTS, 0))
        """How often each point was passed."""
        self._chances: dict[str, Prng] = {
            name: world.prng.fork(f"choice {name}") for name in faults.CHOICES
        }
        self._behind_until_ns: dict[str, int] = {}

    def __enter__(self) -> Points:
        faults.install(self._pass, self._choose)
        return self

    def __exit__(self, *_: object) -> None:
        faults.install(None)

    def _pass(self, name: str) -> None:
        self.passed[name] += 1
        process = self.world.acting
        if process is None or process.crash_point[0] != name:
            return
        left = process.crash_point[1] - 1
        process.crash_point = (name, left)
        if left <= 0:
            self.world.log(f"{process.name} dies at {name}")
            self.world.fire("died at a point")
            process.kill()
            raise ProcessDied

    def _choose(self, name: str) -> bool:
        rate = self.world.params.choices.get(name, 0)
        chosen = self._is_behind(rate) if name == "apply.wait" else self._coin(name, rate)
        if chosen:
            self.world.fire(f"choice {name}")
        return chosen

    def _coin(self, name: str, rate: int) -> bool:
        return rate > 0 and self._chances[name].below(10_000) < rate

    def _is_behind(self, rate: int) -> bool:
        """A process that is overloaded does not apply for a while, and is slow at all else."""
        process = self.world.acting
        if process is None or rate == 0:
            return False
        now_ns = self.world.now_ns
        until_ns = self._behind_until_ns.get(process.name, 0)
        if now_ns >= until_ns:
            if not self._coin("apply.wait", rate):
                return False
            until_ns = now_ns + self._chances["apply.wait"].between(*_BACKLOG_NS)
            self._behind_until_ns[process.name] = until_ns
        process.drag_ns = _TURN_NS
        return True

    def end(self) -> None:
        """All faults stop: nobody is behind any more."""
        self._behind_until_ns.clear()
        self.world.params.choices.pop("apply.wait", None)
