"""I42 (issues of Eureka, Consul and ZooKeeper): silence is found in time, and never early.

An instance whose heartbeat was answered is DOWN no earlier than its TTL after that, and gone no
earlier than TTL and grace; clocks run at 90 to 110 % of true time. It counts when the client
asked, so the bound is a little low, and knows of no leaders: a change of them cannot shorten it.
Once nothing goes wrong any more and everybody has fallen silent, DOWN and removal come within
one check and one commit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from raft.types import Role
from tests.linear.history import Outcome
from tests.sim.books.canon import canon_of
from tests.sim.books.instances import State, Step, instances_of
from tests.sim.observer import Invariant

if TYPE_CHECKING:
    from kvstore.machine import Result
    from raft.types import Entry
    from tests.sim.process import Process
    from tests.sim.registry_history import Call
    from tests.sim.world import World

__all__ = ("InstancesLiveOutTheirTime",)

_NS: Final = 1_000_000_000
_FASTEST_PERCENT: Final = 110
_HEARD_MAX: Final = 64
_CONFIRMED: Final = "an operator confirmed"
"""Why somebody goes who was silent, and is given no grace."""
_CHECKED_NS: Final = _NS
"""What finding it out and committing it may take, as the product promises."""


class InstancesLiveOutTheirTime(Invariant):
    """One earliest end per instance, moved by each heartbeat that a client knows was heard."""

    number = "I42"
    title = (
        "An instance vanishes from every view within TTL + one check period + one commit of its "
        "last heartbeat, and never earlier."
    )
    source = "the mission; Eureka's and Consul's late and early evictions"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._book = instances_of(world)
        self._canon = canon_of(world)
        self._seen = 0
        self._heard: dict[str, deque[tuple[int, int]]] = {}
        """Instance → (asked, answered) of heartbeats that were answered with a TTL."""
        self._touched: dict[str, int] = {}
        """Instance → the last moment at which a request about it may have been on its way."""
        self._calm_ns: int | None = None
        """Since when nothing goes wrong, and the leader is the same."""
        self._term = 0
        self._guarded = False
        """A guard was on since then."""

    def started(self, p: Process) -> None:
        self._book.observe(p)

    def registry_told(self, call: Call) -> None:
        assert call.told_ns is not None
        self._touched[call.name] = max(call.told_ns, self._touched.get(call.name, 0))
        if call.outcome is Outcome.OK and call.kind in ("register", "beat") and call.ttl_s:
            heard = self._heard.setdefault(call.name, deque(maxlen=_HEARD_MAX))
            heard.append((call.invoked_ns, call.told_ns))

    def changed(self, p: Process) -> None:
        if p.raft.role is Role.LEADER and p.raft.term > self._term:
            self._term = p.raft.term
            if self._calm_ns is not None:
                self._calm_ns = self.world.now_ns

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        steps = self._book.follow(p, entries, results)
        news, self._seen = steps[self._seen :], len(steps)
        for step in news:
            self._look_at(step)
        if self._calm_ns is not None and any(
            self._book.guard_at(service, self._canon.last_revision) for service in self._book.guards
        ):
            self._guarded = True

    def _look_at(self, step: Step) -> None:
        before, after = step.before, step.after
        if before is None or not before.owned:
            return
        if after is None:
            if step.why.startswith("expired") or step.why == "LEASE_EXPIRE":
                # Nobody was answered once that was decided: every answer so far counts.
                lives_s = before.ttl_s + (0 if _CONFIRMED in step.why else before.grace_s)
                self._not_early(step, before, step.at_ns, lives_s, "removed")
                self._not_late(step, before.ttl_s + before.grace_s, "removed")
        elif (after.silent or after.stale) and not (before.silent or before.stale):
            decided_ns = self._book.decided_ns(step)
            self._not_early(step, before, decided_ns, before.ttl_s, "found silent")
            self._not_late(step, before.ttl_s, "found silent")

    def _not_early(self, step: Step, before: State, known_ns: int, lives_s: int, what: str) -> None:
        asked = [asked for asked, told in self._heard.get(step.name, ()) if told <= known_ns]
        if not asked:
            return
        earliest = max(asked) + lives_s * _NS * 100 // _FASTEST_PERCENT
        if step.at_ns < earliest:
            raise self.violated(
                f"{step.name} was {what} at revision {step.revision} ({step.why}), "
                f"{(earliest - step.at_ns) / _NS:.3f} s before its time: a heartbeat that was "
                f"asked for at {max(asked)} ns was answered, TTL {before.ttl_s} s, grace "
                f"{before.grace_s} s, now {step.at_ns} ns"
            )

    def _not_late(self, step: Step, lives_s: int, what: str) -> None:
        if self._calm_ns is None or self._guarded:
            return
        since = max(self._calm_ns, self._touched.get(step.name, 0))
        latest = since + lives_s * _NS + _CHECKED_NS + 2 * self.world.params.election_ns
        if step.at_ns > latest:
            raise self.violated(
                f"{step.name} was {what} at revision {step.revision} only "
                f"{(step.at_ns - since) / _NS:.3f} s after anybody asked for it, with {lives_s} s "
                "to live, a healthy leader and no guard"
            )

    def phase_ended(self, name: str) -> None:
        if name == "liveness":
            self._calm_ns = self.world.now_ns
            self._guarded = any(
                self._book.guard_at(service, self._canon.last_revision)
                for service in self._book.guards
            )
        elif name == "silence" and self._book.whole and not self._canon.alarms:
            left = sorted(name for name, state in self._book.now().items() if state.owned)
            if left:
                raise self.violated(
                    f"nobody has sent a heartbeat for longer than every TTL, grace and guard, and "
                    f"still there are {left}"
                )
