"""I43 (Consul's index, consul #2671 and others): what a watcher knows is what there is.

After each response the watcher's picture is the registry's at the revision it was told, no
revision goes back, on a stream or from one to the next, and nobody is woken for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.linear.history import Outcome
from tests.sim.books.instances import instances_of
from tests.sim.observer import Invariant
from tests.sim.registry_history import Shown

if TYPE_CHECKING:
    from kvstore.machine import Result
    from raft.types import Entry
    from tests.sim.process import Process
    from tests.sim.registry_history import Call, Reading, Watch, WatchAnswer
    from tests.sim.world import World

__all__ = ("RegistryWatchesAreTrue",)


class RegistryWatchesAreTrue(Invariant):
    """Follows every stream, and the revisions of answers by member."""

    number = "I43"
    title = (
        "The registry's revision never falls on a stream, across resumes, or among the answers "
        "of one member; a watcher is woken only when its answer has changed."
    )
    source = "Consul's blocking queries; Kubernetes' list and watch"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._book = instances_of(world)
        self._newest: dict[tuple[str, int, str], tuple[int, int, int]] = {}
        """(Member, incarnation, service) → (told at, revision, service revision), the newest."""
        self._known: list[tuple[int, int]] = [(0, 0)]
        """(Told at, revision) that a linearizable answer may not go behind, ascending."""

    def applied(self, p: Process, entries: Sequence[Entry], results: Sequence[Result]) -> None:
        self._book.follow(p, entries, results)

    # ---- watches ---------------------------------------------------------------------------

    def registry_watched(self, watch: Watch, answer: WatchAnswer) -> None:
        last = watch.answers[-2].revision if len(watch.answers) > 1 else watch.after
        if answer.revision < last:
            raise self.violated(
                f"watcher {watch.client} of {watch.scope} at {watch.member} was at revision "
                f"{last}, and is told {answer.revision}"
            )
        if len(watch.answers) == 1 and not watch.after and not answer.is_snapshot:
            raise self.violated(f"watcher {watch.client} begins without a snapshot: {answer}")
        state = watch.state
        if answer.is_snapshot:
            state.clear()
            state.update(answer.snapshot)
        elif not answer.events and not answer.is_progress:
            raise self.violated(f"watcher {watch.client} was woken for nothing: {answer}")
        self._take_events(watch, answer, last)
        self._compare(watch, answer)

    def _take_events(self, watch: Watch, answer: WatchAnswer, last: int) -> None:
        for event in answer.events:
            if not last < event.revision <= answer.revision:
                raise self.violated(
                    f"watcher {watch.client} was at {last}, and is told of {event} up to "
                    f"{answer.revision}"
                )
            before = watch.state.pop(event.name, None)
            if event.left and before is None:
                raise self.violated(f"watcher {watch.client} loses what it never had: {event}")
            if not event.left:
                if before == event.shown:
                    raise self.violated(f"watcher {watch.client} is told what it knows: {event}")
                watch.state[event.name] = event.shown

    def _compare(self, watch: Watch, answer: WatchAnswer) -> None:
        if not self._book.whole:
            return
        there = {
            name: Shown(state.revision, state.status)
            for name, state in self._book.at(watch.scope, answer.revision).items()
            if state.routable or not watch.healthy
        }
        if watch.state != there:
            names = sorted({*watch.state, *there})
            wrong = [name for name in names if watch.state.get(name) != there.get(name)][0]
            raise self.violated(
                f"watcher {watch.client} of {watch.scope} at {watch.member} is told everything up "
                f"to {answer.revision}; of {wrong} it knows {watch.state.get(wrong)}, and it is "
                f"{there.get(wrong)}"
            )

    # ---- answers ---------------------------------------------------------------------------

    def registry_told(self, call: Call) -> None:
        if call.outcome is Outcome.OK and call.revision > self._known[-1][1]:
            self._known.append((self.world.now_ns, call.revision))

    def registry_read(self, p: Process, reading: Reading) -> None:
        if reading.how != "get":
            return
        place = (p.name, p.incarnation, reading.service)
        now_ns = self.world.now_ns
        told_ns, revision, service_revision = self._newest.get(place, (now_ns, 0, 0))
        back = reading.revision < revision or reading.service_revision < service_revision
        if back and told_ns < reading.invoked_ns:
            raise self.violated(
                f"{p.name} answered for {reading.service} at revision {revision} (of the service: "
                f"{service_revision}), and later at {reading.revision} "
                f"({reading.service_revision})"
            )
        if (reading.revision, reading.service_revision) >= (revision, service_revision):
            self._newest[place] = (now_ns, reading.revision, reading.service_revision)
        if reading.linearizable:
            known = max(
                known for told, known in self._known if told < reading.invoked_ns or not told
            )
            if reading.revision < known:
                raise self.violated(
                    f"{p.name} answered as of {reading.revision}, linearizable, and a client knew "
                    f"of {known} before it was asked"
                )
            if reading.revision > self._known[-1][1]:
                self._known.append((now_ns, reading.revision))
