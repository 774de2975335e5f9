"""I29 (etcd 3.5's postmortem): members that differ are found out within one check period.

The histories of all running members are hashed here, too, at the pace of the product's own
check. Two that differ at equal revision and equal compact revision must lead to the CORRUPT
alarm; one more period is granted for elections and for what could not be compared in the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.pb.rpc_pb2 import CORRUPT
from tests.sim.books.reading import kv_hash, running
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("DifferencesRaiseTheAlarm",)

_NS = 1_000_000_000


class DifferencesRaiseTheAlarm(Invariant):
    """Looks twice per period; says nothing where the check is switched off."""

    number = "I29"
    title = (
        "Two members whose hashes differ at equal revision and equal compact revision raise the "
        'alarm within one check period; "could not compare" is counted.'
    )
    source = "etcd 3.5 postmortem"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._next = 0
        self._differ_since: int | None = None
        self._who = ""
        self._missed: dict[tuple[str, int], int] = {}

    def stepped(self, p: Process) -> None:
        now = self.world.now_ns
        if now < self._next:
            return
        period = self._period_ns()
        if not period:
            self._next = now + 10 * _NS
            return
        self._next = now + period // 2
        self._look(now, period)

    def phase_ended(self, name: str) -> None:
        period = self._period_ns()
        if period:
            self._look(self.world.now_ns, period)

    def _period_ns(self) -> int:
        found = [
            interval
            for p in self.world.processes.values()
            for interval in (p.config.compact_hash_check_s, p.config.corrupt_check_s)
            if interval > 0
        ]
        return int(min(found) * _NS) if found else 0

    def _look(self, now: int, period: int) -> None:
        members = running(self.world.processes)
        alarmed = any(kind == CORRUPT for p in members for _, kind in p.machine.alarms)
        pair = None if alarmed else self._different(members)
        if pair is None:
            self._differ_since = None
            return
        if self._differ_since is None:
            self._differ_since, self._who = now, pair
        # A check takes time, and finds nobody to ask while members are down or without a leader.
        elif now - self._differ_since > 2 * period + 10 * _NS:
            raise self.violated(
                f"{self._who} differ since {self._differ_since} ns, and after "
                f"{(now - self._differ_since) / _NS:.1f} s no CORRUPT alarm is up (check period "
                f"{period / _NS:.1f} s)"
            )

    @staticmethod
    def _different(members: list[Process]) -> str | None:
        seen: dict[tuple[int, int], tuple[int, str]] = {}
        for p in members:
            found, compact, revision = kv_hash(p)
            known, name = seen.setdefault((compact, revision), (found, p.name))
            if known != found:
                return f"{name} and {p.name}"
        return None
