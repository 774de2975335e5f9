"""One call that judges a run: both checkers, which must agree, the event log, and every watch.

The rules under which a run can be judged are those of etcd's own validation: the store was empty
when it began; a client has one request in flight, and one that never heard goes on as another;
failed reads say nothing; the last operation must succeed, which shows that the cluster serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.linear import model, revision_check, watch_check, wgl
from tests.linear.finding import Finding, Verdict, table
from tests.linear.history import Compact, Event, Operation, Outcome, WatchRecord, Witness
from tests.linear.models import StoreModel
from tests.linear.settle import settle

SENTENCES_MAX = 10


@dataclass
class Judgement:
    """What was found. `problems` are sentences, the gravest first; empty if all is well."""

    by_revision: Finding
    by_search: Finding
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        if self.problems:
            return Verdict.ILLEGAL
        undecided = not (self.by_revision.legal and self.by_search.legal)
        return Verdict.INCONCLUSIVE if undecided else Verdict.LEGAL

    def __str__(self) -> str:
        if self.verdict is Verdict.INCONCLUSIVE:
            undecided = self.by_search if self.by_revision.legal else self.by_revision
            return str(undecided)
        more = len(self.problems) - SENTENCES_MAX
        shown = self.problems[:SENTENCES_MAX] + ([f"… and {more} more"] if more > 0 else [])
        return "\n".join(shown) or self.verdict.value

    def demand(self) -> None:
        """Raises AssertionError with the counter-example unless the run was shown to be legal."""
        if self.verdict is not Verdict.LEGAL:
            raise AssertionError(str(self))


def judge(
    history: Sequence[Operation],
    watches: Sequence[WatchRecord] = (),
    witness: Witness | None = None,
    *,
    compacted: int = 0,
    last_must_succeed: bool = True,
    states_max: int = wgl.STATES_MAX,
) -> Judgement:
    """Judges one run from the first request on an empty store to the last one.

    `witness` is the complete event log; without it unknown outcomes are left to the search, leases
    must not have expired with keys, and watches cannot be judged. `compacted` is the highest
    revision that the system itself may have compacted; what clients compacted is taken from the
    history.
    """
    assert witness is not None or not watches, "watches are judged against the event log"
    problems = _rules_broken(history, last_must_succeed=last_must_succeed)
    with revision_check.collector_paused():
        settled = list(history) if witness is None else settle(history, witness)
        by_revision, store = revision_check.judged(settled)
        by_search = wgl.check(StoreModel(), settled, states_max)
    problems += [
        f"{method}: {finding}"
        for method, finding in (("by revision", by_revision), ("by search", by_search))
        if finding.verdict is Verdict.ILLEGAL
    ]
    decided = Verdict.INCONCLUSIVE not in (by_revision.verdict, by_search.verdict)
    if decided and by_revision.verdict is not by_search.verdict:
        problems.append("the two checkers do not agree")
    if witness is not None:
        if store is not None:
            problems += _log_differs(store, witness)
        asked = [op.request.revision for op in history if isinstance(op.request, Compact)]
        log = watch_check.EventLog(witness, max([compacted, *asked]))
        problems += watch_check.check(watches, log)
    judgement = Judgement(by_revision, by_search, problems)
    judgement.counts = {
        "operations": len(history),
        "settled": sum(op.outcome is Outcome.UNKNOWN for op in history),
        "watches": len(watches),
        "events": sum(len(one.events) for record in watches for one in record.responses),
    }
    return judgement


def _rules_broken(history: Sequence[Operation], *, last_must_succeed: bool) -> list[str]:
    problems: list[str] = []
    in_flight: dict[int, Operation] = {}
    last: Operation | None = None
    for op in sorted(history, key=lambda one: one.call):
        earlier = in_flight.get(op.client)
        if earlier is not None and earlier.ret is not None and earlier.ret > op.call:
            problems.append(
                f"client {op.client} had two requests in flight\n{table((earlier, op))}"
            )
        in_flight[op.client] = last = op
    if last_must_succeed and (last is None or last.outcome is not Outcome.OK):
        problems.append("the last operation did not succeed\n" + table([last] if last else ()))
    return problems


def _log_differs(store: model.Store, witness: Witness) -> list[str]:
    """Where the event log is not what the answered and settled writes make."""
    problems: list[str] = []
    expected = dict(model.log_of(store))
    for revision, events in witness:
        if revision not in expected:
            problems.append(f"event log: revision {revision} was made by no request: {events}")
        elif _bare(events) != _bare(expected[revision]):
            problems.append(
                f"event log: revision {revision} holds {events}, not {expected[revision]}"
            )
    held = frozenset(revision for revision, _ in witness)
    problems += [
        f"event log: revision {revision} is missing"
        for revision in expected
        if revision not in held
    ]
    return problems


def _bare(events: Sequence[Event]) -> tuple[Event, ...]:
    """Events without their previous pairs, which a log need not hold."""
    return tuple(replace(event, prev=None) for event in events)
