"""What the committed history says of instances and guards, read from the values themselves.

The product's catalog, model and lifecycle have no part in it: a value is JSON, and what its
fields mean is said here a second time.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kvstore.machine.command import BatchItem, CommandKind, decode, read_batch
from kvstore.machine.results import DELETE, Change
from tests.sim.books.canon import Canon, Outcome, canon_of, kv_of

if TYPE_CHECKING:
    from kvstore.machine import Result
    from raft.types import Entry
    from tests.linear.history import KV
    from tests.sim.process import Process
    from tests.sim.world import World

__all__ = ("Instances", "State", "Step", "instances_of", "state_of_value")

_SERVICES = b"/kvstore/services/"
_GUARDS = b"/kvstore/guards/"
_GOOD = ("UP", "DEGRADED")


class State(NamedTuple):
    """One instance as it stood at some revision."""

    revision: int
    lease: int
    owned: bool
    """The registry gave it its lease."""
    status: str
    silent: bool
    stale: bool
    ttl_s: int
    grace_s: int
    reason: str
    address: str

    @property
    def routable(self) -> bool:
        """Whether new requests may go there."""
        return self.status in _GOOD


class Step(NamedTuple):
    """One change of one instance."""

    revision: int
    at_ns: int
    """When the first process applied it."""
    name: str
    """namespace/service/id."""
    before: State | None
    after: State | None
    why: str
    """The reason that went to the journal; the kind of the command if it is none of the
    registry's."""
    expected_mod: int
    by_registry: bool

    @property
    def service(self) -> str:
        """namespace/service."""
        return self.name.rpartition("/")[0]


def state_of_value(kv: KV) -> State | None:
    """The instance that a pair holds; None if it is none."""
    try:
        told: Any = json.loads(kv.value)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    silent, stale = bool(told.get("silent")), bool(told.get("stale"))
    status = told.get("override") or ("DOWN" if silent else told.get("reported", "UP"))
    lease = int(str(told.get("lease", "0")), 16)
    return State(
        kv.mod,
        kv.lease,
        kv.lease != 0 and lease == kv.lease,
        str(status),
        silent,
        stale,
        int(told.get("ttl_s", 0)),
        int(told.get("grace_s", 0)),
        str((told.get("reason") or {}).get("code", "")),
        str(told.get("address", "")),
    )


class Instances:
    """Every instance's states by revision, and the notes of guards."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps: list[Step] = []
        self.whole = True
        """False: some entry was shown by nobody; nothing can be said any more."""
        self.proposed: dict[tuple[bytes, int, str], int] = {}
        """(Key, expected revision, reason) → when a change by that reason was first decided."""
        self.guards: dict[str, list[tuple[int, str]]] = {}
        """Service → (revision, the state its note says from there on; empty: no note)."""
        self._canon: Canon = canon_of(world)
        self._next = 2
        self._timeline: dict[str, list[tuple[int, State | None]]] = {}

    # ---- following the history -------------------------------------------------------------

    def follow(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> list[Step]:
        """Takes in what was applied, if nobody else has; the steps that are new to the caller
        are those behind the ones it has seen."""
        self._canon.read(p, entries, results)
        self._advance()
        return self.steps

    def _advance(self) -> None:
        """Also what a process did in the moment in which it died: that shows when it is back."""
        while self._next <= self._canon.last_index:
            outcome = self._canon.outcomes.get(self._next)
            self._next += 1
            if outcome is None:
                self.whole = False
            else:
                self._take(outcome)

    def _take(self, outcome: Outcome) -> None:
        items: dict[bytes, BatchItem] = {}
        if any(change.key.startswith(b"/kvstore/") for change in outcome.changes):
            command = decode(outcome.entry.data)
            if command is not None and command.kind == CommandKind.BATCH:
                items = {item.key: item for item in read_batch(command.payload)[2]}
        for change in outcome.changes:
            if change.key.startswith(_SERVICES):
                self._instance(change, items.get(change.key), CommandKind(outcome.kind).name)
            elif change.key.startswith(_GUARDS):
                self._guard(change)

    def _instance(self, change: Change, item: BatchItem | None, kind: str) -> None:
        name = change.key[len(_SERVICES) :].decode()
        timeline = self._timeline.setdefault(name, [])
        before = timeline[-1][1] if timeline else None
        after = None if change.kind == DELETE else state_of_value(kv_of(change.kv))
        timeline.append((change.revision, after))
        self.steps.append(
            Step(
                change.revision,
                self.world.now_ns,
                name,
                before,
                after,
                item.reason if item is not None else kind,
                item.expected_mod if item is not None else -1,
                item is not None,
            )
        )

    def _guard(self, change: Change) -> None:
        service = change.key[len(_GUARDS) :].decode()
        state = ""
        if change.kind != DELETE:
            state = str(json.loads(kv_of(change.kv).value).get("state", ""))
        self.guards.setdefault(service, []).append((change.revision, state))

    # ---- readings --------------------------------------------------------------------------

    def at(self, scope: str, revision: int) -> dict[str, State]:
        """All instances of a service, or of a namespace, or ("*") of all, at a revision."""
        self._advance()
        found: dict[str, State] = {}
        for name, timeline in self._timeline.items():
            if scope == "*" or name.startswith(f"{scope}/"):
                at = bisect_right(timeline, revision, key=lambda each: each[0])
                state = timeline[at - 1][1] if at else None
                if state is not None:
                    found[name] = state
        return found

    def now(self) -> dict[str, State]:
        """All instances as of the newest revision."""
        return self.at("*", self._canon.last_revision)

    def guard_at(self, service: str, revision: int) -> str:
        """What the note of a service's guard says at a revision; empty: there is none."""
        self._advance()
        notes = self.guards.get(service, [])
        at = bisect_right(notes, revision, key=lambda each: each[0])
        return notes[at - 1][1] if at else ""

    def decided_ns(self, step: Step) -> int:
        """When a change of the registry was decided; the time of its commit if nobody saw."""
        key = _SERVICES + step.name.encode()
        return self.proposed.get((key, step.expected_mod, step.why), step.at_ns)

    def observe(self, p: Process) -> None:
        """Has the batches of a new process noted as they are proposed."""
        self._canon.resume(p)
        node: Any = p.node
        if node is None or not hasattr(node, "submit_batch"):
            return
        submit = node.submit_batch

        def submitted(items: Sequence[BatchItem], **more: Any) -> Any:
            for item in items:
                place = (item.key, item.expected_mod, item.reason)
                self.proposed.setdefault(place, self.world.now_ns)
            return submit(items, **more)

        node.submit_batch = submitted


_latest: Instances | None = None


def instances_of(world: World) -> Instances:
    """The one book of a world; its invariants are made together and share it."""
    global _latest
    if _latest is None or _latest.world is not world:
        _latest = Instances(world)
    return _latest
